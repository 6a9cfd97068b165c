"""Engines that run a model, each in one file, behind one contract."""
