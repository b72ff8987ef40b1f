"""The bundled vision transformer for 8×8 digits: timm's, small enough to ship and to search."""

from __future__ import annotations

from torch import nn


def digits_vit(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """DeiT's architecture with 16 patches of 2×2 pixels, a class token, 5 blocks of width 48."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=8,
        patch_size=2,
        in_chans=in_channels,
        num_classes=num_classes,
        embed_dim=48,
        depth=5,
        num_heads=3,
    )
