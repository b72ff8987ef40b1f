"""Batches out of a generator that trains along with the student."""
