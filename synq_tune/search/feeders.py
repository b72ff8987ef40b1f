"""Which run comes next: the sampler's proposals, or a fixed list."""

from __future__ import annotations

from typing import Any, Protocol

from synq_tune.config import StudySpec
from synq_tune.search.sampler import Sampler, max_trials
from synq_tune.study.seeds import trial_seed
from synq_tune.study.state import Run, RunKind, StudyState
from synq_tune.study.summary import finalists


class Feeder(Protocol):
    """Proposes runs of some kinds until there are no more."""

    kinds: tuple[RunKind, ...]

    def propose(self, state: StudyState) -> dict[str, Any] | None:
        """Fields of the next `proposed` event, or None when there is nothing left to propose."""


class SearchFeeder:
    """Up to `num_trials` search trials, proposed by TPE from what the ledger holds."""

    kinds: tuple[RunKind, ...] = ("search",)

    def __init__(self, spec: StudySpec, sampler: Sampler) -> None:
        self.spec, self.sampler = spec, sampler

    def propose(self, state: StudyState) -> dict[str, Any] | None:
        """The next configuration; None at the budget or when the space is exhausted."""
        number = len(state.of_kind("search"))
        if number >= max_trials(self.spec):
            return None
        params = self.sampler.propose(state)
        if params is None:
            return None
        seed = trial_seed(self.spec.study.seed, number)
        return _event(f"trial-{number:04d}", "search", number, params, seed)


class FinalFeeder:
    """After the search: the paper's defaults, and the finalists again over their seeds."""

    kinds: tuple[RunKind, ...] = ("confirm", "ladder")

    def __init__(self, spec: StudySpec, state: StudyState) -> None:
        self.events = [_ladder_event(spec), *self._confirmations(spec, state)]

    def propose(self, state: StudyState) -> dict[str, Any] | None:
        """The next of the list that is not in the ledger yet."""
        return next((event for event in self.events if event["key"] not in state.runs), None)

    @staticmethod
    def _confirmations(spec: StudySpec, state: StudyState) -> list[dict[str, Any]]:
        confirm = spec.study.confirm
        if confirm is None or confirm.seeds < 2:
            return []
        return [
            _confirm_event(spec, run, repeat)
            for run in finalists(state, confirm.top)
            for repeat in range(1, confirm.seeds)
        ]


def _ladder_event(spec: StudySpec) -> dict[str, Any]:
    params = {"recipe": "synq_paper"}
    seed = trial_seed(spec.study.seed, 0)
    return _event("ladder-paper", "ladder", None, params, seed, "the paper's defaults")


def _confirm_event(spec: StudySpec, run: Run, repeat: int) -> dict[str, Any]:
    key = f"confirm-{run.number:04d}-{repeat}"
    seed = trial_seed(spec.study.seed, run.number, repeat)
    return _event(key, "confirm", run.number, run.params, seed)


def _event(
    key: str, kind: RunKind, number: int | None, params: dict[str, Any], seed: int, label: str = ""
) -> dict[str, Any]:
    return {
        "key": key, "kind": kind, "number": number, "params": params, "seed": seed, "label": label,
    }  # fmt: skip
