"""What is measured on a study's model and images for its page, beyond what the ledger knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import fx

from synq_tune import error_log
from synq_tune.config import Bits, FineTune, StudySpec
from synq_tune.errors import first_line, full_text
from synq_tune.inspection.student import Inspection, inspect_student
from synq_tune.quantization.student import quantize_student
from synq_tune.report.measured.cams import Cams, cams
from synq_tune.report.measured.histograms import (
    Histogram,
    quantized_layers,
    spread,
    value_histograms,
    weight_histograms,
)
from synq_tune.report.measured.layer_noise import LayerNoise, layer_noise
from synq_tune.report.measured.mistakes import Mistakes, mistakes
from synq_tune.report.measured.synthetic import Synthetic, synthetic
from synq_tune.trial.assets import Assets

NUM_IMAGES = 32
"""Held-out images that noise and histograms are measured on."""
_HISTOGRAMS = 4
_ALL = "all"
_NO_MODEL = "there is no model yet"
_NO_LABELS = "no labelled images were given"


@dataclass(frozen=True)
class Evidence:
    """Each part is None or empty where it was not measured; `why` says why not."""

    inspection: Inspection | None = None
    noise: list[LayerNoise] | None = None
    weights: list[Histogram] | None = None
    values: list[Histogram] | None = None
    synthetic: Synthetic | None = None
    cams: list[Cams] | None = None
    mistakes: Mistakes | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    """Name of a part → why it is not there, the end of a sentence."""

    @classmethod
    def absent(cls, why: str) -> Evidence:
        """Nothing was measured."""
        return cls(missing={_ALL: why})

    def why(self, part: str) -> str:
        """A sentence that says why a part is not there."""
        reason = self.missing.get(part) or self.missing.get(_ALL) or "nobody measured it"
        return f"This part is left out: {reason.rstrip('.')}."


@dataclass(frozen=True)
class Model:
    """The best student, and what its trial was asked to do."""

    student: fx.GraphModule
    config: FineTune
    calibrated: Callable[[], fx.GraphModule | None]
    """Makes the same student with nothing trained; None where that would take long."""


Part = TypeVar("Part")


class _Gathering:
    """Parts that cannot be measured are noted, and the others go on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: dict[str, str] = {}

    def part(self, name: str, make: Callable[[], Part], reason: str | None = None) -> Part | None:
        """What `make` gives; None with a reason, or where it raises."""
        if reason is not None:
            self.missing[name] = reason
            return None
        try:
            return make()
        except Exception as error:
            error_log.keep(full_text(error), f"report-{name}", self.folder)
            self.missing[name] = error_log.one_line(first_line(error))
            return None


def gather(assets: Assets, model: Model | None, folder: Path, bits: Bits | None = None) -> Evidence:
    """Measure all parts.

    Args:
        assets: of the study.
        model: None while no trial has completed.
        folder: of the study; full texts of errors go into its log.
        bits: widths of the model; None: the study's own.
    """
    at = _Gathering(folder)
    parts: dict[str, Any] = {
        "inspection": at.part("inspection", lambda: _inspected(assets, bits or assets.spec.bits)),
        "synthetic": at.part(
            "synthetic", lambda: synthetic(assets.teacher, assets.dataset, _d0s(assets.spec))
        ),
    }
    reason = _NO_MODEL if model is None else None
    for name, make in _OF_MODEL.items():
        parts[name] = at.part(name, lambda make=make: make(assets, model), reason)
    unlabelled = _NO_LABELS if assets.report is None else reason
    parts["mistakes"] = at.part(
        "mistakes", lambda: mistakes(assets.teacher, model.student, assets.report), unlabelled
    )
    return Evidence(**parts, missing=at.missing)


def _inspected(assets: Assets, bits: Bits) -> Inspection:
    return inspect_student(quantize_student(assets.teacher, bits, assets.spec.quantizer))


def _d0s(spec: StudySpec) -> tuple[float | None, ...]:
    """Cut-offs that the study searches, or the one it has."""
    searched = spec.search.get("d0")
    return searched.values if searched else (spec.finetune.d0,)


def _noise(assets: Assets, model: Model) -> list[LayerNoise]:
    return layer_noise(assets.teacher, model.student, _images(assets))


def _weights(assets: Assets, model: Model) -> list[Histogram]:
    names = spread(quantized_layers(model.student), _HISTOGRAMS)
    return weight_histograms(model.student, names)


def _values(assets: Assets, model: Model) -> list[Histogram]:
    return value_histograms(model.student, _images(assets), _HISTOGRAMS)


def _cams(assets: Assets, model: Model) -> list[Cams]:
    calibrated = model.calibrated()
    students = {} if calibrated is None else {"calibrated": calibrated}
    students["trained"] = model.student
    return cams(assets.teacher, students, assets.dataset, model.config)


def _images(assets: Assets) -> Any:
    return assets.probes.images[:NUM_IMAGES].float().to(assets.device)


_OF_MODEL: dict[str, Callable[[Assets, Model], Any]] = {
    "noise": _noise,
    "weights": _weights,
    "values": _values,
    "cams": _cams,
}
