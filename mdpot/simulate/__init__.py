"""Running molecular dynamics and analyzing it."""
