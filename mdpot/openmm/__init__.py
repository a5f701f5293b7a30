"""Forces for OpenMM."""
