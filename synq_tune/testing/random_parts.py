"""The parts random networks are made of: each takes maps (N, C, H, W) and gives maps."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.testing.random_activations import draw_activation

Random = random.Random


def draw_convolution(rng: Random, c: int, out: int, stride: int = 1) -> nn.Conv2d:
    """Plain, depthwise, grouped, dilated or of an asymmetric kernel; the size is kept or halved."""
    groups = rng.choice([1, 1, c if out % c == 0 else 1, 2 if c % 2 == out % 2 == 0 else 1])
    kernel = rng.choice([(1, 1), (3, 3), (3, 3), (3, 1), (1, 5)])
    if kernel == (1, 1) and stride == 2:
        # On maps whose channels lie last in memory, torch 2.15's backward of it corrupts the heap.
        kernel = (3, 3)
    dilation = rng.choice([1, 1, 1, 2]) if stride == 1 else 1
    padding = tuple(dilation * (k // 2) for k in kernel)
    mode = rng.choice(["zeros"] * 6 + ["reflect", "replicate", "circular"])
    same = stride == 1 and mode == "zeros" and rng.random() < 0.1
    return nn.Conv2d(
        c,
        out,
        kernel,
        stride,
        "same" if same else padding,
        dilation,
        groups,
        rng.random() < 0.5,
        mode if all(p < 4 for p in padding) else "zeros",
    )


def draw_norm(rng: Random, channels: int) -> list[nn.Module]:
    """BatchNorm mostly; none, GroupNorm or a BatchNorm without weights at times."""
    choices: list[Callable[[], list[nn.Module]]] = [
        lambda: [],
        lambda: [nn.GroupNorm(2 if channels % 2 == 0 else 1, channels)],
        lambda: [nn.BatchNorm2d(channels, affine=False)],
    ]
    return rng.choice(choices)() if rng.random() < 0.35 else [nn.BatchNorm2d(channels)]


def draw_block(rng: Random, c: int, out: int, stride: int = 1) -> nn.Sequential:
    """Convolution, norm, activation, or norm and activation first."""
    convolution = draw_convolution(rng, c, out, stride)
    if rng.random() < 0.15:
        return nn.Sequential(*draw_norm(rng, c), draw_activation(rng, c), convolution)
    return nn.Sequential(convolution, *draw_norm(rng, out), draw_activation(rng, out))


class Keywords(nn.Module):
    """Everything by keyword."""

    def __init__(self, rng: Random, c: int) -> None:
        super().__init__()
        self.conv, self.norm = draw_convolution(rng, c, c), nn.BatchNorm2d(c)
        self.act = nn.LeakyReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape with twice the channels, halved again."""
        y = F.relu(input=self.norm(input=self.conv(input=x)))
        y = torch.cat(tensors=[self.act(input=y), F.pad(input=x, pad=(0, 0, 0, 0))], dim=1)
        return torch.add(input=torch.flatten(input=y, start_dim=2).view(y.shape)[:, ::2], other=x)


class Residual(nn.Module):
    """A sum of a map and its block, in each spelling."""

    def __init__(self, rng: Random, c: int) -> None:
        super().__init__()
        self.body = nn.Sequential(draw_convolution(rng, c, c), *draw_norm(rng, c))
        self.act = draw_activation(rng, c) if rng.random() < 0.7 else nn.Identity()
        self.spelling = rng.choice(["+", "+=", "torch.add", "add_", ".add", "alpha", "twice"])

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        y = self.body(x)
        match self.spelling:
            case "+=":
                y += x
            case "torch.add":
                y = torch.add(y, x)
            case "add_":
                y.add_(x)
            case ".add":
                y = x.add(y)
            case "alpha":
                y = torch.add(x, y, alpha=0.5)
            case "twice":
                y = x + y + x
            case _:
                y = x + y
        return self.act(y)


class Split(nn.Module):
    """Parts of the channels go separate ways and are joined, or shuffled."""

    def __init__(self, rng: Random, c: int) -> None:
        super().__init__()
        self.body, self.half = draw_block(rng, c // 2, c // 2), c // 2
        self.how = rng.choice(["chunk", "split", ".chunk", "slice", "unbind"])
        self.join = rng.choice(["torch.cat", "dim=", "concat", "stack"])
        self.shuffle = rng.choice(["none", "view", "module", "function"])
        self.module = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        match self.how:
            case "chunk":
                a, b = torch.chunk(x, 2, dim=1)
            case "split":
                a, b = torch.split(x, self.half, 1)
            case ".chunk":
                a, b = x.chunk(2, 1)
            case "unbind":
                a, b = x.reshape(x.size(0), 2, self.half, *x.shape[2:]).unbind(1)
            case _:
                a, b = x[:, : self.half], x[:, self.half :]
        return self._shuffled(self._joined(a, self.body(b)))

    def _joined(self, a: Tensor, b: Tensor) -> Tensor:
        match self.join:
            case "dim=":
                return torch.cat((a, b), dim=1)
            case "concat":
                return torch.concat([b, a], 1)
            case "stack":
                return torch.stack((a, b), 1).flatten(1, 2)
            case _:
                return torch.cat([a, b], 1)

    def _shuffled(self, x: Tensor) -> Tensor:
        match self.shuffle:
            case "view":
                n, c, h, w = x.shape
                x = x.contiguous().view(n, 2, c // 2, h, w)
                return x.transpose(1, 2).contiguous().view(n, c, h, w)
            case "module":
                return self.module(x)
            case "function":
                return F.channel_shuffle(x, 2)
            case _:
                return x


class Concat(nn.Module):
    """Two blocks side by side, of which one may be the map itself."""

    def __init__(self, rng: Random, c: int, out: int) -> None:
        super().__init__()
        self.keeps, half = out > c and rng.random() < 0.5, out // 2
        self.a = draw_block(rng, c, out - c if self.keeps else half)
        self.b = nn.Identity() if self.keeps else draw_block(rng, c, out - half)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same size with `out` channels."""
        return torch.cat([self.a(x), self.b(x)], dim=1)


class Gate(nn.Module):
    """Squeeze-and-excite in each spelling."""

    def __init__(self, rng: Random, c: int) -> None:
        super().__init__()
        hidden = max(c // 2, 1)
        self.is_linear = rng.random() < 0.3
        layer = nn.Linear if self.is_linear else lambda a, b: nn.Conv2d(a, b, 1)
        self.pool, self.fc1 = nn.AdaptiveAvgPool2d(1), layer(c, hidden)
        self.act, self.fc2 = draw_activation(rng, hidden), layer(hidden, c)
        self.squeeze = rng.choice(["module", "mean", "function"])
        self.gate = rng.choice(
            [
                nn.Sigmoid(),
                nn.Hardsigmoid(),
                torch.sigmoid,
                F.hardsigmoid,
                lambda s: s.sigmoid(),
                lambda s: s.sigmoid_(),
                lambda s: 1 + torch.tanh(s),
                lambda s: F.relu6(s + 3) / 6,
            ]
        )
        self.product = rng.choice(["*", "*=", "torch.mul", ".mul", "expand"])

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        pools = {"module": self.pool, "mean": lambda x: x.mean((2, 3), keepdim=True)}
        s = pools.get(self.squeeze, lambda x: F.adaptive_avg_pool2d(x, 1))(x)
        s = s.flatten(1) if self.is_linear else s
        s = self.gate(self.fc2(self.act(self.fc1(s))))
        return self._product(x, s.view(x.shape[0], -1, 1, 1) if self.is_linear else s)

    def _product(self, x: Tensor, s: Tensor) -> Tensor:
        match self.product:
            case "*=":
                x *= s
                return x
            case "torch.mul":
                return torch.mul(x, s)
            case ".mul":
                return x.mul(s)
            case "expand":
                return x * s.expand_as(x)
            case _:
                return x * s


class Shared(nn.Module):
    """One block called twice, with a layer or an activation of its own between the calls."""

    def __init__(self, rng: Random, c: int) -> None:
        super().__init__()
        self.body, self.act = draw_block(rng, c, c), draw_activation(rng, c)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        return self.body(self.act(self.body(x)))


class Unused(nn.Module):
    """An argument, a module and a branch that nothing reads."""

    def __init__(self, rng: Random, c: int) -> None:
        super().__init__()
        self.body, self.spare = draw_block(rng, c, c), draw_block(rng, c, c)
        self.never = nn.Linear(3, 3)
        self.with_branch = rng.random() < 0.5

    def forward(self, x: Tensor, mask: Tensor | None = None, flag: bool = False) -> Tensor:
        """Maps of the same shape."""
        if self.with_branch:
            self.spare(x).mean()
        return self.body(x)


class Where(nn.Module):
    """torch.where by a comparison, by a constant mask, or masked_fill."""

    def __init__(self, rng: Random, c: int) -> None:
        super().__init__()
        self.body, self.how = draw_block(rng, c, c), rng.choice(["zeros", "value", "other", "fill"])

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        y = self.body(x)
        match self.how:
            case "zeros":
                return torch.where(y > 0.1, y, torch.zeros_like(y))
            case "value":
                return torch.where(y > -0.5, y, -0.5)
            case "fill":
                return y.masked_fill(y < 0, 0.0)
            case _:
                return torch.where(x > y, x, y)


class Attention(nn.Module):
    """One block of a transformer over the map's pixels."""

    def __init__(self, rng: Random, c: int) -> None:
        super().__init__()
        self.heads = 2 if c % 2 == 0 else 1
        self.norm, self.qkv, self.proj = nn.LayerNorm(c), nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.norm2, self.fc1, self.fc2 = nn.LayerNorm(c), nn.Linear(c, 2 * c), nn.Linear(2 * c, c)
        self.act, self.fused = draw_activation(rng, 1), rng.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.proj(self._mixed(self.norm(tokens)))
        tokens = tokens + self.fc2(self.act(self.fc1(self.norm2(tokens))))
        return tokens.transpose(1, 2).reshape(n, c, h, w)

    def _mixed(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return y.transpose(1, 2).reshape(n, t, c)


class Channelwise(nn.Module):
    """LayerNorm over the channels of a map, as ConvNeXt has it, or over the whole map."""

    def __init__(self, rng: Random, c: int, size: int) -> None:
        super().__init__()
        self.is_whole = rng.random() < 0.3
        self.norm = nn.LayerNorm((c, size, size) if self.is_whole else c)
        self.act = draw_activation(rng, c)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the same shape."""
        if self.is_whole:
            return self.act(self.norm(x))
        return self.act(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
