"""No name in a file we read leads out of the folder that the file is about."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from synq_tune.config.load import load_space
from synq_tune.errors import InputError, SearchSpaceError
from synq_tune.study.ledger import LEDGER_NAME, Ledger
from synq_tune.tracking import default_tracking_uri, download_exported
from tests.security.conftest import ROOT

PROPOSED = {"event": "proposed", "at": 1.0, "key": "trial-0000", "kind": "search", "number": 0,
            "params": {}, "seed": 1, "label": ""}  # fmt: skip
STARTED = {"event": "started", "at": 2.0, "key": "trial-0000"}
KEPT = {"event": "kept", "at": 3.0, "key": "trial-0000", "kept_sha256": "0" * 64}


def _stage(name: str, **data: Any) -> dict[str, Any]:
    return {"event": "stage", "at": 2.0, "name": name, "data": data}


HOSTILE = {
    "key above": [{**PROPOSED, "key": "../../trial-0000"}],
    "key absolute": [{**PROPOSED, "key": "/tmp/trial-0000"}],
    "key hidden": [{**PROPOSED, "key": ".."}],
    "epoch": [PROPOSED, STARTED, {**KEPT, "epoch": "1/../../../x"}],
    "best above": [_stage("best", key="trial-0000", files={"../../x": "0" * 64})],
    "best absolute": [_stage("best", key="trial-0000", files={"/etc/hostname": "0" * 64})],
    "dataset above": [_stage("dataset", path="/store/datasets/../../home/datasets/x")],
    "dataset relative": [_stage("dataset", path="../store/datasets/x")],
    "dataset elsewhere": [_stage("dataset", path="/home/ann")],
}
"""What somebody may write into a ledger, with its checksum."""


def _line(record: dict[str, Any]) -> str:
    text = json.dumps(record, separators=(",", ":"))
    return f'{text[:-1]},"crc":"{zlib.crc32(text.encode()):08x}"}}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study that has not begun."""
    Ledger.create(tmp_path / "study", load_space("digits_w3a3")).close()
    return tmp_path / "study"


def test_a_ledgers_own_names_are_plain(folder: Path) -> None:
    """What a driver writes is read back."""
    with open(folder / LEDGER_NAME, "a") as file:
        for record in (
            PROPOSED, STARTED, {**KEPT, "epoch": 1},
            _stage(
                "dataset", path="/a/.cache/b/datasets/0123456789abcdef", sha256="0" * 64,
                num_images=8, num_holdout=4, method="synq",
            ),
            _stage(
                "best", key="trial-0000", number=0, params={}, metrics={}, export_dir="/a/best",
                files={"model.packed.safetensors": "0" * 64},
            ),
        ):  # fmt: skip
            file.write(_line(record))
    state = Ledger.open(folder).state
    assert state.runs["trial-0000"].kept_epoch == 1 and state.stages.dataset and state.stages.best


@pytest.mark.parametrize("events", HOSTILE.values(), ids=HOSTILE)
def test_a_ledger_cannot_name_other_places(folder: Path, events: list[dict[str, Any]]) -> None:
    """Keys, epochs, exported files and the dataset become paths: the line is named and refused."""
    with open(folder / LEDGER_NAME, "a") as file:
        file.writelines(_line(record) for record in events)
    with pytest.raises(InputError, match=rf"{LEDGER_NAME}, line {1 + len(events)}: "):
        Ledger.open(folder)


@pytest.mark.parametrize("id_", ["../../home", "*", "/", ""])
def test_a_header_cannot_name_other_places(folder: Path, id_: str) -> None:
    """Ray's left-over folders of a study are found by its id, and deleted."""
    header = json.loads((folder / LEDGER_NAME).read_text())
    del header["crc"]
    (folder / LEDGER_NAME).write_text(_line({**header, "id": id_}))
    with pytest.raises(InputError, match="id is a plain name"):
        Ledger.open(folder)


def test_the_user_gets_one_line(folder: Path) -> None:
    """Exit code 2, no traceback."""
    with open(folder / LEDGER_NAME, "a") as file:
        file.writelines(map(_line, HOSTILE["key above"]))
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/search.py"), "--resume", str(folder)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "'../../trial-0000'" in done.stderr


@pytest.mark.parametrize("name", ["../x", "/x", ".x", "a/b"])
def test_a_space_cannot_name_a_folder_elsewhere(name: str) -> None:
    """Its name is the beginning of the study's folder."""
    with pytest.raises(SearchSpaceError, match="name"):
        load_space("digits_w3a3", [f"name={name}"])


@pytest.mark.parametrize("run", ["../../etc/passwd", "/etc/passwd", ""])
def test_a_run_id_is_no_path(tmp_path: Path, run: str) -> None:
    """MLflow has no such run; nothing is written."""
    uri = default_tracking_uri(tmp_path / "study")
    with pytest.raises(InputError, match="the run exists"):
        download_exported(uri, run, "onnx", tmp_path / "out" / "here")
    assert not (tmp_path / "out").exists()
