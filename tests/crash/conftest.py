"""The fault table: fault × times × lost × doubled × seconds to resume."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.crash.checker import Verdict, check_finished
from tests.crash.study import TinyStudy


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", metavar="FILE", help="write the table of faults as Markdown")
    parser.addoption("--kills", type=int, metavar="N", help="SIGKILLs of the driver (default 8)")


@dataclass
class Row:
    """What was found after one kind of fault."""

    times: int = 0
    lost: int = 0
    doubled: int = 0
    seconds: list[float] = field(default_factory=list)


class FaultTable:
    """Collects rows; `markdown` is what the README shows."""

    def __init__(self, path: Path | None) -> None:
        """Begin empty; `path` gets the table after every fault, as one may be the last."""
        self.path = path
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, Row] = {}

    def check(self, fault: str, study: TinyStudy, times: int = 1, rework: int = 1) -> None:
        """Check a study that has ended after `times` faults of a kind, and note what was found."""
        verdict = check_finished(study.folder, study.finals, study.num_trials, rework)
        self.note(fault, verdict, times, study.resumed[1:] or study.resumed)

    def note(self, fault: str, verdict: Verdict, times: int, seconds: list[float]) -> None:
        """Add what was found to the row of a kind of fault; nothing may be lost or doubled."""
        row = self.rows.setdefault(fault, Row())
        row.times += times
        row.lost += verdict.lost
        row.doubled += verdict.doubled
        row.seconds += seconds
        if self.path:
            self.path.write_text(self.markdown())
        assert verdict == Verdict(0, 0), fault

    def markdown(self) -> str:
        """One line per fault."""
        head = "| fault | times | lost | doubled | seconds to resume |\n|---|---:|---:|---:|---:|\n"
        rows = (
            f"| {fault} | {r.times} | {r.lost} | {r.doubled} | {_median(r.seconds)} |\n"
            for fault, r in self.rows.items()
        )
        return head + "".join(rows)


def _median(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.1f}" if seconds else "–"


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[FaultTable]:
    """Of this run; printed, and written to `--fault-table`."""
    path = request.config.getoption("--fault-table", default=None)
    table = FaultTable(Path(path) if path else None)
    yield table
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and table.rows:
        reporter.write_line("\n" + table.markdown())


@pytest.fixture(scope="session")
def kills(request: pytest.FixtureRequest) -> int:
    """How often the driver is killed; few unless asked for by `--kills`."""
    return request.config.getoption("--kills", default=None) or 8


@pytest.fixture(scope="session")
def without_ray(request: pytest.FixtureRequest) -> int:
    """How often, at most, the driver without Ray is killed at transitions, and again at any time."""
    return 3 * (request.config.getoption("--kills", default=None) or 3)


@pytest.fixture
def study(tmp_path: Path) -> TinyStudy:
    """A tiny study that has not begun."""
    return TinyStudy(tmp_path / "studies" / "tiny")


@pytest.fixture
def small(tmp_path: Path) -> TinyStudy:
    """One trial and the paper's defaults: enough where the fault has nothing to do with their number."""
    return TinyStudy(tmp_path / "studies" / "small", ["study.confirm=null"], num_trials=1)
