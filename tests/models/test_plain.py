"""Whatever strangers do to a network, the teacher computes what the network computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from synq_tune.config import Bits, Teacher
from synq_tune.export.metadata import describe
from synq_tune.export.packed import build_packed, read_packed, write_packed
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.frozen import StandaloneModel, freeze
from synq_tune.quantization.student import calibrate, quantize_student
from tests.models import strange
from tests.models.strange import BASES, CASTS, SHAPE, WRAPPERS, answer, wrapped

CONFIG = Teacher(model="python:tests.models.strange:sequential", input_size=8)


BITS = Bits(weights=4, activations=4)
_COMPILE = ("compiled", "compiled_in_place", "compiled_forward", "averaged_compiled_parallel")
"""Importing torch.compile takes seconds: one such wrapper is enough for the default tests."""


def _images(count: int = 4) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def _load(net: nn.Module) -> LoadedTeacher:
    return load_teacher(CONFIG, model=net)


def _table() -> Iterator[object]:
    """Every wrapper on every base; one base each in the default tests."""
    for number, wrapper in enumerate(WRAPPERS):
        for row, base in enumerate(BASES):
            is_default = row == number % len(BASES) and wrapper not in _COMPILE
            yield pytest.param(base, wrapper, marks=() if is_default else pytest.mark.slow)


@pytest.mark.parametrize(("base", "wrapper"), _table())
def test_a_wrapped_network_computes_the_same(base: str, wrapper: str) -> None:
    """The graph gives the logits that PyTorch gives, and a student can be made of it."""
    images = _images()
    expected = answer(wrapped(base, wrapper), images)
    teacher = _load(wrapped(base, wrapper))
    given = images.clone()
    torch.testing.assert_close(teacher(given), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(given, images), "the teacher leaves its images as they are"
    assert not any(p.requires_grad for p in teacher.graph.parameters())
    quantize_student(teacher, BITS, "minmax")


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("cast", CASTS)
def test_other_floats_become_float32(base: str, cast: str) -> None:
    """Half, bfloat16 and double: the same weights, exactly, in float32, and a note."""
    torch.manual_seed(0)
    net = BASES[base]().eval().to(CASTS[cast])
    state = {name: value.float() for name, value in net.state_dict().items()}
    plain = BASES[base]().eval()
    plain.load_state_dict(state)
    teacher = _load(net)
    assert torch.equal(teacher(_images()), answer(plain, _images()))
    assert any("to float32" in note for note in teacher.notes)


def test_what_was_done_is_said() -> None:
    """One line a kind; a network that needed nothing has none."""
    assert _load(wrapped("residual", "dict_output")).notes == (
        "the network returns dict; its ['logits'] is taken as the logits",
    )
    assert _load(wrapped("sequential", "pruned")).note_lines == [
        "teacher   pruning masks folded (2 of them)"
    ]
    assert _load(BASES["nested"]().eval()).notes == ()


def test_loading_draws_no_random_numbers() -> None:
    """Whatever the check draws, the program's own stream goes on as if there were none."""
    net = BASES["sequential"]().eval()
    before = torch.get_rng_state()
    _load(net)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_fingerprint_counts_what_the_graph_computes() -> None:
    """Weights that PyTorch does not list, and statistics that tracing passed over, are part of it."""

    def of(wrapper: str, change: Callable[[nn.Module], object] = lambda net: None) -> str:
        net = wrapped("sequential", wrapper)
        change(net)
        return _load(net).fingerprint

    assert of("list") == of("list")
    assert of("list") != of("list", lambda net: net.net[0][0].weight.data.mul_(2))
    assert of("normalize_v2") != of("normalize_v2", lambda net: net[0].mean.__setitem__(0, 0.1))
    assert of("hook_at_root") != of("data_parallel")


@pytest.mark.parametrize("wrapper", ["list", "boxed", "normalize_v2", "pruned", "hook_at_layer"])
def test_a_packed_file_brings_a_strange_network_back(
    wrapper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is made plain the same way when a file is opened: equal logits, bit for bit."""
    monkeypatch.setattr(strange, "made", lambda: wrapped("sequential", wrapper), raising=False)
    model = "python:tests.models.strange:made"
    teacher = load_teacher(Teacher(model=model, input_size=8))
    student = quantize_student(teacher, BITS, "minmax")
    calibrate(student, [_images(8)])
    whole = StandaloneModel(freeze(student), teacher.preprocessing).eval()
    write_packed(whole, describe(teacher, BITS, "minmax"), tmp_path / "m.safetensors")
    pixels = torch.rand(4, *SHAPE)
    with torch.no_grad():
        path = tmp_path / "m.safetensors"
        assert torch.equal(build_packed(*read_packed(path), path, model)(pixels), whole(pixels))
