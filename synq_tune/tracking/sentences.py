"""What MLflow shows as the description of a run: one or two plain sentences."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from synq_tune.config import StudySpec
from synq_tune.study.measured_on import measured_on
from synq_tune.study.rungs import BEST, FULL_PRECISION
from synq_tune.study.stages import Rung
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import objectives
from synq_tune.tracking.describe import searched_widths, widths

NOTE = "mlflow.note.content"
_OURS = "synq.note"


def run_sentence(spec: StudySpec, run: Run) -> str:
    """What a child run is."""
    if run.kind == "confirm":
        return (
            f"Trial {run.number} of the space {spec.name} again, with another seed. "
            "The best is chosen by the mean over the seeds of each finalist."
        )
    if run.kind == "ladder":
        return (
            f"A rung of the ladder, for comparison: {run.label or run.key}, "
            "on the same synthetic images."
        )
    done = (
        "calibrated and fine-tuned" if spec.of_trial(run.params).is_trained else "calibrated only"
    )
    return (
        f"Trial {run.number} of the space {spec.name}: {spec.teacher.model} at "
        f"{widths(spec.of_trial(run.params).bits)}, "
        f"{done}, with the values below."
    )


def study_sentences(state: StudyState) -> str:
    """What the parent run is, and what came of it once the ladder is measured."""
    spec = state.spec
    asked = (
        f"A search for the best {searched_widths(spec)} version of {spec.teacher.model} without its "
        f"training data (space {spec.name}, recipe {spec.recipe}), chosen by "
        f"{' and '.join(objectives(state))}."
    )
    return " ".join([asked, *_result(state)])


def _result(state: StudyState) -> list[str]:
    ladder, best = state.stages.ladder, state.stages.best
    rungs = {rung.name: rung for rung in (ladder.rungs if ladder else ())}
    if best is None or BEST not in rungs:
        return []
    found = f"The best is {best.key}: {_accuracy(rungs[BEST])}"
    if FULL_PRECISION in rungs and rungs[FULL_PRECISION].top1 is not None:
        found += f", {rungs[FULL_PRECISION].top1:.2f} % in full precision"
    return [f"{found} ({measured_on(rungs[BEST])})."]


def _accuracy(rung: Rung) -> str:
    if rung.diverged is not None:
        return "it diverged"
    if rung.top1 is not None:
        return f"top-1 {rung.top1:.2f} %"
    return f"it agrees with full precision on {rung.agreement:.2f} % of the probes"


def note_tags(text: str, present: Mapping[str, str]) -> dict[str, str]:
    """Tags that make `text` a run's description; none where somebody wrote one of their own.

    Args:
        text: the description.
        present: the run's tags.
    """
    there = present.get(NOTE)
    if there is not None and present.get(_OURS) != _digest(there):
        return {}
    return {NOTE: text, _OURS: _digest(text)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
