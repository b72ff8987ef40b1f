"""How much work a study is, counted from its settings alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from synq_tune.config.metrics import COSTS
from synq_tune.config.spec import WIDTHS, StudySpec
from synq_tune.notes import counted


@dataclass(frozen=True)
class Runs:
    """How many runs a study makes, if nothing ends it early."""

    trials: int
    finalists: int
    """Configurations that are repeated at the end."""
    repeats: int
    """Runs of each of them, every one with another seed."""
    defaults: int
    """1 where the paper's defaults are run for the ladder, else 0."""

    @property
    def final(self) -> int:
        """Runs after the search."""
        return self.finalists * self.repeats + self.defaults

    @property
    def total(self) -> int:
        """All of them."""
        return self.trials + self.final

    def __str__(self) -> str:
        """`11 runs: 4 trials, 3 × 2 to confirm, 1 of the paper's defaults`."""
        if not self.final:
            return f"{counted(self.total, 'run')}: calibration only, nothing is trained"
        parts = [
            counted(self.trials, "trial"),
            *([f"{self.finalists} × {self.repeats} to confirm"] if self.finalists else []),
            f"{self.defaults} of the paper's defaults",
        ]
        return f"{counted(self.total, 'run')}: {', '.join(parts)}"


def runs_of(spec: StudySpec, trials: int) -> Runs:
    """The runs of a study.

    Args:
        spec: the study.
        trials: of its search; more than its space has are never run, see `search.planned`.
    """
    if not spec.is_trained:
        return Runs(trials if spec.is_varied else 1, 0, 0, 0)
    confirm = spec.study.confirm
    if confirm is None or confirm.seeds < 2:
        return Runs(trials, 0, 0, 1)
    return Runs(trials, int(min(_most_finalists(spec), trials)), confirm.seeds - 1, 1)


def _most_finalists(spec: StudySpec) -> float:
    """Configurations that are repeated, at most: all points of a front where there is one.

    No two of its points cost the same, so there are no more than combinations of widths.
    """
    study = spec.study
    if not study.has_front:
        return study.confirm.top if study.confirm else 0
    if not set(study.objectives[1:]) <= set(COSTS):
        return math.inf
    return math.prod(domain.size for key, domain in spec.search.items() if key in WIDTHS)


def steps_per_epoch(spec: StudySpec) -> int:
    """Updates of a trial in one epoch: one pass over the training part, unless it is said."""
    config = spec.finetune
    return config.steps_per_epoch or -(-spec.synthesis.num_images // config.batch_size)


def trial_updates(spec: StudySpec) -> int:
    """Updates of a trial that nothing stops."""
    return spec.finetune.epochs * steps_per_epoch(spec)


def reconstruction_images(spec: StudySpec) -> float:
    """Images that a trial's reconstruction shows to all parts, forward and backward, counted with
    repeats; of searched counts the mean."""
    config = spec.reconstruct
    if not config.is_on:
        return 0.0
    domain = spec.search.get("reconstruct.iterations")
    counts = domain.values if domain else (config.iterations,)
    most = config.num_images or spec.synthesis.num_images
    return sum(counts) / len(counts) * min(config.batch_size, most)


def final_runs(spec: StudySpec) -> int:
    """Trained runs after the search: the finalists' other seeds, and the ladder's defaults."""
    return runs_of(spec, spec.study.num_trials).final


def most_updates(spec: StudySpec) -> int:
    """Updates of all runs of a study, if nothing stops a trial early."""
    return runs_of(spec, spec.study.num_trials).total * trial_updates(spec)
