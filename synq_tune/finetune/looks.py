"""How the views of a dataset are cut, mirrored and blended: drawn once, remade into pixels at will."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synq_tune.config import FineTune
from synq_tune.finetune.low_pass import low_pass
from synq_tune.synthesis.augment import crop_and_flip, random_boxes


@dataclass(frozen=True)
class Looks:
    """V ways to look at each of N images."""

    boxes: Tensor
    """(V, N, 4): top, left, height, width as fractions of the image."""
    flips: Tensor
    """(V, N) bool."""
    partners: Tensor
    """(V, N) int64, the image each one is blended with, in the same view."""
    weights: Tensor
    """(V, N) in [0, 1], the image's own share of the blend."""

    def to(self, device: torch.device | str) -> Looks:
        """The same looks on another device."""
        return Looks(*(t.to(device) for t in (self.boxes, self.flips, self.partners, self.weights)))

    def pixels(self, images: Tensor, view: int, index: Tensor, config: FineTune) -> Tensor:
        """Pixels of one view of the images at `index`.

        Cropped, mirrored, blended and low-pass filtered, in the order the recipe asks for.

        Args:
            images: (N, C, H, W), all of them, on the looks' device; already filtered where
                `filter_before_crop`.
            view: number in [0, V).
            index: (n,) int64.

        Returns:
            (n, C, H, W) float32.
        """
        pixels = self._cut(images, view, index, config)
        if config.mix_weight is not None:
            own = self.weights[view][index][:, None, None, None]
            other = self._cut(images, view, self.partners[view][index], config)
            pixels = own * pixels + (1 - own) * other
            if config.mix_keeps_variance:
                pixels = pixels / (own.square() + (1 - own).square()).sqrt()
        return pixels if config.filter_before_crop else low_pass(pixels, config.d0)

    def _cut(self, images: Tensor, view: int, index: Tensor, config: FineTune) -> Tensor:
        pixels = images[index].float()
        if config.crop_scale is None and not config.flip:
            return pixels
        return crop_and_flip(pixels, self.boxes[view][index], self.flips[view][index])


def draw_looks(count: int, config: FineTune, seed: int) -> Looks:
    """`config.num_views` looks at each of `count` images, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    views, scale = range(config.num_views), config.crop_scale or (1.0, 1.0)
    boxes = torch.stack([random_boxes(count, scale, generator) for _ in views])
    flips = torch.rand(config.num_views, count, generator=generator) < 0.5
    partners = torch.stack([torch.randperm(count, generator=generator) for _ in views])
    low, high = config.mix_weight or (1.0, 1.0)
    weights = low + (high - low) * torch.rand(config.num_views, count, generator=generator)
    if config.crop_scale is None:
        boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand_as(boxes).contiguous()
    return Looks(boxes, flips & config.flip, partners, weights)


def base_images(images: Tensor, config: FineTune) -> Tensor:
    """The images views are cut from, float16: filtered once here where the recipe says so."""
    return low_pass(images, config.d0).half() if config.filter_before_crop else images.half()
