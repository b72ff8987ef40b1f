"""A study knows where its dataset and its runs in MLflow are, also after it was moved."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
from pathlib import Path

import pytest

from synq_tune.commands.search import resume_line
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.study.ledger import Ledger
from synq_tune.study.places import remember_places, store_of, tracking_of, tracking_path
from synq_tune.study.stages import Dataset, Tracking

SECRET = "postgresql://me:s3cret@db/mlflow"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(tmp_path / "studies" / "a", load_space("digits_w3a3"))


def _again(ledger: Ledger) -> Ledger:
    ledger.close()
    return Ledger.open(ledger.folder)


def test_what_was_given_once_need_not_be_given_again(ledger: Ledger, tmp_path: Path) -> None:
    """Store and tracking store come from the ledger; a relative path is made absolute."""
    store = remember_places(ledger, str(tmp_path / "my store"), "sqlite:///runs.db")
    again = _again(ledger)
    assert remember_places(again, None, None) == store == tmp_path / "my store"
    assert tracking_of(again.state, again.folder) == f"sqlite:///{Path('runs.db').absolute()}"


def test_flags_win_and_are_remembered(ledger: Ledger, tmp_path: Path) -> None:
    """A store may move."""
    remember_places(ledger, str(tmp_path / "old"), "sqlite:////old/mlflow.db")
    remember_places(ledger, str(tmp_path / "new"), None)
    again = _again(ledger)
    assert store_of(again.state) == tmp_path / "new"
    assert tracking_of(again.state, again.folder) == "sqlite:////old/mlflow.db"


def test_nothing_is_written_twice(ledger: Ledger, tmp_path: Path) -> None:
    """A driver that is told nothing new adds no line."""
    remember_places(ledger, str(tmp_path / "store"), None)
    before = ledger.path.read_bytes()
    remember_places(ledger, None, None)
    assert ledger.path.read_bytes() == before


def test_passwords_are_not_remembered(ledger: Ledger, tmp_path: Path) -> None:
    """Neither in the ledger nor in the line that is printed, which says where it goes."""
    remember_places(ledger, str(tmp_path), SECRET)
    assert "s3cret" not in ledger.path.read_text()
    line = resume_line(ledger.folder, _arguments(tracking_uri=SECRET))
    assert "s3cret" not in line and "postgresql://USER:PASSWORD@db/mlflow" in line


def test_the_default_moves_with_the_study(ledger: Ledger, tmp_path: Path) -> None:
    """MLflow's file is beside the study, wherever that is now."""
    remember_places(ledger, str(tmp_path / "store"), None)
    ledger.record(Tracking(f"sqlite:///{tmp_path}/studies/mlflow.db"))
    ledger.close()
    shutil.move(tmp_path / "studies", tmp_path / "moved")
    there = Ledger.open(tmp_path / "moved" / "a")
    assert tracking_of(there.state, there.folder) is None
    assert tracking_path(there.state, there.folder) == tmp_path / "moved" / "mlflow.db"
    assert store_of(there.state) == tmp_path / "store"


@pytest.mark.parametrize("is_moved", [False, True])
def test_older_ledgers_are_understood(ledger: Ledger, tmp_path: Path, is_moved: bool) -> None:
    """Those that name the dataset and MLflow's address only."""
    ledger.record(Dataset(str(tmp_path / "store/datasets/abc"), "0", 8, 4, "synq"))
    ledger.record(Tracking(f"sqlite:///{tmp_path}/studies/mlflow.db"))
    ledger.close()
    folder = ledger.folder
    if is_moved:
        folder = shutil.move(tmp_path / "studies", tmp_path / "moved") / "a"
    old = Ledger.open(folder)
    assert remember_places(old, None, None) == tmp_path / "store"
    assert tracking_of(old.state, folder) is None


def test_a_store_of_its_own_database_is_no_default(ledger: Ledger, tmp_path: Path) -> None:
    """What was asked for by name stays, in an older ledger too, as long as it is there."""
    other = tmp_path / "other" / "mlflow.db"
    other.parent.mkdir()
    other.touch()
    ledger.record(Tracking(f"sqlite:///{other}"))
    assert tracking_of(ledger.state, ledger.folder) == f"sqlite:///{other}"


@pytest.mark.parametrize("path", ["relative", "/a/../../etc", "/a/..", "", None])
def test_a_ledger_leads_nowhere_else(ledger: Ledger, path: str | None) -> None:
    """Its store is written to: a path that climbs is refused."""
    ledger.append("stage", name="places", data={"store": path, "tracking_uri": None})
    with pytest.raises(InputError, match="the store is an absolute path"):
        _again(ledger)


def _arguments(**given: object) -> argparse.Namespace:
    names = ("resume", "ray_address", "tracking_uri", "max_concurrent", "gpus_per_trial")
    return argparse.Namespace(**dict.fromkeys([*names, "max_hours"]) | given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"ray_address": "head:6379"}, ["--ray-address", "head:6379"]),
        ({"store": "my store"}, ["--store", os.path.abspath("my store")]),
        (
            {"tracking_uri": "sqlite:///runs.db"},
            ["--tracking-uri", f"sqlite:///{os.path.abspath('runs.db')}"],
        ),
        ({"max_concurrent": 2}, []),
        ({"resume": "x", "max_concurrent": 2}, ["--max-concurrent", "2"]),
        (
            {"resume": "x", "gpus_per_trial": 0.5, "max_hours": 1.5},
            ["--gpus-per-trial", "0.5", "--max-hours", "1.5"],
        ),
    ],
)
def test_the_line_repeats_what_this_driver_was_told(
    given: dict[str, object], expected: list[str]
) -> None:
    """And what was given for places, absolute; any character of a path survives the shell."""
    folder = "/x/it's a; $study"
    words = shlex.split(resume_line(Path(folder), _arguments(**given)))
    assert words[-len(expected) - 2 :] == ["--resume", folder, *expected]
