"""Gaussian noise with the teacher's own labels: what distillation alone makes of no data at all."""

import torch


def gaussian(teacher, config, folder, show):
    """Images (N, C, H, W) of N(0, 1) pixels, and the classes (N,) the teacher sees in them."""
    device = next(teacher.graph.parameters()).device
    images = torch.randn(config.num_images + config.num_holdout, *teacher.preprocessing.shape)
    labels = [teacher(part.to(device)).argmax(1).cpu() for part in images.split(256)]
    return images, torch.cat(labels)
