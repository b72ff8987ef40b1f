"""Studies made event by event, as small or as large as a test asks for."""

from __future__ import annotations

import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from synq_tune.config.load import load_space
from synq_tune.study.ledger import Ledger
from synq_tune.study.stages import Best, Dataset, Ladder, Metric, Parity, Rung, Teacher

ENDS = ("completed", "completed", "stopped", "completed", "diverged")
"""How trials end, in turn."""
_LABELLED = {"num_images": 448, "chosen_on": 448}


def begun(folder: Path, *sets: str, space: str = "digits_w3a3", has_labels: bool = True) -> Ledger:
    """A study with teacher and dataset, before its first trial."""
    sets = sets if has_labels else (*sets, "study.val_data=null")
    ledger = Ledger.create(folder, load_space(space, sets))
    ledger.append("session", action="started", pid=1, host="here")
    metric = "top1" if has_labels else "agreement"
    ledger.record(Teacher(ledger.state.spec.teacher.model, "f" * 64, 99.4 if has_labels else None))
    ledger.record(Metric(metric, "max"))
    ledger.record(Dataset("/nowhere/datasets/0", "0" * 64, 64, 32, "synq"))
    return ledger


def add_trials(ledger: Ledger, count: int, error: str = "cam loss is nan at epoch 1.") -> None:
    """So many search trials with drawn parameters and metrics; ends are those of `ENDS`."""
    drawn = random.Random(0)
    for number in range(count):
        key, end = f"trial-{number:04d}", ENDS[number % len(ENDS)]
        params = {k: drawn.choice(d.values) for k, d in ledger.state.spec.search.items()}
        ledger.append(
            "proposed", key=key, kind="search", number=number, params=params, seed=number, label=""
        )
        _run(ledger, key, end, drawn, error)


def _run(ledger: Ledger, key: str, end: str, drawn: random.Random, error: str) -> None:
    ledger.append("started", key=key)
    epochs = {"completed": 3, "stopped": 2, "diverged": 0}[end]
    metrics: dict[str, float] = {}
    for epoch in range(1, epochs + 1):
        metrics = _metrics(ledger, 60 + 10 * epoch + 5 * drawn.random())
        losses = {"total": 1 / epoch, "kd": 0.5 / epoch}
        ledger.append("evaluated", key=key, epoch=epoch, metrics=metrics, losses=losses)
    said = {"error": error} if end == "diverged" else {}
    ledger.append(
        "finished", key=key, state=end, metrics=metrics, epochs_run=epochs, seconds=1.5, **said
    )


def _metrics(ledger: Ledger, value: float) -> dict[str, float]:
    measured = {"agreement": value - 5, "holdout_kl": (100 - value) / 50}
    return measured if ledger.state.spec.study.val_data is None else {"top1": value, **measured}


def repeat(ledger: Ledger, number: int, value: float) -> None:
    """One repeat of a trial with another seed."""
    key = f"confirm-{number:04d}-1"
    params = ledger.state.runs[f"trial-{number:04d}"].params
    ledger.append(
        "proposed", key=key, kind="confirm", number=number, params=params, seed=7, label=""
    )
    ledger.append("started", key=key)
    metrics = _metrics(ledger, value)
    report = {"report_top1": value - 1} if "top1" in metrics else {}
    ledger.append(
        "finished", key=key, state="completed", metrics=metrics, epochs_run=3, seconds=1.5, **report
    )


def end(ledger: Ledger) -> None:
    """The ladder, and files of the best trial."""
    best = next(run for run in ledger.state.of_kind("search") if run.state == "completed")
    has_labels = ledger.state.spec.study.val_data is not None
    ledger.record(Ladder(tuple(_rung(*row, has_labels) for row in _RUNGS)))
    ledger.record(Parity(_PARITY))
    folder = str(ledger.folder / "best")
    ledger.record(
        Best(best.key, best.number, best.params, best.metrics, folder, {"a.onnx": "b" * 64})
    )
    ledger.append("session", action="finished", pid=1, host="here")


_RUNGS = (("full precision", 99.5), ("calibrated on noise", None), ("the best found", 95.25))
_PARITY = {
    "sizes": {"float32": 400_000, "packed": 50_000},
    "logits": {
        "onnx ALL": {
            "images": 928,
            "agreement": 100.0,
            "max_difference": 2e-6,
            "ms_per_image": 0.25,
        }
    },
    "weight_codes": {"onnx": {"codes": 91_400, "mismatches": 0}},
}


def _rung(name: str, value: float | None, has_labels: bool) -> Rung:
    if value is None:
        return Rung(name, diverged="logits are not finite")
    if not has_labels:
        return Rung(name, value, 96, 96)
    return Rung(name, value - 1, 96, 96, value, value - 1.25, value + 0.25, **_LABELLED)


class Page(HTMLParser):
    """What a page consists of, read as a browser reads it."""

    def __init__(self, text: str) -> None:
        """Parse it all."""
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.scripts: list[str] = []
        """Contents of every script element."""
        self.words: list[str] = []
        """What a reader sees."""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag; scripts and styles are no words."""
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        """Leave a script or style."""
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        """Note a text."""
        if not self._inside:
            self.words.append(data)
        elif self._inside[-1] == "script":
            self.scripts[-1] += data

    @property
    def text(self) -> str:
        """All words, each space one."""
        return " ".join(" ".join(self.words).split())

    def links(self) -> list[str]:
        """Every address that an attribute names."""
        names = ("src", "href", "srcset", "action", "data", "poster", "formaction", "background")
        return [v for _, attrs in self.tags for k, v in attrs.items() if k in names and v]
