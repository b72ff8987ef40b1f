"""What a synthesis method promises."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synq_tune.config import Synthesis, Teacher
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.synthesis.method import GeneratedImages, Synthesizer
from synq_tune.synthesis.own import run_seeded
from synq_tune.testing.promise import promised

SMALL = Synthesis(num_images=8, num_holdout=4, batch_size=6, iterations=2, center_iterations=2)


def check_synthesizer(
    method: Synthesizer | Callable[..., Any],
    config: Synthesis = SMALL,
    network: str = "digits_resnet26",
) -> None:
    """Check a `SynthesisMethod`, or a function `(teacher, config, folder, show)`.

    A function returns GeneratedImages or (images, labels).

    On a bundled digits teacher (`network`) it gives num_images + num_holdout finite images and
    labels in range; the same seed gives the same images and labels, whatever else drew random
    numbers; the teacher stays unchanged and keeps no hooks.

    Raises:
        AssertionError: a promise is broken; the text says which.
    """
    function = method.synthesize if isinstance(method, Synthesizer) else method
    teacher = load_teacher(Teacher(model=network, channels=1, num_classes=10))
    before = {k: v.clone() for k, v in teacher.graph.state_dict().items()}
    hooks = _hooks(teacher)
    first = _draft(function, teacher, config)
    torch.randn(7)
    again = _draft(function, teacher, config)
    for name, one, other in (
        ("images", first.images, again.images),
        ("labels", first.labels, again.labels),
    ):
        assert torch.equal(one, other), (
            f"`the same seed gives the same {name}` must hold, but they differ. Draw from "
            "torch's own generator, or seed yours with config.seed."
        )
    _check_unchanged(teacher, before, hooks)


def _draft(
    function: Callable[..., Any], teacher: LoadedTeacher, config: Synthesis
) -> GeneratedImages:
    with (
        tempfile.TemporaryDirectory() as folder,
        promised("the method gives a dataset"),
        torch.enable_grad(),
    ):
        return run_seeded(function, teacher, config, Path(folder))


def _hooks(teacher: LoadedTeacher) -> int:
    modules = teacher.graph.modules()
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def _check_unchanged(teacher: LoadedTeacher, before: dict[str, Tensor], hooks: int) -> None:
    after = teacher.graph.state_dict()
    changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert not changed, f"`the teacher stays unchanged` must hold, but it changed {changed[0]}."
    assert not teacher.graph.training, (
        "`the teacher stays in evaluation mode` must hold, but it trains."
    )
    assert all(p.grad is None and not p.requires_grad for p in teacher.graph.parameters()), (
        "`no gradient stays in the teacher` must hold, but one does. Ask autograd.grad for the images alone."
    )
    assert _hooks(teacher) == hooks, "`hooks are removed` must hold, but some stayed."
