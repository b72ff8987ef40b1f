"""Ray's folder is short, private, writable and on a disk with room, whatever TMPDIR says."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.search import ray_place
from synq_tune.search.ray_place import make_ray_place, plasma_folder
from synq_tune.study.doctor import examine
from synq_tune.study.files import place_prefix
from synq_tune.study.ledger import Ledger

SOCKET = "session_2026-11-28_19-18-28_724773_4194304/sockets/plasma_store"


@pytest.mark.parametrize("length", [0, 30, 90, 200])
def test_its_sockets_can_be_made_whatever_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """A long TMPDIR is left for a shorter folder."""
    folder = tmp_path / ("x" * length)
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    place = make_ray_place("sqt_12345678_")
    try:
        assert len(os.fsencode(place / SOCKET)) <= 107
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert list(place.iterdir()) == []
    finally:
        place.rmdir()


def test_each_reason_is_named_where_none_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too long, missing, too full."""
    folders = [tmp_path / ("x" * 90), tmp_path / "missing", Path("/tmp")]
    folders[0].mkdir()
    monkeypatch.setattr(ray_place, "ray_roots", lambda: folders)
    usage = ray_place.shutil.disk_usage
    monkeypatch.setattr(
        ray_place.shutil, "disk_usage",
        lambda path: SimpleNamespace(free=0) if path == Path("/tmp") else usage(path),
    )  # fmt: skip
    with pytest.raises(InputError) as error:
        make_ray_place("sqt_")
    for reason in ("too long for sockets", "No such file", "128 MiB are free", "Set TMPDIR"):
        assert reason in str(error.value)


@pytest.mark.parametrize(("free", "expected"), [(1 << 30, None), (64 << 20, "/place")])
def test_little_shared_memory_is_not_used(
    monkeypatch: pytest.MonkeyPatch, free: int, expected: str | None
) -> None:
    """Containers have 64 MiB of it by default."""
    monkeypatch.setattr(ray_place.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert plasma_folder(Path("/place"), 256 << 20) == expected


def test_missing_shared_memory_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a folder that is not there."""
    monkeypatch.setattr(ray_place, "_SHARED_MEMORY", Path("/nonexistent"))
    assert plasma_folder(Path("/place"), 1) == "/place"


def test_what_a_killed_driver_left_is_found(tmp_path: Path) -> None:
    """And mended by the doctor."""
    ledger = Ledger.create(tmp_path / "study", load_space("digits_w3a3"))
    place = make_ray_place(place_prefix(ledger.state))
    (found,) = (f for f in examine(ledger) if str(place) in f.text)
    assert found.mend is not None
    found.mend()
    assert not place.exists()
