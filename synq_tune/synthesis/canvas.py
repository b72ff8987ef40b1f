"""What is optimised: the pixels of a batch, or whatever else makes images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from synq_tune.config.synthesis import CanvasSettings
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.start import first_pixels


class Canvas(ABC):
    """One batch of images in the making, such as its pixels, or latents and a small generator."""

    @abstractmethod
    def parameters(self) -> list[Any]:
        """What Adam changes: tensors, or groups `{"params": […], "lr": …}` with rates of their
        own."""

    @abstractmethod
    def images(self) -> Tensor:
        """The images as they are now, (N, C, H, W) float32, normalised; gradients reach the
        parameters."""

    def shown(self) -> Tensor:
        """What the teacher is shown in the next iteration, as `images`; another part of the canvas,
        where there is more than the images."""
        return self.images()

    def after_step(self) -> None:  # noqa: B027 (most canvases have nothing to do here)
        """Called behind each step of Adam, such as to keep pixels in range; does nothing by
        itself."""


class Pixels(Canvas):
    """Images whose pixels are the parameters."""

    def __init__(self, start: Tensor, bounds: tuple[Tensor, Tensor] | None = None) -> None:
        """Start from a copy.

        Args:
            start: (N, C, H, W) float32, normalised; left unchanged.
            bounds: least and largest value, (1, C, 1, 1) each, that pixels keep behind each step.
        """
        copy = start.clone(memory_format=torch.contiguous_format)
        self._pixels, self._bounds = copy.requires_grad_(True), bounds

    def parameters(self) -> list[Any]:
        """The pixels alone."""
        return [self._pixels]

    def images(self) -> Tensor:
        """The pixels, (N, C, H, W) float32."""
        return self._pixels

    def after_step(self) -> None:
        """Clamp to the bounds, if there are any."""
        if self._bounds is not None:
            self._pixels.data.clamp_(*self._bounds)


class WidePixels(Pixels):
    """Pixels around the images too, seen through a Gaussian: what is shown moves in each iteration.

    An edge or a dot that suits one position of the window alone cannot lower the loss.
    """

    def __init__(
        self, start: Tensor, margin: int, smoothing: float, generator: torch.Generator
    ) -> None:
        """Start from a copy.

        Args:
            start: (N, C, H + 2 · margin, W + 2 · margin) float32, normalised.
            margin: pixels on each side.
            smoothing: the Gaussian's standard deviation in pixels; 0 = none.
            generator: on the CPU; draws the window.
        """
        super().__init__(start)
        self._margin, self._generator = margin, generator
        self._kernel = gaussian_kernel(smoothing, start.device) if smoothing else None

    def images(self) -> Tensor:
        """The window in the middle, (N, C, H, W)."""
        return self._window(self._margin, self._margin)

    def shown(self) -> Tensor:
        """A window drawn anew for each iteration, the same for the whole batch."""
        top, left = torch.randint(2 * self._margin + 1, (2,), generator=self._generator).tolist()
        return self._window(top, left)

    def _window(self, top: int, left: int) -> Tensor:
        pixels = self._pixels if self._kernel is None else smooth(self._pixels, self._kernel)
        height, width = (side - 2 * self._margin for side in pixels.shape[2:])
        return pixels[:, :, top : top + height, left : left + width]


def gaussian_kernel(deviation: float, device: torch.device) -> Tensor:
    """Weights (2r + 1,) that sum to 1, r = ⌈2 · deviation⌉."""
    radius = math.ceil(2 * deviation)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    weights = (-0.5 * (offsets / deviation).square()).exp()
    return weights / weights.sum()


def smooth(images: Tensor, kernel: Tensor) -> Tensor:
    """Images (N, C, H, W) filtered by rows and columns; the outermost pixel repeats."""
    radius, channels = len(kernel) // 2, images.shape[1]
    rows = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    padded = F.pad(images, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, rows, groups=channels), columns, groups=channels)


def pixel_canvas(
    teacher: LoadedTeacher, config: CanvasSettings, count: int, generator: torch.Generator
) -> Canvas:
    """`count` images that start as `config.start` says, or as N(0, 1) where there is no such
    setting; with a margin and smoothed, where the settings say so."""
    start, margin = getattr(config, "start", "noise"), getattr(config, "margin", 0)
    smoothing = getattr(config, "smoothing", 0.0)
    pixels = first_pixels(teacher, start, count, generator, margin)
    if margin or smoothing:
        return WidePixels(pixels, margin, smoothing, generator)
    return Pixels(pixels)
