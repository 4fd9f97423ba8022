"""Measures the networks side by side with PyTorch and with plain Flax: ``python -m benchmarks``."""
