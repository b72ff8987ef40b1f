"""Which run comes next, derived from the ledger."""

from __future__ import annotations

from typing import Any, Final, Literal

from synq_tune.config import StudySpec
from synq_tune.search.logical_time import as_known, may_propose
from synq_tune.search.sampler import Sampler, max_trials
from synq_tune.seeds import trial_seed
from synq_tune.study.rungs import PAPER
from synq_tune.study.state import Run, RunKind, StudyState
from synq_tune.study.summary import finalists
from synq_tune.tracking.describe import widths

WAIT: Final = "wait"
"""Nothing to propose before a running search trial ends: the finalists are not known, or what the
next trial has to know."""


class RunQueue:
    """What a study runs: search trials, the paper's defaults, then the finalists' other seeds.

    A function of the ledger alone: whoever asks with the same ledger gets the same answer.
    """

    def __init__(self, spec: StudySpec, sampler: Sampler) -> None:
        self.spec, self.sampler = spec, sampler

    def propose(self, state: StudyState) -> dict[str, Any] | Literal["wait"] | None:
        """Fields of the next `proposed` event, WAIT, or None when nothing is left."""
        if not self.spec.is_varied and state.of_kind("search"):
            return None
        event = self._search(state)
        if event is None and not self.spec.is_trained:
            return None  # repeats of a calibration and an untrained recipe would tell nothing
        event = event or self._first_new([_ladder_event(self.spec)], state)
        if event is not None:
            return event
        if any(run.kind == "search" for run in state.tally.unfinished.values()):
            return WAIT
        return self._first_new(confirmations(self.spec, state), state)

    def is_done(self, state: StudyState) -> bool:
        """Whether every run there is to do is over."""
        is_over = not state.tally.unfinished
        return is_over and self.propose(state) is None

    def _search(self, state: StudyState) -> dict[str, Any] | Literal["wait"] | None:
        """The next of `num_trials` configurations; None when the space is exhausted, too."""
        number, width = len(state.of_kind("search")), self.spec.study.deterministic
        if number >= max_trials(self.spec):
            return None
        if width is not None and not may_propose(state, number, width):
            return WAIT
        known = state if width is None else as_known(state, number, width)
        params = self.sampler.propose(known)
        if params is None:
            return None
        seed = trial_seed(self.spec.study.seed, number)
        return _event(f"trial-{number:04d}", "search", number, params, seed)

    @staticmethod
    def _first_new(events: list[dict[str, Any]], state: StudyState) -> dict[str, Any] | None:
        return next((event for event in events if event["key"] not in state.runs), None)


def confirmations(spec: StudySpec, state: StudyState) -> list[dict[str, Any]]:
    """Fields of the `proposed` event of each finalist's other seeds, whether or not it was run."""
    confirm = spec.study.confirm
    if confirm is None:
        return []
    return [
        _confirm_event(spec, run, repeat)
        for run in finalists(state, confirm.top)
        for repeat in range(1, confirm.seeds)
    ]


def _ladder_event(spec: StudySpec) -> dict[str, Any]:
    params = {"recipe": "synq_paper"}
    seed = trial_seed(spec.study.seed, 0)
    # It is run before the best is known, whose widths may be others.
    label = f"{PAPER} at {widths(spec.bits)}" if spec.searches_bits else PAPER
    return _event("ladder-paper", "ladder", None, params, seed, label)


def _confirm_event(spec: StudySpec, run: Run, repeat: int) -> dict[str, Any]:
    key = f"confirm-{run.number:04d}-{repeat}"
    seed = trial_seed(spec.study.seed, run.number, repeat)
    return _event(key, "confirm", run.number, run.params, seed)


def _event(
    key: str, kind: RunKind, number: int | None, params: dict[str, Any], seed: int, label: str = ""
) -> dict[str, Any]:
    return {
        "key": key,
        "kind": kind,
        "number": number,
        "params": params,
        "seed": seed,
        "label": label,
    }
