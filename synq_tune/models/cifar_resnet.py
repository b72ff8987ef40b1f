"""Residual networks for small images (He et al., 2016, §4.2) with parameter-free shortcuts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3×3 convolutions; the shortcut subsamples and pads channels with zeros (option A)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.channels_added = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.channels_added == 0:
            return x
        before = self.channels_added // 2
        after = self.channels_added - before
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, after))


class CifarResNet(nn.Module):
    """Stem, three stages of `blocks` residual blocks, global average pooling, a linear layer.

    Keys: conv1, bn1, layer1.0.conv1, …, layer3.N.bn2, linear.
    """

    def __init__(
        self,
        blocks: int,
        num_classes: int = 10,
        in_channels: int = 3,
        widths: tuple[int, int, int] = (16, 32, 64),
        strides: tuple[int, int, int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = self._stage(widths[0], widths[0], blocks, strides[0])
        self.layer2 = self._stage(widths[0], widths[1], blocks, strides[1])
        self.layer3 = self._stage(widths[1], widths[2], blocks, strides[2])
        self.linear = nn.Linear(widths[2], num_classes)

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, images: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(images)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(out, 1), 1))


def digits_resnet26(num_classes: int = 10, in_channels: int = 1) -> CifarResNet:
    """The bundled digits teacher's network: deep and narrow, for 8×8 grey images, last map 4×4.

    Depth is what low bits hurt: after calibration alone a network of 14 layers and twice the width
    still reads every digit at 3 bits, this one does not.
    """
    return CifarResNet(4, num_classes, in_channels, widths=(8, 16, 32), strides=(1, 2, 1))


def cifar_resnet20(num_classes: int = 10, in_channels: int = 3, **more: Any) -> CifarResNet:
    """He et al.'s network of 20 layers for 32×32 images; `more` as in `CifarResNet`."""
    return CifarResNet(3, num_classes, in_channels, **more)


def cifar_resnet32(num_classes: int = 10, in_channels: int = 3, **more: Any) -> CifarResNet:
    """He et al.'s network of 32 layers for 32×32 images; `more` as in `CifarResNet`."""
    return CifarResNet(5, num_classes, in_channels, **more)


def cifar_resnet44(num_classes: int = 10, in_channels: int = 3, **more: Any) -> CifarResNet:
    """He et al.'s network of 44 layers for 32×32 images; `more` as in `CifarResNet`."""
    return CifarResNet(7, num_classes, in_channels, **more)


def cifar_resnet56(num_classes: int = 10, in_channels: int = 3, **more: Any) -> CifarResNet:
    """He et al.'s network of 56 layers for 32×32 images; `more` as in `CifarResNet`."""
    return CifarResNet(9, num_classes, in_channels, **more)
