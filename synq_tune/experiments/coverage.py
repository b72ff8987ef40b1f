"""Take a stranger's network through the whole chain and say where it stops.

Random weights are enough: the question is whether every operation is traced, quantized, trained and
exported, not how accurate the result is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from synq_tune.config import StudySpec, Teacher
from synq_tune.config.load import build_spec, read_recipe
from synq_tune.errors import InputError
from synq_tune.export.best import export_student
from synq_tune.inspection.student import inspect_student
from synq_tune.models.build import build_model
from synq_tune.models.teacher import load_teacher
from synq_tune.quantization.student import quantize_student
from synq_tune.synthesis.dataset import synthesize
from synq_tune.trial.assets import load_assets, parity_images
from synq_tune.trial.trial import Trial

STAGES = ("inspect", "synthesize", "finetune", "export", "parity")
NUM_CLASSES = 10


@dataclass
class Passage:
    """How far one network came."""

    model: str
    input_size: int
    passed: list[str] = field(default_factory=list)
    """Stages done, in the order of `STAGES`."""
    refused: bool = False
    """Whether an InputError stopped it: one line that names the reason."""
    error: str | None = None
    seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether every stage was passed."""
        return self.passed == list(STAGES)


@dataclass(frozen=True)
class Family:
    """How networks of one kind are walked."""

    quantizer: str
    synthesis: str
    input_sizes: tuple[int, ...]
    """Tried in turn: some networks shrink 64 pixels to nothing, or want a multiple of 32 or of
    14."""
    kwargs: Callable[[str, int], dict[str, Any]]
    """Of the constructor, from the model's name and the input size."""


def _transformer_kwargs(model: str, input_size: int) -> dict[str, Any]:
    """The input size, which a transformer is built for; a ViT's blocks are alike: two are
    enough."""
    return {"img_size": input_size} | ({} if "swin" in model else {"depth": 2})


FAMILIES = {
    "cnn": Family("minmax", "synq", (64, 128, 224, 256, 299), lambda model, size: {}),
    "transformer": Family("vit_lsq", "psaq", (64, 112, 224), _transformer_kwargs),
}


def walk_any_size(
    model: str, folder: Path, family: str = "cnn", quantizer: str | None = None
) -> Passage:
    """`walk` at the smallest input size the network takes."""
    for size in FAMILIES[family].input_sizes:
        passage = walk(model, size, folder / str(size), family, quantizer)
        too_small = not passage.passed and not (passage.error or "").startswith(
            "InputError: `activ"
        )
        if not too_small or "weights are parameters" in (passage.error or ""):
            return passage
    return passage


def walk(
    model: str,
    input_size: int,
    folder: Path,
    family: str = "cnn",
    quantizer: str | None = None,
) -> Passage:
    """Run inspect → synthesize → fine-tune → export → parity with a few images and steps.

    Args:
        model: as in teacher.model.
        input_size: pixels.
        folder: for weights, dataset and exported files.
        family: key of `FAMILIES`.
        quantizer: name of a family; None is the network family's.
    """
    passage, started = Passage(model, input_size), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        spec = _spec(model, input_size, folder, FAMILIES[family], quantizer)
        for stage in _stages(spec, folder):
            passage.passed.append(stage)
    except Exception as error:  # a table of failures needs every kind
        passage.refused = isinstance(error, InputError)
        passage.error = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
    passage.seconds = round(time.perf_counter() - started, 1)
    return passage


def _spec(
    model: str, input_size: int, folder: Path, family: Family, quantizer: str | None
) -> StudySpec:
    tree = read_recipe("synq")
    return build_spec(
        {
            **tree,
            "name": "coverage",
            "search": {},
            "quantizer": quantizer or family.quantizer,
            "teacher": {
                "model": model,
                "num_classes": NUM_CLASSES,
                "input_size": input_size,
                "kwargs": family.kwargs(model, input_size),
                "weights": {"file": str(folder / "weights.safetensors")},
            },
            "bits": {"weights": 4, "activations": 8},
            "synthesis": {
                "method": family.synthesis,
                "num_images": 8,
                "num_holdout": 4,
                "batch_size": 8,
                "iterations": 2,
                "center_iterations": 2,
            },
            "finetune": {
                **tree["finetune"],
                "epochs": 1,
                "batch_size": 4,
                "num_views": 1,
                "calibration_batches": 2,
            },
        },
        "coverage",
    )


def _stages(spec: StudySpec, folder: Path) -> Iterator[str]:
    write_random_weights(spec.teacher, folder / "weights.safetensors")
    teacher = load_teacher(spec.teacher)
    inspect_student(quantize_student(teacher, spec.bits, spec.quantizer))
    yield "inspect"
    dataset, _ = synthesize(teacher, spec, folder / "store", progress=False)
    yield "synthesize"
    assets = load_assets(spec, dataset.path, folder / "store", torch.device("cpu"))
    trial = Trial(assets, spec.finetune, seed=0)
    for _ in trial.run():
        pass
    yield "finetune"
    images = torch.cat(list(parity_images(assets)))
    report = export_student(trial.student, teacher, spec, folder / "best", images, images)
    yield "export"
    check_parity(report)
    yield "parity"


def write_random_weights(config: Teacher, path: Path) -> None:
    """Random weights whose BatchNorms fit them, as a checkpoint.

    Fresh networks have BatchNorm statistics of 0 and 1 whatever arrives there, so that signals die
    out within a few layers and every comparison behind would be one of rounding noise.
    """
    torch.manual_seed(0)
    model = build_model(config)
    size = config.input_size
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = None
            layer.reset_running_stats()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(8, config.channels, size, size))
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, path)


def check_parity(report: dict[str, Any]) -> None:
    """Raise AssertionError unless integer codes are equal and so are the classes.

    An image may have another class where its two largest logits lie within the difference that the
    order of float additions makes.
    """
    for name, codes in report["weight_codes"].items():
        assert codes["mismatches"] == 0, f"{name}: weight codes differ in {codes['where']}"
    for name, logits in report["logits"].items():
        for exception in logits["exceptions"]:
            assert exception["margin"] <= 2 * logits["max_difference"], f"{name}: {exception}"
