"""Take a random network through the whole chain: whole, refused by name, or a defect.

python -m synq_tune.testing.random_journey 17 18        # what becomes of these numbers
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from synq_tune.config import FineTune, StudySpec
from synq_tune.config.load import build_spec, read_recipe
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.errors import InputError
from synq_tune.experiments.coverage import check_parity
from synq_tune.export import FILE_NAMES
from synq_tune.export.best import export_student
from synq_tune.export.hardware import prepared
from synq_tune.export.options import options_of
from synq_tune.export.runtime import ModelFile, load_model_file
from synq_tune.finetune.loop import finetune
from synq_tune.graph.nodes import module_of
from synq_tune.inspection.student import inspect_student
from synq_tune.models.build import build_model
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.frozen import FrozenActivation, freeze, frozen_activations
from synq_tune.quantization.student import activation_quantizers, calibrate, quantize_student
from synq_tune.testing.random_networks import NUM_CLASSES, input_shape
from synq_tune.views.source import ViewSource
from synq_tune.views.teacher_cache import make_views

_OWN = f"python:{__package__}.random_networks:random_network"
_EDGE = 2e-3
"""In steps: floats added in another order may take a value this near a rounding edge to the other
side."""

_JUMPS = ("hardshrink", "threshold")
"""Functions whose value jumps: floats added in another order may lie on the other side, and what
the next grid reads is then whole steps away."""
_FEW = 0.05
"""Share of a grid's codes that may differ behind a jump."""

_MAY_REFUSE = ("load", "quantize")
"""Stages that may refuse a network: later ones would have cost a user the work before them."""


@dataclass(frozen=True)
class Journey:
    """What became of one network."""

    seed: int
    quantizer: str
    refusal: str | None = None
    """The one line, or None: it passed the whole chain."""


class DefectError(AssertionError):
    """A network neither passed the chain nor was refused by name."""


def take(seed: int, folder: Path | None) -> Journey:
    """Quantize, calibrate, take two steps, export, compare.

    Args:
        seed: names the network and how it is quantized.
        folder: for the exported files; None stops in front of the export, which takes longest.

    Raises:
        DefectError: the text names the seed, the stage and what happened.
    """
    spec = draw_spec(seed)
    stage = ["load"]
    try:
        _walk(spec, seed, folder, stage)
    except InputError as error:
        text = str(error)
        if "\n" in text or "`" not in text:
            raise DefectError(
                f"seed {seed}: refused in {stage[0]}, not in one line: {text!r}"
            ) from error
        return Journey(seed, spec.quantizer, text)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise DefectError(
            f"seed {seed} ({spec.quantizer}, {stage[0]}): {type(error).__name__}: {first}"
        ) from error
    return Journey(seed, spec.quantizer)


def draw_spec(seed: int) -> StudySpec:
    """Settings of that number: one of eight quantizers, bits of 2, 3, 4 or 8."""
    rng = random.Random(f"spec {seed}")
    quantizer = rng.choice(
        ["minmax", "lsq", "deploy", "minmax", "lsq", "deploy_symmetric"]
        + ["genie", "genie_deploy", "vit_minmax", "vit_lsq"]
    )
    with_attention = quantizer.startswith("vit") or rng.random() < 0.1
    width = lambda: rng.choice([2, 3, 4, 8])  # noqa: E731
    bits: dict[str, Any] = {"weights": width(), "activations": width()}
    bits |= {key: width() for key in ("first", "last", "skip") if rng.random() < 0.15}
    channels, *size = input_shape(seed)
    tree = read_recipe("synq")
    return build_spec(
        {
            **tree,
            "name": "fuzz",
            "quantizer": quantizer,
            "bits": bits,
            "teacher": {
                "model": _OWN,
                "kwargs": {"seed": seed, "with_attention": with_attention},
                "input_size": size[0],
                "channels": channels,
                "num_classes": NUM_CLASSES,
                "mean": [0.5] * channels,
                "std": [0.25] * channels,
            },
            "finetune": {
                **tree["finetune"],
                "epochs": 2,
                "batch_size": 4,
                "steps_per_epoch": 1,
                "num_views": 1,
                "d0": None,
                "lr": 1e-3,
                "calibration_batches": 2,
                "lambda_cam": rng.choice([0.0, 20.0]),
            },
        },
        "fuzz",
    )


def _walk(spec: StudySpec, seed: int, folder: Path | None, stage: list[str]) -> None:
    teacher = load_teacher(spec.teacher)
    images = torch.randn(12, *input_shape(seed), generator=torch.Generator().manual_seed(seed))
    _check_trace(teacher, build_model(spec.teacher), images)
    stage[0] = "quantize"
    student = quantize_student(teacher, spec.bits, spec.quantizer)
    _check_grids(student)
    inspect_student(student)
    stage[0] = "calibrate"
    source = _source(teacher, images, spec.finetune)
    calibrate(student, source.calibration_images())
    stage[0] = "fine-tune"
    for _ in finetune(student, source, spec.finetune):
        pass
    if folder is None:
        return
    stage[0] = "export"
    report = export_student(student, teacher, spec, folder, images, images)
    stage[0] = "parity"
    _check_report(report)
    pixels = teacher.preprocessing.denormalize(images)
    # LiteRT rounds elsewhere than the student does: its own reference is what it is compared with.
    for name in report["golden"].keys() - {"tflite"}:
        file = load_model_file(folder / FILE_NAMES[name], python_model=_OWN)
        # Biases in a hardware file are rounded: its codes are those of the network in that form.
        _check_codes(prepared(freeze(student), options_of(file.metadata)), file, pixels)


@torch.no_grad()
def _check_trace(teacher: LoadedTeacher, network: nn.Module, images: Tensor) -> None:
    expected, traced = network.eval()(images.clone()), teacher(images.clone())
    difference = float((expected - traced).abs().max())
    size = float(expected.abs().max())
    assert difference <= 1e-4 * max(size, 1.0), f"graph and network differ by {difference:.2g}"


def _check_grids(student: fx.GraphModule) -> None:
    grids = activation_quantizers(student)
    assert grids, "no value has a grid"
    for node in student.graph.nodes:
        if str(node.target) in grids:
            assert node.users, f"{node.target} has no reader"
            read = module_of(student, node) is grids[str(node.target)]
            assert read, f"{node.target} is another module"


def _source(teacher: LoadedTeacher, images: Tensor, config: FineTune) -> ViewSource:
    labels = teacher(images).argmax(1)
    dataset = SyntheticDataset(images.half(), labels, 4, "noise", "0" * 32, "", Path(), {})
    views = make_views(teacher, dataset, config)
    return ViewSource(dataset.train_images, dataset.train_labels, views, config, seed=0)


def _check_report(report: dict[str, Any]) -> None:
    check_parity(report)
    for name, golden in report["golden"].items():
        assert golden["weight_codes"]["mismatches"] == 0, f"{name}: golden weight codes differ"
    for family, codes in report.get("kernels", {}).items():
        assert codes["mismatches"] == 0, f"tflite {family}: codes differ in {codes['where']}"
    packed = report["logits"]["packed"]["max_difference"]
    assert packed == 0, f"packed: logits differ by {packed:.2g}"


@torch.no_grad()
def _check_codes(form: fx.GraphModule, file: ModelFile, pixels: Tensor) -> None:
    """The first grids that differ do so at rounding edges alone, or in few codes behind a jump; behind
    them all may differ."""
    found, values = (
        file.activation_codes(pixels),
        _values(form, file.preprocessing.normalize(pixels)),
    )
    for name, grid in _in_call_order(form):
        codes = grid.codes(values[name])
        assert name in found, f"{file.path.name}: no codes of {name}"
        assert codes.shape == found[name].shape, f"{file.path.name}: {name} has another shape"
        differs = codes != found[name]
        if differs.any() and _jumps(form) and float(differs.float().mean()) <= _FEW:
            return
        if differs.any():
            steps = values[name][differs] / grid.scale - grid.zero_point
            distance = float((steps - steps.floor() - 0.5).abs().max())
            assert distance <= _EDGE, (
                f"{file.path.name}: {int(differs.sum())} of {differs.numel()} codes of {name} differ, "
                f"some {distance:.2g} steps from a rounding edge"
            )
            return


def _jumps(form: fx.GraphModule) -> bool:
    """Whether a function of the network jumps."""
    called = ((module_of(form, node), node.target) for node in form.graph.nodes)
    names = (type(m).__name__ if m is not None else getattr(t, "__name__", t) for m, t in called)
    return any(str(name).lower().strip("_") in _JUMPS for name in names)


def _values(form: fx.GraphModule, images: Tensor) -> dict[str, Tensor]:
    """What each grid reads."""
    values: dict[str, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for name, grid in frozen_activations(form).items():

            def keep(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                values[name] = inputs[0]

            stack.callback(grid.register_forward_pre_hook(keep).remove)
        form(images)
    return values


def _in_call_order(form: fx.GraphModule) -> list[tuple[str, FrozenActivation]]:
    grids = frozen_activations(form)
    return [(name, grids[name]) for n in form.graph.nodes if (name := str(n.target)) in grids]


def summary(journeys: Iterable[Journey]) -> list[str]:
    """How many are whole, and how many are refused for each reason."""
    journeys = list(journeys)
    reasons = Counter(j.refusal.split("`")[1].split(" (")[0] for j in journeys if j.refusal)
    whole = sum(j.refusal is None for j in journeys)
    return [
        f"{whole} of {len(journeys)} networks whole",
        *(f"{count} refused: `{reason}`" for reason, count in reasons.most_common()),
    ]


def main() -> None:
    """Print what becomes of the numbers given."""
    journeys = []
    for text in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                journeys.append(take(int(text), Path(folder)))
            except DefectError as error:
                print(f"DEFECT {error}", flush=True)
            else:
                last = journeys[-1]
                print(f"{text} ({last.quantizer}): {last.refusal or 'whole'}", flush=True)
    print(*summary(journeys), sep="\n")


if __name__ == "__main__":
    main()
