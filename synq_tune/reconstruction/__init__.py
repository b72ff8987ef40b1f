"""Reconstruction: the student is fitted to its teacher part by part."""
