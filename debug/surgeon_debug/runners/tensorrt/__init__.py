"""TensorRT: parsing, building, caches, execution, observation; only ``module.py`` imports the vendor's package."""
