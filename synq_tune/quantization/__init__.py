"""Fake quantization: what is quantized, on which grid, and the ranges behind it."""
