"""Shipped recipes: complete runs, one TOML file each."""
