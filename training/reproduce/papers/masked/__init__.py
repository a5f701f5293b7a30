"""Zhang, Li, Barati Farimani, "Masked pretraining strategy for neural potentials"; and experiments it lacks."""
