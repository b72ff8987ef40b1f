"""Quantized fine-tuning: low-pass filter, saliency, losses, views of the dataset, the loop."""
