"""How each view is cut, mirrored and mixed. The choices are drawn once; pixels are made when
needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synq_tune.config import ViewSettings
from synq_tune.data.augment import crop_and_flip, random_boxes
from synq_tune.views.low_pass import low_pass


@dataclass(frozen=True)
class ViewTransforms:
    """V ways to look at each of N images."""

    boxes: Tensor
    """(V, N, 4): top, left, height, width as fractions of the image."""
    flips: Tensor
    """(V, N) bool."""
    partners: Tensor
    """(V, N) int64, the image each one is blended with, in the same view."""
    weights: Tensor
    """(V, N) in [0, 1], the image's own share of the blend, or of the area where a patch is
    pasted."""
    patches: Tensor
    """(V, N, 4): top, left, height, width, as fractions, of a patch of the other image; where it is
    empty the two are blended."""

    def to(self, device: torch.device | str) -> ViewTransforms:
        """The same transforms on another device."""
        return ViewTransforms(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def pixels(self, images: Tensor, view: int, index: Tensor, config: ViewSettings) -> Tensor:
        """Pixels of one view of the images at `index`.

        Cropped, mirrored, mixed and low-pass filtered, in the order the recipe asks for.

        Args:
            images: (N, C, H, W), all of them, on the transforms' device; already filtered where
                `filter_before_crop`.
            view: number in [0, V).
            index: (n,) int64.

        Returns:
            (n, C, H, W) float32.
        """
        pixels = self._cut(images, view, index, config)
        if config.mix_weight is not None:
            other = self._cut(images, view, self.partners[view][index], config)
            pixels = self._mixed(pixels, other, view, index, config)
        return pixels if config.filter_before_crop else low_pass(pixels, config.d0)

    def _mixed(
        self, pixels: Tensor, other: Tensor, view: int, index: Tensor, config: ViewSettings
    ) -> Tensor:
        own = self.weights[view][index][:, None, None, None]
        blend = own * pixels + (1 - own) * other
        if config.mix_keeps_variance:
            blend = blend / (own.square() + (1 - own).square()).sqrt()
        if config.paste_probability == 0:
            return blend
        patches = self.patches[view][index]
        pasted = torch.where(_inside(patches, *pixels.shape[2:]), other, pixels)
        return torch.where(patches[:, 2, None, None, None] > 0, pasted, blend)

    def _cut(self, images: Tensor, view: int, index: Tensor, config: ViewSettings) -> Tensor:
        pixels = images[index].float()
        if config.crop_scale is None and not config.flip:
            return pixels
        return crop_and_flip(pixels, self.boxes[view][index], self.flips[view][index])


def draw_transforms(count: int, config: ViewSettings, seed: int) -> ViewTransforms:
    """`config.num_views` transforms at each of `count` images, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    views, scale = range(config.num_views), config.crop_scale or (1.0, 1.0)
    boxes = torch.stack([random_boxes(count, scale, generator) for _ in views])
    flips = torch.rand(config.num_views, count, generator=generator) < 0.5
    partners = torch.stack([torch.randperm(count, generator=generator) for _ in views])
    low, high = config.mix_weight or (1.0, 1.0)
    weights = low + (high - low) * torch.rand(config.num_views, count, generator=generator)
    if config.crop_scale is None:
        boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand_as(boxes).contiguous()
    patches = _draw_patches(weights, config.paste_probability, generator)
    return ViewTransforms(boxes, flips & config.flip, partners, weights, patches)


def _draw_patches(weights: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Places of the pasted patches (V, N, 4), drawn as in CutMix (Yun et al., 2019).

    A patch has the image's aspect ratio. It covers the other image's share of the area and lies
    wholly inside the image. With probability 1 - `probability` it is empty: nothing is pasted.
    """
    side = (1 - weights).sqrt()
    place = torch.rand(*weights.shape, 2, generator=generator) * (1 - side)[..., None]
    is_pasted = torch.rand(weights.shape, generator=generator) < probability
    size = torch.where(is_pasted, side, 0.0)[..., None].expand_as(place)
    return torch.cat((place, size), dim=-1)


def _inside(patches: Tensor, height: int, width: int) -> Tensor:
    """Which pixels have their centre in the patches (n, 4): (n, 1, H, W) bool."""

    def covered(start: Tensor, extent: Tensor, size: int) -> Tensor:
        centres = (torch.arange(size, device=patches.device) + 0.5) / size
        return (centres >= start[:, None]) & (centres < (start + extent)[:, None])

    top, left, tall, wide = patches.unbind(1)
    rows, columns = covered(top, tall, height), covered(left, wide, width)
    return rows[:, None, :, None] & columns[:, None, None, :]


def base_images(images: Tensor, config: ViewSettings) -> Tensor:
    """The images views are cut from, float16: filtered once here where the recipe says so."""
    return low_pass(images, config.d0).half() if config.filter_before_crop else images.half()
