"""Where frames come from and how they become batches."""
