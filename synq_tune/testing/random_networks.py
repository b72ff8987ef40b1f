"""Random small networks made of every part we say we take; a number names each for good.

`random_network(seed)` is a network like any other:
`python:synq_tune.testing.random_networks:random_network` with kwargs {seed: N} can be a teacher,
and a packed file can rebuild it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.testing.random_activations import draw_activation
from synq_tune.testing.random_parts import (
    Attention,
    Channelwise,
    Concat,
    Gate,
    Keywords,
    Residual,
    Shared,
    Split,
    Unused,
    Where,
    draw_block,
)

NUM_CLASSES = 5
Random = random.Random


class Function(nn.Module):
    """A function of maps as a module."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def extra_repr(self) -> str:
        """What it does."""
        return self.name

    def forward(self, x: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(x)


def random_network(seed: int, with_attention: bool = False) -> nn.Sequential:
    """The network of that number, in evaluation mode, with weights and BatchNorm statistics.

    Args:
        seed: names the network.
        with_attention: whether one of its parts is a block of a transformer.

    Returns:
        Images (N, *input_shape(seed)) → logits (N, NUM_CLASSES).
    """
    rng, (channels, size, _) = Random(seed), input_shape(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _draw(rng, channels, size, with_attention)
        _observe_noise(network, (16, channels, size, size))
    return network.eval()


def input_shape(seed: int) -> tuple[int, int, int]:
    """(C, H, W) of the network's images."""
    rng = Random(f"shape {seed}")
    size = rng.choice([8, 8, 12, 16])
    return rng.choice([1, 3, 3]), size, size


class _Network(nn.Sequential):
    def forward(self, x: Tensor, mask: Tensor | None = None, *, features: bool = False) -> Tensor:
        return super().forward(x)


def _draw(rng: Random, channels: int, size: int, with_attention: bool) -> nn.Sequential:
    """Stem, two to four parts, head."""
    c = rng.choice([4, 6, 8])
    stride = rng.choice([1, 1, 2])
    parts: list[nn.Module] = [draw_block(rng, channels, c, stride)]
    size //= stride
    count = rng.randint(2, 4)
    place = rng.randrange(count) if with_attention else -1
    for i in range(count):
        part, c, size = (Attention(rng, c), c, size) if i == place else _part(rng, c, size)
        parts.append(part)
    return _Network(*parts, *_head(rng, c, size))


def _part(rng: Random, c: int, size: int) -> tuple[nn.Module, int, int]:
    """A part with the channels and the size of what it gives."""
    wider, stride = rng.choice([c, c, c + 2, min(2 * c, 16)]), rng.choice([1, 2]) if size > 4 else 1
    keeps: list[Callable[[], nn.Module]] = [
        lambda: Residual(rng, c),
        lambda: Residual(rng, c),
        lambda: Gate(rng, c),
        lambda: Shared(rng, c),
        lambda: Unused(rng, c),
        lambda: Where(rng, c),
        lambda: Channelwise(rng, c, size),
        lambda: Split(rng, c) if c % 2 == 0 else Gate(rng, c),
        lambda: _padded(rng, c),
        lambda: Keywords(rng, c),
    ]
    kind = rng.random()
    if kind < 0.2:
        return draw_block(rng, c, wider, stride), wider, size // stride
    if kind < 0.3:
        return Concat(rng, c, wider), wider, size
    if kind < 0.4 and size > 4:
        return _pool(rng), c, size // 2
    if kind < 0.5:
        return _resized(rng, c, size)
    return rng.choice(keeps)(), c, size


def _pool(rng: Random) -> nn.Module:
    return rng.choice(
        [
            nn.MaxPool2d(2),
            nn.AvgPool2d(2),
            nn.MaxPool2d(3, 2, 1),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            nn.AvgPool2d(2, divisor_override=3),
            Function("F.max_pool2d", lambda x: F.max_pool2d(x, 2)),
            Function("F.avg_pool2d", lambda x: F.avg_pool2d(x, kernel_size=2)),
            Function("adaptive_max", lambda x: F.adaptive_max_pool2d(x, x.shape[-1] // 2)),
            Function("slice", lambda x: x[:, :, ::2, ::2]),
            Function("adaptive", lambda x: F.adaptive_avg_pool2d(x, (x.shape[-2] // 2,) * 2)),
        ]
    )


def _padded(rng: Random, c: int) -> nn.Module:
    """A convolution without padding behind one of its own."""
    pad = rng.choice(
        [
            nn.ZeroPad2d(1),
            nn.ReflectionPad2d(1),
            nn.ReplicationPad2d(1),
            nn.ConstantPad2d(1, 0.5),
            Function("F.pad", lambda x: F.pad(x, (1, 1, 1, 1))),
            Function("F.pad value", lambda x: F.pad(x, [1, 1, 1, 1], value=-1.0)),
            Function("F.pad reflect", lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")),
        ]
    )
    return nn.Sequential(pad, nn.Conv2d(c, c, 3), nn.BatchNorm2d(c), draw_activation(rng, c))


def _resized(rng: Random, c: int, size: int) -> tuple[nn.Module, int, int]:
    """Pixels into channels, or back, or a larger map by interpolation."""
    if size > 4 and c <= 4:
        function = Function("F.pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2))
        return rng.choice([nn.PixelUnshuffle(2), function]), 4 * c, size // 2
    if size > 8:
        return _pool(rng), c, size // 2
    if c % 4 == 0 and c > 4:
        function = Function("F.pixel_shuffle", lambda x: F.pixel_shuffle(x, 2))
        return rng.choice([nn.PixelShuffle(2), function]), c // 4, 2 * size
    larger = [
        nn.Upsample(scale_factor=2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        Function("nearest", lambda x: F.interpolate(x, scale_factor=2, mode="nearest")),
        Function(
            "bilinear",
            lambda x: F.interpolate(
                x, size=(2 * x.shape[2], 2 * x.shape[3]), mode="bilinear", align_corners=False
            ),
        ),
    ]
    return rng.choice(larger), c, 2 * size


def _head(rng: Random, c: int, size: int) -> list[nn.Module]:
    """Pooling or none, one to three linear layers, or a convolution that gives the logits."""
    if rng.random() < 0.15:
        logits = rng.choice([nn.Flatten(), Function("mean", lambda x: x.mean([2, 3]))])
        pool = [nn.AdaptiveAvgPool2d(1)] if isinstance(logits, nn.Flatten) else []
        return [*pool, nn.Conv2d(c, NUM_CLASSES, 1), logits]
    flat, width = _flattening(rng, c, size)
    layers: list[nn.Module] = []
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        norm = [nn.BatchNorm1d(8)] if rng.random() < 0.3 else []
        layers += [nn.Linear(width, 8), *norm, draw_activation(rng, 1), nn.Dropout(0.1)]
        width = 8
    return [*flat, *layers, nn.Linear(width, NUM_CLASSES, bias=rng.random() < 0.8)]


def _flattening(rng: Random, c: int, size: int) -> tuple[list[nn.Module], int]:
    """A map as a vector, and how long it is."""
    mean = Function("mean", lambda x: x.mean((2, 3)))
    twice = Function("mean twice", lambda x: x.mean(3).mean(2))
    tokens = Function("mean of tokens", lambda x: x.flatten(2).mean(-1))
    view = Function("view", lambda x: x.contiguous().view(x.size(0), -1))
    reshape = Function("reshape", lambda x: torch.reshape(x, (x.shape[0], -1)))
    drawn = [
        ([nn.AdaptiveAvgPool2d(1), nn.Flatten()], c),
        ([nn.AdaptiveMaxPool2d(1), view], c),
        ([mean], c),
        ([twice], c),
        ([tokens], c),
        ([nn.AvgPool2d(size), nn.Flatten(1)], c),
        ([nn.Flatten()], c * size * size),
        ([reshape], c * size * size),
        ([nn.AdaptiveAvgPool2d((2, 2)), view], 4 * c),
    ]
    return rng.choice([choice for choice in drawn if choice[1] <= 512])


def _observe_noise(network: nn.Module, shape: tuple[int, ...]) -> None:
    """Give BatchNorm statistics and weights that fit noise: fresh ones let signals die out."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            if module.affine:
                nn.init.normal_(module.weight, 1.0, 0.3)
                nn.init.normal_(module.bias, 0.0, 0.3)
    with torch.no_grad():
        network.train()(torch.randn(shape))
