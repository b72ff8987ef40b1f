"""Distributed hyperparameter search for zero-shot quantization of image classifiers."""

__version__ = "0.1.0"
