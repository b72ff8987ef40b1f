"""A study ends with its page, which goes to MLflow too and can spoil nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from synq_tune.process.signals import Interrupts
from synq_tune.report import page
from synq_tune.report.material import Material
from synq_tune.report.sections.export import snippet
from synq_tune.search.driver import Options, StudyDriver
from synq_tune.search.importances import parameter_importances
from synq_tune.search.reporting import without_failing, write_and_log
from synq_tune.study.ledger import Ledger
from tests.report.studies import Page, add_trials, begun, repeat


class Store:
    """A tracking store that keeps what it is given."""

    def __init__(self, may_log_images: bool = True) -> None:
        self.may_log_images = may_log_images
        self.pages: list[str] = []
        self.ended: list[str] = []

    def log_report(self, path: Path) -> None:
        """Keep the page's text."""
        assert path.name == "report.html"
        self.pages.append(path.read_text("utf-8"))

    def sync(self, *_: Any) -> None:
        """Nothing to keep."""

    def finish(self, status: str) -> None:
        """Keep the status."""
        self.ended.append(status)


@pytest.fixture
def study(tmp_path: Path) -> Ledger:
    """A study of five trials that goes on."""
    ledger = begun(tmp_path / "study")
    add_trials(ledger, 5)
    repeat(ledger, 0, 96.0)
    return ledger


def _driver(ledger: Ledger, store: Store) -> StudyDriver:
    driver = StudyDriver(ledger, Options(ledger.folder, ledger.folder / "store"), Interrupts())
    driver.tracked = store
    return driver


def test_a_search_ends_with_its_page(finished: tuple[Path, str]) -> None:
    """In the study's folder, said where, and the same bytes in MLflow."""
    folder, out = finished
    path = folder / "report.html"
    assert f"report    {path}" in out
    client = mlflow.MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "synq-tune"]
    (parent,) = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.runName` = '{folder.name}'"
    )
    logged = client.download_artifacts(parent.info.run_id, "report/report.html")
    assert Path(logged).read_bytes() == path.read_bytes()
    text = Page(path.read_text("utf-8")).text
    assert "The study has not ended" not in text and "the best found" in text
    assert "Time per image" in text and "This part is left out" not in text


def test_the_snippet_runs_the_exported_model(finished: tuple[Path, str]) -> None:
    """As the page shows it, in the study's folder: the classes of the golden images."""
    folder = finished[0]
    path = folder / "report.html"
    code = snippet()
    assert code.splitlines()[-1] in path.read_text("utf-8").replace("&#39;", "'")
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    logits = np.load(folder / "best" / "golden.npz")["logits"]
    assert ran.stdout.strip("[]\n ").split() == [str(n) for n in logits.argmax(1)]


def test_an_interrupted_search_leaves_its_page(study: Ledger) -> None:
    """At once: importances, which take seconds, are left to the command that it names."""
    study.append("session", action="interrupted", pid=1, host="here")
    store = Store()
    driver = _driver(study, store)
    driver.show_interrupted()
    text = Page(driver.report.read_text("utf-8")).text
    assert "The study was interrupted." in text and "report.py" in text and "n = " not in text
    assert len(store.pages) == 1 and store.ended == ["KILLED"]


def test_a_page_that_fails_spoils_nothing(
    study: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, the traceback in the study's error log, and the study ends as it would."""

    def broken(*_: Any) -> bytes:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(page, "render", broken)
    store = Store()
    driver = _driver(study, store)
    driver.show_interrupted()
    log = study.folder / "errors" / "report.log"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "no such luck" in said[0] and str(log) in said[0]
    assert "Traceback" in log.read_text() and driver.report is None
    assert store.ended == ["KILLED"]


def test_a_signal_is_not_swallowed(tmp_path: Path) -> None:
    """Ctrl+C while the page is written ends the program."""

    def interrupted() -> Path:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        without_failing(interrupted, tmp_path)


@pytest.mark.parametrize("may_log_images", [True, False])
def test_a_store_elsewhere_gets_a_page_of_its_own(study: Ledger, may_log_images: bool) -> None:
    """It is the page of the folder only where images may go."""
    store = Store(may_log_images)
    path = write_and_log(Material(study.state, study.folder), store)
    assert len(store.pages) == 1
    assert path == study.folder / "report.html" and path.is_file()


def test_importances_are_shares(study: Ledger, tmp_path: Path) -> None:
    """They are of the searched parameters and add up to one; there are none where nothing varies."""
    found = parameter_importances(study.state)
    assert set(found) == set(study.state.spec.search)
    assert sum(found.values()) == pytest.approx(1.0) and min(found.values()) >= 0
    alone = begun(tmp_path / "alone")
    add_trials(alone, 1)
    assert parameter_importances(alone.state) == {}
