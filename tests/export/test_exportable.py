"""Operations that ONNX has no form of are refused before any work; all others pass."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.errors import InputError
from synq_tune.export import exportable
from synq_tune.export.exportable import check_exportable, unsure_nodes
from synq_tune.graph.taps import TokenTap
from tests.export.test_divided_pool import run_onnx
from tests.helpers import small_search, teacher_of

MODES = ("zeros", "reflect", "replicate", "circular")

MODULES: dict[type[nn.Module], list[nn.Module]] = {
    nn.Conv2d: [*(nn.Conv2d(4, 4, 3, padding="same", padding_mode=m) for m in MODES),
        nn.Conv2d(4, 6, (2, 3), (2, 1), 1, 2, 2, bias=False)],
    nn.BatchNorm2d: [nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)],
    nn.LayerNorm: [nn.LayerNorm(7), nn.LayerNorm((4, 9, 7), elementwise_affine=False)],
    nn.Linear: [nn.Linear(7, 3), nn.Linear(7, 3, bias=False)],
    nn.MaxPool2d: [nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(3, 2, 1, 2), nn.MaxPool2d((2, 3))],
    nn.AvgPool2d: [nn.AvgPool2d(3, 2, 1, c, i) for c in (False, True) for i in (False, True)],
    nn.Flatten: [nn.Flatten(), nn.Flatten(2)],
    nn.Hardtanh: [nn.Hardtanh(-0.3, 2.0)],
    nn.GELU: [nn.GELU(), nn.GELU("tanh")],
    nn.LeakyReLU: [nn.LeakyReLU(0.3)],
}  # fmt: skip
"""With the arguments that change what they compute; others have none."""

FUNCTIONS: dict[object, list[Callable[[Tensor], Tensor]]] = {
    F.pad: [lambda x, m=m: F.pad(x, (1, 2, 1, 0), mode=m) for m in ("constant", *MODES[1:])]
    + [lambda x: F.pad(x, (1, -1), value=0.5)],
    F.avg_pool2d: [lambda x: F.avg_pool2d(x, 2, ceil_mode=True)],
    F.max_pool2d: [lambda x: F.max_pool2d(x, 3, 2, 1)],
    F.scaled_dot_product_attention: [
        lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.3),
        lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(9, 9).tril().bool()),
    ],
    operator.getitem: [lambda x: x[:, 1:, ::2], lambda x: x[:, -1], lambda x: x[..., None, :2]],
    torch.roll: [lambda x: torch.roll(x, (1, -2), (2, 3))],
    torch.cat: [lambda x: torch.cat([x, x], 1), lambda x: torch.cat([x, x], -1)],
    torch.flatten: [lambda x: torch.flatten(x, 1, 2)],
    operator.mul: [lambda x: x * 3, lambda x: x * x.mean((2, 3), keepdim=True)],
    operator.add: [lambda x: x + 1, lambda x: 2 + x],
    "mean": [lambda x: x.mean(1), lambda x: x.mean((-1, -2), True)],
    "expand": [lambda x: x[:, :1].expand(-1, 4, -1, -1)],
    "permute": [lambda x: x.permute(0, 2, 3, 1)],
    "transpose": [lambda x: x.transpose(1, -1)],
    "unbind": [lambda x: x.unbind(1)[2]],
    "view": [lambda x: x.view(x.size(0), -1)],
    "reshape": [lambda x: x.reshape(-1, 2, 2 * 63)],
}  # fmt: skip
ALIKE = {
    operator.iadd, torch.add, operator.imul, torch.mul, F.relu, F.relu6, getattr, "add", "add_",
    "mul", "mul_", "flatten", "size",
}  # fmt: skip
"""Other spellings of what is above, and calls without arguments."""


class Everything(nn.Module):
    """Every operation read by one sum."""

    def __init__(self) -> None:
        super().__init__()
        plain = [
            m() for m in exportable._SURE_MODULES if m not in {*MODULES, TokenTap, nn.BatchNorm1d}
        ]
        parts = [m for kind in MODULES.values() for m in kind] + plain
        self.parts = nn.ModuleList(parts)
        self.norm = nn.BatchNorm1d(252)
        self.functions = [f for kind in FUNCTIONS.values() for f in kind]

    def forward(self, x: Tensor) -> Tensor:
        found = [part(x) for part in self.parts] + [f(x) for f in self.functions]
        found.append(self.norm(x.flatten(1)))
        return torch.cat([value.reshape(x.shape[0], -1) for value in found], 1)


def test_what_is_taken_for_sure_is_exported_right(tmp_path: Path) -> None:
    """ONNX Runtime gives what torch gives, for each with the arguments it takes."""
    network, x = Everything().eval(), torch.randn(3, 4, 9, 7)
    with torch.no_grad():
        expected = network(x)
        found = run_onnx(network, x, tmp_path / "everything.onnx")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_every_sure_operation_is_tried() -> None:
    """A new one has a row above."""
    assert set(exportable._SURE_TARGETS) == {*FUNCTIONS, *ALIKE}
    assert set(MODULES) <= set(exportable._SURE_MODULES)


class Pooled(nn.Module):
    """A classifier of 10 classes whose pooling is given."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.pool, self.head = pool, nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.body(x)).flatten(1))


def pooled(pool: nn.Module) -> nn.Module:
    network = Pooled(pool)
    network(torch.zeros(2, 1, 8, 8))
    return network


def test_an_operation_without_a_form_is_named() -> None:
    """With the layers that may have called it; nothing but the pooling is unsure."""
    teacher = teacher_of(pooled(nn.AdaptiveMaxPool2d(5)), (1, 8, 8))
    assert [node.target for node in unsure_nodes(teacher.graph)] == ["pool"]
    with pytest.raises(InputError, match=r"adaptive_max_pool2d \(called by one of: pool\)"):
        check_exportable(teacher)


@pytest.mark.parametrize(
    "pool", [nn.AdaptiveMaxPool2d(4), nn.AdaptiveAvgPool2d(3), nn.AvgPool2d(2, divisor_override=3)]
)
def test_others_are_translated_and_pass(pool: nn.Module) -> None:
    """The teacher stays as it is."""
    teacher = teacher_of(pooled(pool), (1, 8, 8))
    before = str(teacher.graph.graph)
    check_exportable(teacher)
    assert str(teacher.graph.graph) == before


@pytest.mark.long
def test_a_search_is_refused_before_its_images(tmp_path: Path) -> None:
    """One line, exit 2, and no dataset."""
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef net():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),\n"
        "        nn.AdaptiveMaxPool2d(5), nn.Flatten(), nn.Linear(100, 10))\n"
    )
    sets = [f"teacher.model={tmp_path / 'net.py'}:net", "teacher.weights=null"]
    sets += ["teacher.mean=[0.5]", "teacher.std=[0.25]", "search={}", "finetune.lambda_cam=0"]
    sets += ["study.val_data=null"]
    done = small_search(tmp_path / "study", sets=sets)
    assert done.returncode == 2
    assert "adaptive_max_pool2d" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "store").glob("datasets/*"))
