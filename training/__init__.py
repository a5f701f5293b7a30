"""Training potentials: data, objectives, the loop, reports."""
