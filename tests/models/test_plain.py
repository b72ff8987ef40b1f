"""Whatever strangers do to a network, the teacher computes what the network computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from synq_tune.config import Bits, Teacher
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.student import quantize_student
from tests.models.strange import BASES, CASTS, SHAPE, WRAPPERS, answer, wrapped

CONFIG = Teacher(model="python:tests.models.strange:sequential", input_size=8)


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
    quantize_student(teacher, Bits(weights=8, activations=8), "minmax")


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
