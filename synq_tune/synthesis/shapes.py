"""Pictures of overlapping shapes: something with edges, areas and light for synthesis to start
from.

Noise that is drawn towards the teacher's statistics stays a texture, and more of it says little
more. Natural images are areas that hide each other ("dead leaves": Lee, Mumford & Huang, 2001),
whose colours differ less than their light and whose spectrum falls with frequency. Pixels that
start as such pictures keep their layout while they are optimised.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SIZES = (1.2,) * 4 + (0.7,) * 8
"""Relative sizes of the shapes of an image, from the rearmost to the foremost."""
_LIGHT, _COLOUR = 0.9, 0.35
"""Deviations of what all channels share and of what each has of its own."""
_SLOPE = 1.3
"""Amplitudes of a texture fall as frequency to this power."""
_DEVIATION = 1.1
"""Near that of normalised images: by their definition 1, on the CIFAR test images it is 1.11."""


def draw_shapes(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Ellipses and rectangles of random place, size, angle, colour and texture, later over earlier.

    Args:
        count: number of images N.
        shape: (C, H, W) of one image.
        generator: on the CPU.

    Returns:
        (N, C, H, W) float32 on the CPU, mean 0 and standard deviation 1.1 over all of them.
    """
    channels, height, width = shape
    grain = _texture(count, shape, generator)
    images = _coloured(count, (channels, 1, 1), generator) + 0.5 * grain
    for number, size in enumerate(_SIZES, start=1):
        # The grain of the image, seen elsewhere: another texture for the price of one.
        seen = grain.roll((number * height // 5, number * width // 7), (2, 3))
        amount = 0.5 * torch.rand(count, 1, 1, 1, generator=generator)
        fill = _coloured(count, (channels, 1, 1), generator) + amount * seen
        images = images.lerp(fill, _cover(count, height, width, size, generator))
    return (images - images.mean()) / images.std(correction=0).clamp_min(1e-6) * _DEVIATION


def _coloured(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Noise (N, C, H, W) whose channels are alike."""
    light = torch.randn(count, 1, *shape[1:], generator=generator)
    return _LIGHT * light + _COLOUR * torch.randn(count, *shape, generator=generator)


def _texture(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Coloured noise (N, C, H, W) with falling amplitudes, each channel of deviation 1."""
    _, height, width = shape
    rows = torch.fft.fftfreq(height)[:, None] * height
    columns = torch.fft.rfftfreq(width) * width
    falling = torch.hypot(rows, columns).clamp_min(1.0) ** -_SLOPE
    spectrum = torch.fft.rfft2(_coloured(count, shape, generator)) * falling
    waves = torch.fft.irfft2(spectrum, s=(height, width))
    return waves / waves.std((2, 3), correction=0, keepdim=True).clamp_min(1e-6)


def _cover(count: int, height: int, width: int, size: float, generator: torch.Generator) -> Tensor:
    """The share of each pixel that one shape per image hides, (N, 1, H, W) in (0, 1)."""
    rows = torch.linspace(-1, 1, height)[:, None]
    columns = torch.linspace(-1, 1, width)
    draw = torch.rand(6, count, 1, 1, generator=generator)
    down, right = rows - (2.4 * draw[0] - 1.2), columns - (2.4 * draw[1] - 1.2)
    angle = math.pi * draw[2]
    radii = size * (0.15 + 0.9 * draw[3:5].square())
    along = ((right * angle.cos() + down * angle.sin()) / radii[0]).abs()
    across = ((down * angle.cos() - right * angle.sin()) / radii[1]).abs()
    is_rectangle = draw[5] < 0.4
    reach = torch.where(is_rectangle, torch.maximum(along, across), torch.hypot(along, across))
    return torch.sigmoid(12 * (1 - reach))[:, None]
