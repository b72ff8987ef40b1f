"""What cannot be a teacher is refused in one line that names the place and says what to do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.ao.quantization import default_qconfig, prepare, quantize_dynamic

from synq_tune.config import Teacher
from synq_tune.errors import InputError
from synq_tune.models.build import build_model
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from tests.models.strange import SHAPE, Residual, Returns, sequential

CONFIG = Teacher(model="python:tests.models.strange:sequential", input_size=8)
EXAMPLE = torch.zeros(2, *SHAPE)


def _load(net: nn.Module) -> LoadedTeacher:
    return load_teacher(CONFIG, model=net)


def _changed(path: str, value: float, index: int = 3) -> nn.Module:
    net = sequential()
    tensor = net.get_parameter(path) if "running" not in path else net.get_buffer(path)
    with torch.no_grad():
        tensor.flatten()[index] = value
    return net


class _Around(nn.Module):
    """A network with something done to its images, or to its logits."""

    def __init__(
        self, before: Callable[..., Any] = None, behind: Callable[..., Any] = None
    ) -> None:
        super().__init__()
        self.net = sequential()
        self.before, self.behind = before, behind
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.before(self, x) if self.before else x
        y = self.net(x)
        return self.behind(self, y) if self.behind else y


def _counted(self: _Around, y: Tensor) -> Tensor:
    self.seen.add_(1)
    return y * self.seen


class Skipped(nn.Module):
    """Does something to tensors and nothing to what tracing puts in their place."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 3 if isinstance(x, torch.Tensor) else x


class Cast(nn.Module):
    """Computes in bfloat16, which is no operation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.conv(x).float()


class Decides(nn.Module):
    """Looks at values in Python."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


def _with(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Identity(), module, sequential())


def _batch_statistics() -> nn.Module:
    net = sequential()
    net[4] = nn.BatchNorm2d(6, track_running_stats=False)
    return net


def _multi_label() -> nn.Module:
    return nn.Sequential(sequential(), nn.Sigmoid())


def _by_hand(y: Tensor) -> Tensor:
    y = y.exp()
    return y / y.sum(1, keepdim=True)


VALUES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "nan_weight": (lambda: _changed("0.weight", float("nan")), r"0\.weight \(1 of"),
    "inf_bias": (lambda: _changed("8.bias", float("inf")), r"8\.bias \(1 of 5"),
    "nan_mean": (lambda: _changed("1.running_mean", float("nan")), r"1\.running_mean"),
    "inf_variance": (lambda: _changed("4.running_var", float("inf")), r"4\.running_var"),
    "negative_variance": (lambda: _changed("4.running_var", -1.0), r"NaN.*at 4 \(BatchNorm2d\)"),
    "overflow": (lambda: _changed("3.weight", 3e38), r"finite.*first at [34] "),
    "one_logit": (lambda: nn.Sequential(sequential(), nn.Linear(5, 1)), r"one logit.*torch\.cat"),
    "no_logit_axis": (lambda: Returns(sequential(), lambda y: y[:, 0]), r"one logit"),
    "a_map": (lambda: nn.Conv2d(3, 4, 3), r"logits \(N, K\).*\(2, 4, 6, 6\)"),
    "classes": (lambda: Returns(sequential(), lambda y: y.argmax(1, keepdim=True).repeat(1, 2)),
                r"torch\.int64"),
    "nothing": (lambda: Returns(sequential(), lambda y: {"a": None}), r"got dict"),
    "text": (lambda: Returns(sequential(), lambda y: "cat"), r"got str"),
    "softmax": (lambda: nn.Sequential(sequential(), nn.Softmax(1)), r"Leave out 1 \(Softmax\)"),
    "softmax_called": (lambda: Returns(sequential(), lambda y: F.softmax(y, -1)),
                       r"Leave out softmax at the end"),
    "softmax_in_a_dict": (lambda: Returns(sequential(), lambda y: {"prob": y.softmax(1)}),
                          r"Leave out softmax"),
    "softmax_by_hand": (lambda: Returns(sequential(), _by_hand), r"in front of the last softmax"),
    "saturated_softmax": (lambda: Returns(sequential(), lambda y: F.softmax(1e9 * y, 1)),
                          r"probabilities"),
    "mean_of_softmaxes": (lambda: Returns(
        sequential(), lambda y: (y.softmax(1) + (2 * y).softmax(1)) / 2), r"probabilities"),
    "log_softmax": (lambda: nn.Sequential(sequential(), nn.LogSoftmax(1)),
                    r"logarithms.*Leave out 1 \(LogSoftmax\)"),
    "log_of_softmax": (lambda: Returns(sequential(), lambda y: y.softmax(1).log()), r"logarithms"),
    "sigmoids": (_multi_label, r"one sigmoid per class.*Leave out 1 \(Sigmoid\)"),
    "two_sigmoids": (lambda: Returns(
        sequential(), lambda y: torch.cat([y[:, :1].sigmoid(), 1 - y[:, :1].sigmoid()], 1)),
        r"probabilities"),
}  # fmt: skip
"""What the values say: name → (network, what the line says)."""

CHEATS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "dropout": (lambda: _Around(behind=lambda self, y: F.dropout(y, 0.5)), r"second time.*_Around"),
    "dropout_inside": (lambda: _with(Returns(nn.Identity(), F.dropout)), r"second time.* at 1 \(Returns"),
    "noise": (lambda: _Around(before=lambda self, x: x + torch.rand_like(x)), r"second time"),
    "python_noise": (lambda: _Around(behind=lambda self, y: y * random.random()), r"second time"),
    "counter": (lambda: _Around(behind=lambda self, y: y * self.calls), r"second time"),
    "counting_buffer": (lambda: _Around(behind=_counted), r"second time"),
    "always_training": (lambda: _Around(behind=lambda self, y: F.batch_norm(
        y, None, None, training=True)), r"others in its batch"),
    "batch_statistics": (_batch_statistics, r"others in its batch.* at 4 \(BatchNorm2d\)"),
    "mean_of_batch": (lambda: _Around(before=lambda self, x: x - x.mean(0)), r"others in its batch"),
    "third_call": (lambda: _Around(behind=lambda self, y: y if self.calls < 3 else -y), r"traced graph"),
    "only_tensors": (lambda: _with(Skipped()), r"logits off.* at 1 \(Skipped\)"),
    "only_tensors_deep": (lambda: _with(nn.Sequential(nn.Conv2d(3, 3, 1), Skipped())),
                          r"at 1\.1 \(Skipped\)"),
    "autocast": (lambda: _with(Cast()), r"at 1\.conv \(Conv2d\)"),
    "decides": (lambda: _with(Decides()), r"can be traced.* at 1: "),
    "length": (lambda: _Around(behind=lambda self, y: y[: len(y)]), r"any number of images"),
    "written_down": (lambda: _Around(behind=lambda self, y: y * torch.ones(2, 1)), r"takes? "),
    "length_in_view": (lambda: _Around(behind=lambda self, y: y.reshape(len(y), -1)),
                       r"any number of images.*reshape"),
    "list_of_images": (lambda: _Around(behind=lambda self, y: torch.stack([row for row in y.unbind(0)])),
                       r"any number of images"),
    "raises": (lambda: _Around(before=lambda self, x: x[:, :, 99]), r"takes inputs \[3, 8, 8\].*IndexError"),
    "too_small": (lambda: nn.Sequential(nn.Conv2d(3, 4, 7), nn.Conv2d(4, 4, 7)), r"input_size"),
}  # fmt: skip
"""Networks that do not compute what tracing sees: name → (network, what the line says)."""


@pytest.mark.parametrize("name", VALUES)
def test_wrong_values_are_refused(name: str) -> None:
    """NaN, one logit, no logits, probabilities: the line names tensor or layer."""
    make, line = VALUES[name]
    with pytest.raises(InputError, match=line):
        _load(make())


@pytest.mark.parametrize("name", CHEATS)
def test_a_network_that_is_not_its_trace_is_refused(name: str) -> None:
    """Random, stateful, counting, or passed over: the line names the place."""
    make, line = CHEATS[name]
    with pytest.raises(InputError, match=line):
        _load(make())


def _observed() -> nn.Module:
    net = sequential().eval()
    net.qconfig = default_qconfig
    return prepare(net)


def _integers() -> nn.Module:
    return quantize_dynamic(sequential(), {nn.Linear}, dtype=torch.qint8)


KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "script": (lambda: torch.jit.script(sequential()), r"TorchScript.*nn\.Module that it was made"),
    "traced": (lambda: torch.jit.trace(Residual().eval(), EXAMPLE), r"TorchScript"),
    "script_inside": (lambda: nn.Sequential(torch.jit.script(sequential())), r": 0 is TorchScript"),
    "program": (lambda: torch.export.export(Residual().eval(), (EXAMPLE,)),
                r"got ExportedProgram.*nn\.Module that it was made"),
    "module_of_program": (lambda: torch.export.export(Residual().eval(), (EXAMPLE,)).module(),
                          r"exported program"),
    "observed": (_observed, r"prepared for it"),
    "quantized": (_integers, r"8 is quantized"),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), r"1\.weight has no shape"),
    "meta": (lambda: sequential().to("meta"), r"0\.weight has no values"),
    "nothing": (lambda: None, r"got NoneType"),
    "pair": (lambda: (sequential(), None), r"got tuple"),
    "class": (lambda: Residual, r"got type"),
    "state": (lambda: sequential().state_dict(), r"got OrderedDict"),
}  # fmt: skip
"""What is no network that PyTorch runs eagerly in float."""

_MADE: list[Any] = []


def made() -> Any:
    """The user's function, which returns what the test put there."""
    return _MADE[-1]


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_eager_network_is_refused(name: str) -> None:
    """TorchScript, programs, quantized, lazy and empty networks: one line with what to give."""
    make, line = KINDS[name]
    _MADE.append(make())
    with pytest.raises(InputError, match=line):
        build_model(Teacher(model=f"python:{__name__}:made"))


def _ordinary() -> Iterator[tuple[str, nn.Module]]:
    """Networks with logits of every kind."""
    yield "positive", Returns(sequential(), lambda y: y.relu())
    yield "within_one", Returns(sequential(), lambda y: y.tanh() / 2 + 0.5)
    yield "constant", Returns(sequential(), lambda y: y * 0 + 0.2)
    yield "uniform_prior", Returns(sequential(), lambda y: y * 0 - torch.tensor(5.0).log())
    yield "large", Returns(sequential(), lambda y: y * 1e12)
    yield "tiny", Returns(sequential(), lambda y: y * 1e-12)
    yield "normalised", Returns(sequential(), lambda y: F.normalize(y, dim=1))
    mask = sequential()
    mask.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    yield "mask", mask


@pytest.mark.parametrize(("name", "net"), list(_ordinary()))
def test_ordinary_logits_are_taken(name: str, net: nn.Module) -> None:
    """Bounded, constant, huge and tiny logits, and a mask of -inf, are no mistake."""
    assert _load(net).num_classes == 5
