"""The final table: what each step from float to the best student found is worth.

Everything in it is measured on images that chose nothing: labelled ones of the reporting half, and
probes made for reporting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor, fx

from synq_tune.config import Bits, Reconstruct
from synq_tune.errors import NonFiniteError, stage
from synq_tune.study.rungs import BEST, CALIBRATED, CALIBRATED_ON_NOISE, FULL_PRECISION
from synq_tune.study.stages import Rung
from synq_tune.study.state import StudyState
from synq_tune.study.summary import best_bits
from synq_tune.trial.assets import Assets
from synq_tune.trial.evaluation import asking_teacher, confidence_interval, top1
from synq_tune.trial.trial import Trial


def _rung(name: str, accuracy: float | None, agreement: float | None, assets: Assets) -> Rung:
    """Accuracy on the reporting half with its 95 % interval, and agreement with the teacher."""
    probes = len(assets.report_probes.images), len(assets.probes.images)
    rung = Rung(name, agreement, *probes)
    if accuracy is None or assets.report is None:
        return rung
    count = len(assets.report)
    low, high = confidence_interval(accuracy, count)
    labelled = {"num_images": count, "chosen_on": len(assets.choose)}
    return replace(rung, top1=accuracy, low=low, high=high, **labelled)


def _measured(name: str, model: Callable[[Tensor], Tensor], assets: Assets) -> Rung:
    preprocessing = assets.teacher.preprocessing
    data = assets.report
    accuracy = None if data is None else top1(model, data, preprocessing, assets.device, stage=name)
    compared = assets.report_probes.compare(model, assets.device)
    return _rung(name, accuracy, compared["agreement"], assets)


def calibrated(
    assets: Assets, calibrate_on: str, seed: int, bits: Bits | None = None
) -> fx.GraphModule:
    """A student of which nothing was trained.

    Args:
        calibrate_on: `noise` or `synthetic`.
        seed: of the run.
        bits: widths; None: the study's own.
    """
    config = assets.spec.finetune.model_copy(update={"epochs": 0})
    off = Reconstruct()
    return Trial(assets, config, seed, calibrate_on, reconstruct=off, bits=bits).untrained()


def _or_diverged(name: str, measure: Callable[[], Rung]) -> Rung:
    """A rung; one that has no finite numbers says so instead, and the ladder goes on."""
    try:
        with stage("the ladder", name):
            return measure()
    except NonFiniteError as error:
        return Rung(name, diverged=str(error))


def build_ladder(assets: Assets, state: StudyState, best: Callable[[Tensor], Tensor]) -> list[Rung]:
    """Full precision, calibrated on noise, on the dataset, the paper's defaults, the best found.

    The paper's defaults come from the ledger (run `ladder-paper`); the others are measured here, at
    the widths of the best. A rung that diverged has `diverged` (why) instead of numbers.
    """
    with asking_teacher():
        rungs = [_measured(FULL_PRECISION, assets.teacher, assets)]
    for name, images in ((CALIBRATED_ON_NOISE, "noise"), (CALIBRATED, "synthetic")):
        rung = partial(_calibrated_rung, name, images, assets, best_bits(state))
        rungs.append(_or_diverged(name, rung))
    rungs += _of_paper(state, assets)
    return [
        *rungs,
        _or_diverged(BEST, lambda: _measured(BEST, best, assets)),
    ]


def _calibrated_rung(name: str, calibrate_on: str, assets: Assets, bits: Bits) -> Rung:
    student = calibrated(assets, calibrate_on, assets.spec.study.seed, bits)
    return _measured(name, student, assets)


def _of_paper(state: StudyState, assets: Assets) -> list[Rung]:
    paper = state.runs.get("ladder-paper")
    if paper is not None and paper.state == "diverged":
        return [Rung(paper.label, diverged=paper.error or "")]
    if paper is None or paper.state != "completed":
        return []
    return [_rung(paper.label, paper.report_top1, paper.report_agreement, assets)]
