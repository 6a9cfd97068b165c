"""The simulated CUDA bindings: the runtime only."""

__version__ = "13.0.3"
