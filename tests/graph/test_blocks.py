"""Any traced network is cut where its residual sums end, by the structure of its graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
from torch import fx, nn
from torchvision import models

from synq_tune.config import Bits
from synq_tune.errors import InputError
from synq_tune.graph.blocks import Unit, cut, unit_module
from synq_tune.inspection.table import part_lines
from synq_tune.models.cifar_resnet import cifar_resnet20
from synq_tune.quantization.base import ActivationQuantizer
from synq_tune.quantization.student import calibrate, quantize_student
from tests.export import networks
from tests.helpers import teacher_of


def _lite0() -> nn.Module:
    return timm.create_model("tf_efficientnet_lite0", num_classes=5)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, str | None, int]] = {
    "cifar_resnet20": (lambda: cifar_resnet20(num_classes=5), 16, "genie", 11),
    "resnet18": (networks.resnet18, 32, None, 10),
    "mobilenet_v2": (networks.mobilenet_v2, 32, None, 13),
    "lite0": (_lite0, 32, None, 32),
    "regnet": (lambda: models.regnet_x_400mf(num_classes=5), 32, None, 24),
    "plain": (networks.plain_net, 8, "minmax", 4),
    "deit": (networks.tiny_deit, 8, "vit_lsq", 4),
    "swin": (networks.tiny_swin, 8, "genie", 9),
}


def _is_grid(module: nn.Module) -> bool:
    return isinstance(module, ActivationQuantizer)


def _student(name: str) -> tuple[fx.GraphModule, torch.Tensor]:
    build, size, quantizer, _ = NETWORKS[name]
    torch.manual_seed(0)
    teacher = teacher_of(build(), (3, size, size))
    images = torch.randn(3, 3, size, size)
    if quantizer is None:  # a teacher is a graph as well, and ranges of many weights take long
        return teacher.graph, images
    student = quantize_student(teacher, Bits(weights=8, activations=8), quantizer)
    calibrate(student, [images])
    return student, images


def _owners(units: list[Unit], names: set[str]) -> list[int]:
    return [sum(name in {str(n.target) for n in u.nodes} for u in units) for name in names]


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_units_one_after_the_other_are_the_network(name: str) -> None:
    """To the bit; everything that learns or is a grid belongs to exactly one of them."""
    student, images = _student(name)
    units = cut(student, is_grid=_is_grid)
    assert len(units) == NETWORKS[name][3]
    values = images
    for unit in units:
        values = unit_module(student, unit)(values)
    assert torch.equal(values, student(images))
    called = [n for n in student.graph.nodes if n.op == "call_module"]
    own = {str(n.target) for n in called if list(student.get_submodule(n.target).parameters())}
    assert own and set(_owners(units, own)) == {1}
    assert len({u.name for u in units}) == len(units)


def test_residual_blocks_are_units_with_single_layers_between() -> None:
    """Whatever stands behind the sum belongs to its block."""
    student, _ = _student("resnet18")
    units = cut(student, is_grid=_is_grid)
    blocks = [f"layer{stage}.{number}" for stage in (1, 2, 3, 4) for number in (0, 1)]
    assert [u.name for u in units] == ["conv1", *blocks, "fc"]
    assert all("add" not in u.output.name for u in units)


def test_the_grid_of_what_a_block_reads_belongs_to_the_reader() -> None:
    """A block's tensor is compared before it is rounded."""
    student, _ = _student("cifar_resnet20")
    units = cut(student, is_grid=_is_grid)
    assert all(_is_grid(student.get_submodule(u.nodes[0].target)) for u in units[1:])
    assert all("relu" in u.output.name for u in units[:-2])


def test_a_block_without_a_sum_is_cut_into_its_layers() -> None:
    """MobileNetV2's blocks of stride 2 have no shortcut: three layers."""
    student, _ = _student("mobilenet_v2")
    names = [u.name for u in cut(student, is_grid=_is_grid)]
    assert names[3:7] == [
        "features.2.conv.0.0",
        "features.2.conv.1.0",
        "features.2.conv.2",
        "features.3.conv",
    ]


def test_globs_join_what_modules_hold() -> None:
    """A stage, or blocks without a sum; what no glob names is cut as ever."""
    student, _ = _student("resnet18")
    names = [u.name for u in cut(student, ["layer[12]"], _is_grid)]
    assert names[:4] == ["conv1", "layer1", "layer2", "layer3.0"]
    mobile, _ = _student("mobilenet_v2")
    names = [u.name for u in cut(mobile, ["features.*"], _is_grid)]
    assert [n for n in names if n.startswith("features.2")] == ["features.2.conv"]


def test_a_glob_that_matches_nothing_is_told() -> None:
    """With the names there are."""
    student, _ = _student("plain")
    with pytest.raises(InputError, match=r"reconstruct.blocks: .* but got 'layer9'. Modules: 0, 2"):
        cut(student, ["layer9"], _is_grid)


@torch.no_grad()
def test_calls_of_one_layer_stay_together() -> None:
    """A layer that is called twice has one rounding: its calls are in one unit."""
    teacher = teacher_of(networks.shared_net(), (3, 8, 8))
    assert [u.layers for u in cut(teacher.graph)] == [("stem",), ("conv",), ("linear",)]


@torch.no_grad()
def test_units_take_any_number_of_images() -> None:
    """Also behind a place where the number was read off an earlier tensor."""
    student, _ = _student("swin")
    values = images = torch.randn(5, 3, 8, 8)
    for unit in cut(student, is_grid=_is_grid):
        values = unit_module(student, unit)(values)
    assert torch.equal(values, student(images))


def test_the_cut_is_printed() -> None:
    """One line a part with its layers, many shortened."""
    student, _ = _student("resnet18")
    lines = part_lines(cut(student, ["layer1"]))
    assert lines[2] == "layer1    layer1.0.conv1 … layer1.1.conv2 (4)"
    assert lines[3].split(maxsplit=1) == [
        "layer2.0",
        "layer2.0.conv1, layer2.0.conv2, layer2.0.downsample.0",
    ]
