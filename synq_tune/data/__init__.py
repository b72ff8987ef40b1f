"""Labelled images to measure on, and the synthetic dataset to train on."""
