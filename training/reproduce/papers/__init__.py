"""The papers whose experiments are run again, a folder each."""
