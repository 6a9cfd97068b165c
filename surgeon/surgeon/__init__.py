"""The roof: what people type and read."""
