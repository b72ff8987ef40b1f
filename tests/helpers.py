"""Small real things tests build."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from synq_tune.config import StudySpec, Teacher
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.graph.taps import insert_taps
from synq_tune.graph.trace import trace
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.trial.assets import Assets
from synq_tune.trial.evaluation import make_probes
from synq_tune.trial.trial import Trial

ROOT = Path(__file__).parents[1]


def teacher_of(model: nn.Module, shape: tuple[int, int, int]) -> LoadedTeacher:
    """A loaded teacher around any module, for inputs of `shape` (C, H, W)."""
    channels, height, width = shape
    config = Teacher(model="python:tests.helpers:none", channels=channels)
    graph = trace(model.eval().requires_grad_(False), shape)
    output = next(node for node in graph.graph.nodes if node.op == "output")
    num_classes = output.args[0].meta["shape"][1]
    insert_taps(graph)
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    preprocessing = Preprocessing(height, width, channels, zeros, ones)
    return LoadedTeacher(config, graph, preprocessing, num_classes, "0" * 64)


def tiny_onnx(scale: float = 1.0) -> Any:
    """logits = scale · flatten(image) · w, for images of 1×2×2 pixels and 3 classes."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["pixels"]),
            helper.make_node("MatMul", ["pixels", "w"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", kind, ["N", 1, 2, 2])],
        [helper.make_tensor_value_info("logits", kind, ["N", 3])],
        [helper.make_tensor("w", kind, [4, 3], scale * np.arange(12, dtype=np.float32))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def digits_dataset(count: int, num_holdout: int) -> SyntheticDataset:
    """`count` standard normal images of 8×8 pixels with random labels; the last ones are held out."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 1, 8, 8, generator=generator).half()
    labels = torch.randint(0, 10, (count,), generator=generator)
    zeros = "0" * 32
    return SyntheticDataset(
        images, labels, num_holdout, "noise", zeros, 2 * zeros, Path("none"), {}
    )


def digits_trial(spec: StudySpec, teacher: LoadedTeacher, store: Path) -> Trial:
    """A trial of `spec.finetune` on 32 such images, with 16 held out and no labelled ones."""
    dataset = digits_dataset(48, 16)
    probes = make_probes(teacher, dataset)
    assets = Assets(spec, teacher, dataset, probes, None, None, store, torch.device("cpu"))
    return Trial(assets, spec.finetune, seed=7)


def goes_on_where_it_was(
    make: Callable[[], Trial], expected: list[dict[str, Any]], whole: Trial, stops: Iterable[int]
) -> None:
    """Stopped behind each of these rows and taken up in another process, a trial ends bit for bit.

    Args:
        make: the same trial anew.
        expected: every row of `whole`, as `vars`.
        whole: the trial that ran to its end at once.
        stops: numbers of rows, from 1.
    """
    for stop in stops:
        first = make()
        rows = first.run(is_kept=lambda epoch: True)
        found = [vars(next(rows)) for _ in range(stop)]
        data = first.state(seconds=1.0)
        torch.rand(3)  # another process's generator stands elsewhere
        second = make()
        found += [vars(row) for row in second.run(data, is_kept=lambda epoch: True)]
        assert found == expected
        for name in ("student", "_source"):
            ends = [_tensors(getattr(trial, name)) for trial in (second, whole)]
            assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


def _tensors(part: Any) -> dict[str, torch.Tensor]:
    return part.state_dict() if isinstance(part, torch.nn.Module) else part.state()


def not_loaded(code: str, modules: Sequence[str]) -> bool:
    """Whether a fresh interpreter that ran `code` has none of `modules` loaded."""
    asked = f"import sys; {code}; sys.exit(any(m in sys.modules for m in {list(modules)}))"
    return subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


SMALL_STUDY = [
    "synthesis.num_images=64", "synthesis.num_holdout=32", "synthesis.batch_size=96",
    "synthesis.iterations=5", "synthesis.center_iterations=5",
    "finetune.epochs=3", "finetune.batch_size=32", "finetune.num_views=2",
    "study.confirm={top: 1, seeds: 2}", "study.num_trials=4",
    "search.lr={choice: [1e-3, 1e-2, 1e30]}", "study.first=[{lr: 1e30}, {lr: 1e-2}]",
]  # fmt: skip
"""Settings of a study of digits that takes seconds of training; its first trial diverges."""


def small_command(
    folder: Path, *arguments: str, sets: list[str] = SMALL_STUDY, space: str = "digits_w3a3"
) -> list[str]:
    """`scripts/search.py` on a space, with store and MLflow's database beside `folder`."""
    values = [part for text in sets for part in ("--set", text)]
    store = str(folder.parent / "store")
    start = ["--space", space, "--output-dir", str(folder), *values]
    resume = ["--resume", str(folder)]
    which = resume if "--resume" in arguments else start
    rest = [a for a in arguments if a != "--resume"]
    return [sys.executable, str(ROOT / "scripts/search.py"), *which, "--store", store, *rest]


def small_search(
    folder: Path, *arguments: str, sets: list[str] = SMALL_STUDY, space: str = "digits_w3a3"
) -> subprocess.CompletedProcess[str]:
    """Run `small_command` to its end."""
    return subprocess.run(
        small_command(folder, *arguments, sets=sets, space=space),
        capture_output=True,
        text=True,
        cwd=folder.parent,
    )
