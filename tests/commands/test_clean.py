"""What the store holds, who uses it, and what may go."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import clean  # noqa: E402

from synq_tune.commands.clean import chosen, delete, entries
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.study.ledger import Ledger
from synq_tune.study.lock import study_lock
from synq_tune.study.stages import Dataset

DAY = 86400


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two datasets, one of them 40 days old, and views of one."""
    store = tmp_path / "store"
    for name, size, age in (("new", 3000, 0), ("old", 2000, 40)):
        folder = store / "datasets" / name
        folder.mkdir(parents=True)
        (folder / "images.safetensors").write_bytes(bytes(size))
        (folder.parent / f"{name}.lock").touch()
        then = time.time() - age * DAY
        for path in (folder / "images.safetensors", folder):
            os.utime(path, (then, then))
    (store / "views").mkdir()
    (store / "views" / "abc.safetensors").write_bytes(bytes(1000))
    return store


@pytest.fixture
def studies(tmp_path: Path, store: Path) -> Path:
    """One study, made from the old dataset."""
    ledger = Ledger.create(tmp_path / "studies" / "mine", load_space("digits_w3a3"))
    ledger.record(Dataset(str(store / "datasets" / "old"), "0", 8, 4, "synq"))
    ledger.close()
    return tmp_path / "studies"


def _run(store: Path, studies: Path, *arguments: str) -> int:
    return clean.main(["--store", str(store), "--studies", str(studies), *arguments])


def test_sizes_ages_and_users_are_shown(store: Path, studies: Path) -> None:
    """Largest first; locks are no entries."""
    found = entries(store, studies)
    assert [(e.name, e.size, round(e.age), e.studies) for e in found] == [
        ("datasets/new", 3000, 0, ()),
        ("datasets/old", 2000, 40, ("mine",)),
        ("views/abc", 1000, 0, ()),
    ]


def test_showing_deletes_nothing(
    store: Path, studies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --delete the command only looks."""
    before = sorted(store.rglob("*"))
    assert _run(store, studies, "--older-than", "30") == 0
    assert sorted(store.rglob("*")) == before
    out = capsys.readouterr().out
    assert "datasets/old" in out and "mine" in out and "datasets/new" not in out


def test_old_and_named_things_go(store: Path, studies: Path) -> None:
    """By age, then by name; the rest stays."""
    _run(store, studies, "--older-than", "30", "--delete")
    assert [e.name for e in entries(store, studies)] == ["datasets/new", "views/abc"]
    _run(store, studies, "--name", "views/*", "--delete")
    assert [e.name for e in entries(store, studies)] == ["datasets/new"]
    assert not (store / "datasets" / "old.lock").exists()


def test_what_a_live_study_may_read_stays(store: Path, studies: Path) -> None:
    """Its dataset, and everything that may be made from it; other datasets may go."""
    with study_lock(studies / "mine"):
        _run(store, studies, "--name", "*", "--delete")
        found = entries(store, studies)
        assert [e.name for e in found] == ["datasets/old", "views/abc"]
        with pytest.raises(InputError, match="a study at work"):
            delete(found[0])


def test_a_live_study_without_a_dataset_keeps_all(store: Path, tmp_path: Path) -> None:
    """It may be about to read any of them."""
    studies = tmp_path / "others"
    Ledger.create(studies / "young", load_space("digits_w3a3")).close()
    with study_lock(studies / "young"):
        assert all(entry.is_in_use for entry in entries(store, studies))


def test_a_name_that_matches_nothing_is_refused(store: Path, studies: Path) -> None:
    """A slip of the pen deletes nothing and says so."""
    with pytest.raises(InputError, match="datasets/nwe"):
        chosen(entries(store, studies), None, ["datasets/nwe"])


def test_a_missing_store_is_refused(tmp_path: Path) -> None:
    """One line instead of an empty table."""
    with pytest.raises(InputError, match="the store is a folder"):
        entries(tmp_path / "nowhere", tmp_path)
