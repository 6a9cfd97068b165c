"""Faults of tactics and fusions, planted in the simulated TensorRT, and how well the searches name them."""
