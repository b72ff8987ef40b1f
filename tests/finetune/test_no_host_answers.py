"""A step asks the device for nothing: each answer to the host would stall a GPU, and end a graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from synq_tune.bench.material import bench_source, bench_student, bench_teacher
from synq_tune.config.load import load_space
from synq_tune.finetune.loop import TrainingStep
from synq_tune.finetune.optimizer import optimizer_of, update

CPU = torch.device("cpu")
_ASKS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique2"}
"""Operators whose result's value or size the host must wait for."""


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        name = func.overloadpacket.__name__
        flat = [a for a in (args[1] if name.startswith("index") and len(args) > 1 else ())
                if isinstance(a, torch.Tensor) and a.dtype == torch.bool]  # fmt: skip
        if name in _ASKS or flat:
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def answers() -> Iterator[list[str]]:
    """A block; what in it made the host wait."""
    with _Counting() as mode:
        yield mode.asked


def test_the_counter_counts() -> None:
    """What a step must not have is found where it is."""
    x = torch.arange(4.0)
    with answers() as found:
        float(x[1]), x.nonzero(), x[x > 1], bool((x > 1).any())
    assert len(found) == 4


@pytest.mark.parametrize("recipe", ["synq", "synq_lsq", "synq_paper", "synq_code"])
def test_a_step_asks_for_nothing(recipe: str) -> None:
    """Forward, backward and the optimizer's update, the batch drawn before; from the second on."""
    spec = load_space("digits_w4a4", [f"recipe={recipe}", "finetune.batch_size=8"])
    teacher = bench_teacher(spec, CPU)
    source = bench_source(teacher, spec.finetune, CPU)
    student = bench_student(spec, teacher, source)
    step, optimizer = (
        TrainingStep(student, spec.finetune, teacher.graph),
        optimizer_of(student, spec.finetune),
    )
    batch = next(iter(source.batches(0)))
    for number in range(2):
        with answers() as found:
            losses = step(batch)
            optimizer.zero_grad(set_to_none=True)
            losses[0].backward()
            update(optimizer, spec.finetune.grad_clip)
        assert number == 0 or found == []
