"""What a ledger says, as values: the study's runs and the stages it has passed.

A *run* is one execution of `trial.py`. Its key is its identity for ever: `trial-0003` for a search
trial, `confirm-0003-1` for trial 3 again with its second seed, `ladder-paper` for a rung of the
ladder.

Events of a ledger, one JSON object per line, in the order they happened. Every event carries
`event`, `at` (seconds since the epoch) and:

    header     format, name, spec, created_by {package: version}
    session    action (started | finished | interrupted), pid, host
    stage      name, data; see `synq_tune.study.stages`
    proposed   key, kind (search | confirm | ladder), number, params, seed, label
    started    key; epoch when it goes on from the state kept after it
    evaluated  key, epoch, metrics, losses; partial when top1 is of a subset of the labelled images;
               earlier: epoch → losses of the epochs since the last evaluated one;
               kept_sha256 when the training state after it was kept
    kept       key, epoch, kept_sha256: the same after an epoch that is not evaluated
    finished   key, state, metrics, epochs_run, seconds, error, checkpoint_sha256, report_top1,
               report_agreement

`apply` is the only place where an event changes a state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from synq_tune.config import StudySpec
from synq_tune.config.metrics import MEASURED
from synq_tune.study.stages import Budget, Stages, stage_of
from synq_tune.study.tally import Tally

RunKind = Literal["search", "confirm", "ladder"]
RunState = Literal["completed", "stopped", "diverged", "failed", "interrupted", "running"]
FINAL_STATES = ("completed", "stopped", "diverged", "failed")
"""States a run never leaves; `interrupted` and `running` runs are run again on resume."""
SUMMARIZED = (
    *(metric.name for metric in MEASURED.values() if metric.is_always_summarized),
    "top1_best_epoch",
    "agreement_best_epoch",
    "epoch",
)
"""What a run's `metrics` may hold, besides the metric that its study asks for by name; anything
else an event measured stays in its history."""


@dataclass
class Run:
    """One run as the ledger knows it."""

    key: str
    kind: RunKind
    number: int | None
    """Number of the search trial it is, or repeats; None for a rung of the ladder."""
    params: dict[str, Any]
    """The searched values of its configuration."""
    seed: int
    label: str = ""
    state: RunState = "running"
    started_at: float | None = None
    """First start, in seconds since the epoch; None while it waits."""
    finished_at: float | None = None
    seconds: float = 0.0
    """Wall time of the epochs that led to the result, however many processes ran them."""
    epochs_run: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """Accuracies in percent; see design: top1, agreement, holdout_kl, …_best_epoch, epoch; and
    `config.metrics.COSTS`."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """{epoch, metrics, losses, partial, earlier} of each evaluated epoch that led to where the run
    is; `earlier` has the losses of the epochs before it that were not evaluated, by epoch."""
    moments: dict[int, tuple[float, dict[str, Any]]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Epoch → its time in seconds since the epoch, and its entry of the history: one that is run
    again after a crash with the same numbers keeps the time it had."""
    error: str | None = None
    kept_epoch: int = 0
    """Epoch after which an unfinished run goes on."""
    kept_position: int = 0
    """Parts of the stage before fine-tuning behind which it goes on, while no epoch is finished."""
    kept_sha256: str | None = None
    """Of the training state kept after it; None if the run begins again."""
    checkpoint_sha256: str | None = None
    """Of the student's file; None if it was not kept."""
    report_top1: float | None = None
    """Percent on the reporting half, which decides nothing."""
    report_agreement: float | None = None
    """Percent on the probes that decide nothing; None of runs that are no rung, and of older
    ledgers."""
    encoded: str | None = field(default=None, repr=False, compare=False)
    """Its entry of `summary.json`, kept once the run is final: a thousand finished trials are not
    encoded anew at every transition."""

    @property
    def is_final(self) -> bool:
        """Whether the run is over for good."""
        return self.state in FINAL_STATES


@dataclass
class StudyState:
    """A replayed ledger."""

    spec: StudySpec
    header: dict[str, Any]
    runs: dict[str, Run] = field(default_factory=dict)
    """By key, in order of proposal."""
    stages: Stages = field(default_factory=Stages)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    sessions_before_budget: int = 0
    """Counted, since a clock may jump: only sessions behind the last `budget` know of it."""
    _tally: Tally = field(default_factory=Tally, init=False, repr=False, compare=False)

    @property
    def tally(self) -> Tally:
        """Which runs are over; costs next to nothing, however many there are."""
        return self._tally.read(self.runs)

    @property
    def num_trials(self) -> int:
        """Search trials asked for; one where nothing is trained and no width drawn."""
        return self.spec.study.num_trials if self.spec.is_varied else 1

    def of_kind(self, kind: RunKind) -> list[Run]:
        """Runs of one kind in order of proposal."""
        return [run for run in self.runs.values() if run.kind == kind]


def interrupt_running(state: StudyState) -> None:
    """Mark every unfinished run as interrupted: no driver is working on it any more."""
    for run in state.runs.values():
        if not run.is_final:
            run.state = "interrupted"


def check(state: StudyState, event: Mapping[str, Any]) -> None:
    """Refuse an event that cannot follow `state`.

    Raises:
        RuntimeError: the driver has a bug; nothing a user writes leads here.
        InputError: a stage lacks a key.
    """
    name = event["event"]
    if name not in _REDUCERS:
        raise RuntimeError(
            f"`the event is one of {', '.join(_REDUCERS)}` must hold, but got {name!r}."
        )
    if name == "proposed" and event["key"] in state.runs:
        raise RuntimeError(f"`a run is proposed once` must hold, but got key={event['key']!r}.")
    if name == "stage":
        stage_of(event)
    if name in ("started", "evaluated", "kept", "finished"):
        _check_unfinished(state, event)


def _check_unfinished(state: StudyState, event: Mapping[str, Any]) -> None:
    name, run = event["event"], state.runs.get(event["key"])
    if run is None or run.is_final:
        found = "an unknown run" if run is None else f"a {run.state} one"
        raise RuntimeError(
            f"`{name} follows proposed, on an unfinished run` must hold, but {event['key']!r} is "
            f"{found}."
        )
    if name == "finished" and event["state"] not in FINAL_STATES:
        raise RuntimeError(
            f"`state is one of {', '.join(FINAL_STATES)}` must hold, but got {event['state']!r}."
        )


def apply(state: StudyState, event: Mapping[str, Any]) -> None:
    """Bring `state` up to date with the event that follows it.

    Raises:
        RuntimeError, InputError: see `check`; the state is unchanged.
    """
    check(state, event)
    _REDUCERS[event["event"]](state, event)


def _session(state: StudyState, event: Mapping[str, Any]) -> None:
    """Whatever a session does first or last, no run of it is in progress at that moment."""
    interrupt_running(state)
    state.sessions.append(dict(event))


def _stage(state: StudyState, event: Mapping[str, Any]) -> None:
    stage = stage_of(event)
    if stage is not None:
        state.stages.put(stage)
    if isinstance(stage, Budget):
        _budget(state, stage)


def _budget(state: StudyState, budget: Budget) -> None:
    """A resumed study may have more trials, or another target, than its header says."""
    study = state.spec.study.model_copy(update=budget.changes())
    state.spec = state.spec.model_copy(update={"study": study})
    state.sessions_before_budget = len(state.sessions)


def _proposed(state: StudyState, event: Mapping[str, Any]) -> None:
    state.runs[event["key"]] = Run(
        event["key"],
        event["kind"],
        event.get("number"),
        event["params"],
        event["seed"],
        event.get("label", ""),
    )


def _started(state: StudyState, event: Mapping[str, Any]) -> None:
    run = state.runs[event["key"]]
    run.state, run.epochs_run = "running", event.get("epoch", 0)
    run.history = [entry for entry in run.history if entry["epoch"] <= run.epochs_run]
    run.metrics = _measured(state, run.history, {}) if run.history else {}
    run.started_at = event["at"] if run.started_at is None else run.started_at
    if not run.epochs_run and not event.get("position"):
        run.kept_epoch, run.kept_position, run.kept_sha256 = 0, 0, None


def _evaluated(state: StudyState, event: Mapping[str, Any]) -> None:
    run = state.runs[event["key"]]
    entry = {key: event.get(key) or {} for key in ("metrics", "losses")}
    # Absent where there is nothing to say: MLflow knows older entries by their digest.
    more = {key: event[key] for key in ("partial", "earlier") if event.get(key)}
    entry = {"epoch": event["epoch"], **entry, **more}
    run.history.append(entry)
    at, before = run.moments.get(event["epoch"], (event["at"], entry))
    run.moments[event["epoch"]] = (at if before == entry else event["at"], entry)
    run.metrics = _measured(state, run.history, {})
    _kept(state, event)


def _kept(state: StudyState, event: Mapping[str, Any]) -> None:
    run = state.runs[event["key"]]
    run.epochs_run = event["epoch"]
    if "kept_sha256" in event:
        run.kept_epoch, run.kept_sha256 = event["epoch"], event["kept_sha256"]
        run.kept_position = event.get("position", 0)


def _finished(state: StudyState, event: Mapping[str, Any]) -> None:
    run = state.runs[event["key"]]
    run.state, run.finished_at, run.error = event["state"], event["at"], event.get("error")
    run.seconds = event.get("seconds", 0.0)
    run.checkpoint_sha256 = event.get("checkpoint_sha256")
    run.report_top1 = event.get("report_top1")
    run.report_agreement = event.get("report_agreement")
    run.epochs_run = event.get("epochs_run", run.epochs_run)
    run.metrics = _measured(state, run.history, event.get("metrics") or {})
    state.tally.end(run)


def _measured(
    state: StudyState, history: list[dict[str, Any]], final: Mapping[str, float]
) -> dict[str, float]:
    """The metrics of an attempt: those of its last evaluated epoch, and the best evaluated ones."""
    last = history[-1] if history else {"metrics": {}}
    epoch = {"epoch": last["epoch"]} if "epoch" in last else {}
    metrics = {**epoch, **last["metrics"], **final}
    for name in ("top1", "agreement"):
        if name in metrics:
            best = max([metrics[name], *_comparable(history, name)])
            metrics.setdefault(f"{name}_best_epoch", best)
    study = state.spec.study
    names = dict.fromkeys((*SUMMARIZED, study.metric, *study.objectives))
    return {name: metrics[name] for name in names if name in metrics}


def _comparable(history: list[dict[str, Any]], name: str) -> list[float]:
    """Values of one metric, measured on the same images as the last of them.

    The maximum over different subsets would favour the small ones, whose noise is larger.
    """
    entries = [entry for entry in history if name in entry["metrics"]]
    if name == "top1":
        entries = [e for e in entries if e.get("partial") == entries[-1].get("partial")]
    return [entry["metrics"][name] for entry in entries]


_REDUCERS: dict[str, Callable[[StudyState, Mapping[str, Any]], None]] = {
    "session": _session,
    "stage": _stage,
    "proposed": _proposed,
    "started": _started,
    "evaluated": _evaluated,
    "kept": _kept,
    "finished": _finished,
}
