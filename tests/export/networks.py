"""Networks of the export tests, built by name so that a packed file can rebuild them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torchvision import models

from synq_tune.config import Bits, Teacher
from synq_tune.graph.taps import insert_taps
from synq_tune.graph.trace import trace
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.student import calibrate, quantize_student

PLACE = "python:tests.export.networks"


def resnet18() -> nn.Module:
    """torchvision's; each block calls one ReLU module twice."""
    return models.resnet18(num_classes=20)


def resnet10() -> nn.Module:
    """The same with one block a stage: every kind of block and of shortcut, at half the price."""
    return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=20)


def mobilenet_v2() -> nn.Module:
    """torchvision's with fewer blocks: depthwise channels with weights of one sign, ReLU6."""
    blocks = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]
    return _with_statistics(
        models.mobilenet_v2(num_classes=20, inverted_residual_setting=blocks), (3, 64, 64)
    )


def silu_net() -> nn.Module:
    """Activations below zero, so that zero points of activations are not at the end."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3),
        nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip


def plain_net() -> nn.Module:
    """Convolutions and hidden linear layers with biases and no BatchNorm, as in VGG."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


def one_sided_net() -> nn.Module:
    """Layers whose weights lie ever further from zero."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    )
    with torch.no_grad():
        for layer, offset in ((net[2], 0.3), (net[5], 5.0)):
            layer.weight.abs_().add_(offset)
    return net


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv3, self.norm3 = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16)
        self.pool, self.linear = nn.MaxPool2d(2), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        x = self.pool((x + self.norm2(self.conv2(x))).relu())
        return self.linear(self.norm3(self.conv3(x)).relu().mean((2, 3)))


def residual_net() -> nn.Module:
    """One of each kind: convolutions, a sum, pooling, a mean, a linear layer; gammas of both signs."""
    net = _Residual()
    with torch.no_grad():
        for norm in (net.norm1, net.norm2, net.norm3):
            norm.weight.copy_(torch.linspace(-1.0, 1.5, 16))
            norm.bias.normal_(std=0.2)
        net.norm2.weight[3] = 0.0
    return _with_statistics(net, (3, 8, 8))


class _Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x).relu()).relu()
        return self.linear(self.conv(x).relu().mean((2, 3)))


def shared_net() -> nn.Module:
    """One convolution, without a bias to tell its calls apart, called twice."""
    net = _Shared()
    net.conv.bias = None
    return net


def _with_statistics(net: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Give BatchNorm the statistics of noise: without them a deep network's signal dies out."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.randn(16, *shape))
    return net.eval()


def teacher(name: str, shape: tuple[int, int, int] = (3, 8, 8)) -> LoadedTeacher:
    """A loaded teacher with random weights around a function of this module, or a bundled one."""
    torch.manual_seed(0)
    if name not in globals():
        return load_teacher(Teacher(model=name, channels=1))
    graph = trace(globals()[name]().eval().requires_grad_(False), shape)
    insert_taps(graph)
    output = next(node for node in graph.graph.nodes if node.op == "output")
    preprocessing = Preprocessing(*shape[1:], shape[0], (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    classes = output.args[0].meta["shape"][1]
    config = Teacher(model=f"{PLACE}:{name}", class_names=tuple(f"c{i}" for i in range(classes)))
    return LoadedTeacher(config, graph, preprocessing, classes, "0" * 64)


def student(
    teacher: LoadedTeacher, quantizer: str, bits: int, **options: Any
) -> tuple[fx.GraphModule, Tensor]:
    """A calibrated student and normalised images it was not calibrated on."""
    student = quantize_student(teacher, Bits(weights=bits, activations=bits, **options), quantizer)
    images = torch.randn(64, *teacher.preprocessing.shape)
    calibrate(student, [images[:32]])
    return student, images[32:]


def cut(path: Path, share: float) -> Path:
    """A copy of a file that ends early."""
    data = path.read_bytes()
    short = path.with_name(f"cut_{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


def tiny_deit() -> nn.Module:
    """timm's DeiT with one block: fused attention, a class token, positions."""
    return timm.create_model(
        "deit_tiny_patch16_224", num_classes=5, img_size=8, patch_size=4, embed_dim=12, depth=1,
        num_heads=3,
    )  # fmt: skip


def tiny_swin() -> nn.Module:
    """timm's Swin with two stages, windows, one shifted; tables of attention biases."""
    net = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=5, img_size=8, patch_size=1, window_size=4,
        embed_dim=8, depths=[2, 1], num_heads=[2, 2],
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias_table"):
                parameter.normal_()
    return net


class _Gated(nn.Module):
    """MobileNetV3's parts: Hardswish, squeeze-and-excite, Hardsigmoid, a concatenation, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.swish, self.gate, self.soft = nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid()
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.left = nn.Conv2d(8, 6, 3, padding=2, dilation=2)
        self.right, self.pool = nn.Conv2d(8, 6, 1, bias=False), nn.AvgPool2d(2)
        self.mix, self.largest = nn.Conv2d(12, 8, 1, groups=2), nn.MaxPool2d(3, 2, 1)
        self.linear = nn.Linear(8 * 2 * 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.swish(self.norm(self.stem(x)))
        x = x * self.gate(self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()))
        x = torch.cat([self.left(x), self.right(x)], 1)
        x = self.mix(self.pool(x)) * self.soft(self.mix(self.pool(x)))
        return self.linear(self.largest(x).flatten(1))


class _PreActivation(nn.Module):
    """A BatchNorm that no layer absorbs, a branch whose values are all zero, a window past the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv, self.dead = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.dead(self.conv(self.norm(x).relu()))
        x = F.max_pool2d(x.relu(), 3, 2, 1, ceil_mode=True)
        return self.linear(F.avg_pool2d(x, 5).flatten(1))


def preactivation_net() -> nn.Module:
    """As a residual network is that was never trained: each branch ends with a gamma of 0."""
    net = _with_statistics(_PreActivation(), (3, 8, 8))
    with torch.no_grad():
        net.norm.weight.copy_(torch.linspace(-1.0, 1.5, 8))
        net.dead.weight.zero_()
    return net


def gated_net() -> nn.Module:
    """What mobile networks add to convolutions, each once."""
    return _with_statistics(_Gated(), (3, 16, 16))
