"""What is found wrong with a study's folder, and what is mended from the ledger."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.study.doctor import LEFT, Finding, doctor_command, examine
from synq_tune.study.files import checkpoint_path, ray_prefix, state_path
from synq_tune.study.ledger import Ledger
from synq_tune.study.lock import study_lock
from synq_tune.study.places import place_options
from synq_tune.study.summary import write_summary

KEY, OPEN = "trial-0000", "trial-0001"


def _write(path: Path, data: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with an exported best, interrupted in its second trial, with nothing wrong."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / "study"
    ledger = Ledger.create(folder, load_space("digits_w3a3"))
    ledger.append("session", action="started", pid=1, host="here")
    for number, key in enumerate((KEY, OPEN)):
        fields = {"kind": "search", "number": number, "params": {"lr": 0.01 * (1 + number)}}
        ledger.append("proposed", key=key, seed=number, label="", **fields)
        ledger.append("started", key=key)
    metrics = {"top1": 90.0, "agreement": 80.0}
    ledger.append(
        "finished", key=KEY, state="completed", epochs_run=3, metrics=metrics, seconds=1.0,
        checkpoint_sha256=_write(checkpoint_path(folder, KEY), b"student"),
    )  # fmt: skip
    kept = _write(state_path(folder, OPEN, 2), b"training state")
    ledger.append("kept", key=OPEN, epoch=2, kept_sha256=kept)
    files = {"model.onnx": _write(folder / "best" / "model.onnx", b"onnx")}
    ledger.append("stage", name="best", data={
        "key": KEY, "number": 0, "params": {"lr": 0.01}, "metrics": metrics,
        "export_dir": str(folder / "best"), "files": files,
    })  # fmt: skip
    ledger.append("session", action="interrupted", pid=1, host="here")
    write_summary(ledger.state, folder)
    ledger.close()
    return folder


def _doctor(folder: Path, capsys: pytest.CaptureFixture[str], fix: bool = False) -> tuple[int, str]:
    code = doctor_command(folder, fix)
    return code, capsys.readouterr().out


def _die(folder: Path) -> None:
    Ledger.open(folder).append("session", action="started", pid=77, host="node-3")


def _tear(folder: Path) -> None:
    with open(folder / "ledger.jsonl", "ab") as file:
        file.write(b'{"event":"evalu')


def _flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "torn line": (_tear, "its last line was torn by a crash (15 bytes)"),
    "dead driver": (_die, "process 77 on node-3) died; unfinished runs: trial-0001"),
    "temporary file": (lambda f: _write(f / "best/.model.onnx.x.tmp", b"h"), "half-written"),
    "ray's folder": (
        lambda f: (f.parent / f"{ray_prefix(Ledger.open(f).state)}x").mkdir(), "left by Ray"),
    "unknown student": (lambda f: _write(checkpoint_path(f, "trial-0009"), b"s"), "no run needs it"),
    "older state": (lambda f: _write(state_path(f, OPEN, 1), b"s"), "no run needs it"),
    "damaged student": (lambda f: _flip(checkpoint_path(f, KEY)), "damaged; trained again if"),
    "damaged state": (lambda f: _flip(state_path(f, OPEN, 2)), "damaged; the run starts again"),
    "old summary": (lambda f: (f / "summary.json").write_text("{}"), "summary.json: out of date"),
    "no summary": (lambda f: (f / "summary.json").unlink(), "summary.json: missing"),
}  # fmt: skip


def test_a_study_with_nothing_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, and nothing is touched."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert _doctor(folder, capsys) == (0, f"{folder}: nothing is wrong\n")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_and_mended(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Looking changes nothing and ends with 3; --fix ends with 0, and a second look finds nothing."""
    break_it, text = FAULTS[name]
    break_it(folder)
    code, said = _doctor(folder, capsys)
    assert code == LEFT and text in said
    assert _doctor(folder, capsys) == (code, said)
    code, said = _doctor(folder, capsys, fix=True)
    assert code == 0 and said.startswith("mended: ") and text in said
    assert _doctor(folder, capsys) == (0, f"{folder}: nothing is wrong\n")


def test_the_line_that_mends_asks_the_same_tracking_store(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What this doctor was told goes on to the next one; a password does not."""
    (folder / "summary.json").unlink()
    options = place_options(tracking_uri="postgresql://me:s3cret@db/mlflow")
    doctor_command(folder, fix=False, options=options)
    line = f"{folder} --fix --tracking-uri postgresql://USER:PASSWORD@db/mlflow\n"
    assert capsys.readouterr().out.endswith(line)


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_damaged_export_is_left_to_resume(
    folder: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """The ledger cannot make a model; the line says what can."""
    path = folder / "best" / "model.onnx"
    _flip(path) if how == "damaged" else path.unlink()
    code, said = _doctor(folder, capsys, fix=True)
    assert code == LEFT
    assert f"best/model.onnx: {how}" in said and f"--resume {folder}" in said


def test_a_moved_folder_says_where_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path of the export is put right, in the ledger and in the summary."""
    moved = folder.rename(folder.with_name("moved"))
    code, said = _doctor(moved, capsys, fix=True)
    assert code == 0 and "but it is here" in said
    best = json.loads((moved / "summary.json").read_text())["best"]
    assert best["export_dir"] == str(moved / "best")


def test_mending_keeps_what_is_final(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ledger's whole lines stay byte for byte; mends are appended."""
    before = (folder / "ledger.jsonl").read_bytes()
    _die(folder)
    _tear(folder)
    _doctor(folder, capsys, fix=True)
    after = (folder / "ledger.jsonl").read_bytes()
    assert after.startswith(before)
    assert Ledger.open(folder).state.runs[KEY].state == "completed"


def test_a_study_at_work_is_left_alone(folder: Path) -> None:
    """What looks wrong while a driver works is its work in progress."""
    with study_lock(folder), pytest.raises(InputError, match=f"process {os.getpid()}"):
        doctor_command(folder, fix=True)


def test_other_projections_are_asked(folder: Path) -> None:
    """MLflow's findings stand among the others."""
    finding = Finding("MLflow has no run of trial-0000")
    assert examine(Ledger.open(folder), (lambda ledger: [finding],)) == [finding]


def test_a_summary_of_an_older_version_is_no_damage(folder: Path) -> None:
    """It lacks keys that were added since."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    del summary["finalists"]
    path.write_text(json.dumps(summary))
    assert not [
        found for found in examine(Ledger.open(folder, read_only=True)) if "summary" in str(found)
    ]
    path.write_text(json.dumps(summary | {"seed": 99}))
    assert [
        found for found in examine(Ledger.open(folder, read_only=True)) if "summary" in str(found)
    ]
