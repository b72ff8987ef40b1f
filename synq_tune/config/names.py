"""What a setting may name; repeats the keys of the dicts in the rooms that implement them.

A test holds the two together.
"""

from __future__ import annotations

CAM_NAMES = ("cam", "gradcam", "gradcam++")
QUANTIZER_NAMES = ("minmax", "lsq", "deploy", "vit_minmax", "vit_lsq")
SYNTHESIS_NAMES = ("synq", "psaq", "noise", "images")
BUNDLED_MODELS = (
    "cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56", "digits_resnet26",
    "digits_vit",
)  # fmt: skip
MODEL_PREFIXES = ("timm", "torchvision", "pytorchcv", "python")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
