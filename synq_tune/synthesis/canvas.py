"""What is optimised: the pixels of a batch, or whatever else makes images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
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


def pixel_canvas(
    teacher: LoadedTeacher, config: CanvasSettings, count: int, generator: torch.Generator
) -> Canvas:
    """`count` images that start as `config.start` says, or as N(0, 1) where there is no such
    setting."""
    start = getattr(config, "start", "noise")
    return Pixels(first_pixels(teacher, start, count, generator))
