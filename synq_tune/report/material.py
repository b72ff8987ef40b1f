"""All that a report is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synq_tune.report.evidence import Evidence
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import best_run, resolve_metric


@dataclass(frozen=True)
class Material:
    """A study, and what was measured on its model and its images for the page."""

    state: StudyState
    folder: Path
    importances: Mapping[str, float] | None = None
    """Share in [0, 1] of the metric's variation by parameter; empty where it cannot be said, None
    where nobody asked."""
    evidence: Evidence = field(default_factory=Evidence)
    is_ending: bool = False
    """Whether the study ends with this report; its ledger says so only afterwards."""

    @property
    def metric(self) -> str:
        """What chooses."""
        return resolve_metric(self.state)

    @property
    def best(self) -> Run | None:
        """The run that is chosen; None while none has completed."""
        return best_run(self.state)

    @property
    def searched(self) -> list[Run]:
        """The search trials in order of number."""
        return sorted(self.state.of_kind("search"), key=lambda run: run.number or 0)
