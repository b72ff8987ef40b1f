"""What `scripts/gpu_check.py` runs: one visit to a GPU, every part on its own."""
