"""The ledger survives what kills a study, and refuses what it cannot trust."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.study.ledger import LEDGER_NAME, Ledger, encode_record
from synq_tune.study.lock import study_lock
from synq_tune.study.stages import Teacher


def propose(ledger: Ledger, number: int) -> str:
    key = f"trial-{number:04d}"
    ledger.append(
        "proposed", key=key, kind="search", number=number, params={"lr": 0.01}, seed=number
    )
    return key


def run(ledger: Ledger, number: int, top1: float = 90.0) -> str:
    key = propose(ledger, number)
    ledger.append("started", key=key)
    ledger.append("evaluated", key=key, epoch=24, metrics={"top1": top1}, losses={"total": 0.5})
    ledger.append(
        "finished", key=key, state="completed", metrics={}, epochs_run=24, seconds=1.5, error=None
    )
    return key


def damage(path: Path, line: int, offset: int) -> None:
    """Flip one bit in a line (from 1), `offset` bytes after its start."""
    data = bytearray(path.read_bytes())
    start = sum(len(text) + 1 for text in bytes(data).split(b"\n")[: line - 1])
    data[start + offset] ^= 1
    path.write_bytes(data)


def test_replay_equals_live_state(ledger: Ledger) -> None:
    """The state kept while appending is the state a replay finds."""
    run(ledger, 0)
    run(ledger, 1, top1=91.5)
    ledger.record(Teacher("net", "ab", top1=97.0))
    assert ledger.replay() == ledger.state
    assert Ledger.open(ledger.folder).state == ledger.state


def test_spec_comes_back_equal(ledger: Ledger, spec: StudySpec) -> None:
    """A header holds the whole study."""
    assert Ledger.open(ledger.folder).state.spec == spec


def test_header_records_versions_and_info(tmp_path: Path, spec: StudySpec) -> None:
    """The header says which packages made it, and what the caller adds."""
    header = Ledger.create(tmp_path / "s", spec, command="search").state.header
    assert header["command"] == "search"
    assert {"optuna", "ray", "torch", "mlflow"} <= set(header["created_by"])


def test_lines_are_plain_json(ledger: Ledger) -> None:
    """Anyone can read a ledger with any JSON tool."""
    run(ledger, 0)
    events = [json.loads(line)["event"] for line in ledger.path.read_text().splitlines()]
    assert events == ["header", "proposed", "started", "evaluated", "finished"]


def test_same_study_is_opened_again(ledger: Ledger, spec: StudySpec) -> None:
    """Creating the study that is there continues it."""
    run(ledger, 0)
    assert list(Ledger.create(ledger.folder, spec).state.runs) == ["trial-0000"]


def test_other_study_is_refused(ledger: Ledger) -> None:
    """Two studies never share a folder."""
    with pytest.raises(InputError, match="belongs to another study"):
        Ledger.create(ledger.folder, load_space("digits_w4a4"))


def test_foreign_files_are_refused(tmp_path: Path, spec: StudySpec) -> None:
    """A study never mixes with files of something else."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="thesis.tex"):
        Ledger.create(tmp_path, spec)


def test_leftovers_of_a_killed_create_are_no_obstacle(tmp_path: Path, spec: StudySpec) -> None:
    """A driver killed before its header was whole can be started again in the same folder."""
    (tmp_path / f".{LEDGER_NAME}.x1.tmp").write_text("{")
    (tmp_path / "lock").touch()
    assert Ledger.create(tmp_path, spec).state.runs == {}


def test_folder_without_ledger_is_refused(tmp_path: Path) -> None:
    """Opening something that is no study says so."""
    with pytest.raises(InputError, match="no ledger.jsonl"):
        Ledger.open(tmp_path)


def test_discard_leaves_room_for_a_new_study(ledger: Ledger) -> None:
    """After a discarded study another one may take the folder."""
    ledger.discard()
    assert Ledger.create(ledger.folder, load_space("digits_w4a4")).state.spec.bits.weights == 4


@pytest.mark.parametrize("lost", [1, 2, 30, 80])
def test_torn_last_line_is_dropped(ledger: Ledger, lost: int) -> None:
    """A line cut by a crash never happened; the ledger goes on after the one before."""
    run(ledger, 0)
    before = ledger.replay()
    propose(ledger, 1)
    ledger.close()
    os.truncate(ledger.path, ledger.path.stat().st_size - lost)
    again = Ledger.open(ledger.folder)
    assert again.state.runs == before.runs
    run(again, 1)
    assert Ledger.open(ledger.folder).state == again.state


def test_zeros_after_a_power_cut_are_dropped(ledger: Ledger) -> None:
    """A file system may leave zeros where the last line was to stand."""
    run(ledger, 0)
    with open(ledger.path, "ab") as file:
        file.write(bytes(200))
    again = Ledger.open(ledger.folder)
    propose(again, 1)
    assert list(again.replay().runs) == ["trial-0000", "trial-0001"]


def test_reading_changes_no_byte(ledger: Ledger) -> None:
    """Looking at a study whose driver is mid-write leaves its half line alone."""
    run(ledger, 0)
    with open(ledger.path, "ab") as file:
        file.write(b'{"event":"prop')
    before = ledger.path.read_bytes()
    looked = Ledger.open(ledger.folder, read_only=True)
    assert ledger.path.read_bytes() == before
    with pytest.raises(RuntimeError, match="open for writing"):
        looked.append("stage", name="x", data={})


@pytest.mark.parametrize("offset", [0, 12, 60])
def test_flipped_byte_in_the_middle_names_the_line(ledger: Ledger, offset: int) -> None:
    """Damage that no crash makes is reported, not skipped."""
    run(ledger, 0)
    damage(ledger.path, line=3, offset=offset)
    with pytest.raises(InputError, match="line 3 of 5 is damaged"):
        Ledger.open(ledger.folder)


def test_damaged_header_is_refused(ledger: Ledger) -> None:
    """Without its header a ledger says nothing."""
    damage(ledger.path, line=1, offset=40)
    with pytest.raises(InputError, match="line 1"):
        Ledger.open(ledger.folder)


def rewrite_header(ledger: Ledger, **changes: object) -> None:
    header = {**ledger.state.header, **changes}
    ledger.path.write_bytes(encode_record({k: v for k, v in header.items() if k != "crc"}))


def test_other_format_is_refused(ledger: Ledger) -> None:
    """A ledger of another format is not guessed at."""
    rewrite_header(ledger, format=2)
    with pytest.raises(InputError, match="format=2"):
        Ledger.open(ledger.folder)


def test_other_optuna_major_is_refused_for_writing_only(ledger: Ledger) -> None:
    """Another major version of Optuna proposes otherwise; looking is still possible."""
    rewrite_header(ledger, created_by={"optuna": "3.6.1"})
    with pytest.raises(InputError, match=r"optuna==3\.6\.1"):
        Ledger.open(ledger.folder)
    assert Ledger.open(ledger.folder, read_only=True).state.runs == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(ledger: Ledger, value: float) -> None:
    """NaN is no JSON; nothing is written."""
    key = propose(ledger, 0)
    size = ledger.path.stat().st_size
    with pytest.raises(ValueError, match="finite"):
        ledger.append("evaluated", key=key, epoch=1, metrics={"top1": value}, losses={})
    assert ledger.path.stat().st_size == size
    assert ledger.state.runs[key].history == []


def test_events_after_the_end_are_refused_before_they_are_written(ledger: Ledger) -> None:
    """A finished run cannot start again, neither in memory nor on disk."""
    key = run(ledger, 0)
    size = ledger.path.stat().st_size
    with pytest.raises(RuntimeError, match="completed"):
        ledger.append("started", key=key)
    assert ledger.path.stat().st_size == size


def test_full_disk_leaves_no_half_line(ledger: Ledger) -> None:
    """When the disk refuses, nothing is recorded and the next append works."""
    import resource

    run(ledger, 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(OSError):
            propose(ledger, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(ledger.replay().runs) == ["trial-0000"]
    propose(ledger, 1)
    assert ledger.replay() == ledger.state


def test_second_writer_is_noticed(ledger: Ledger) -> None:
    """A process that writes without the lock stops before it destroys anything."""
    other = Ledger.open(ledger.folder)
    propose(ledger, 0)
    with pytest.raises(RuntimeError, match="one process writes"):
        propose(other, 0)


def test_runs_of_a_dead_driver_are_interrupted(ledger: Ledger) -> None:
    """What a dead driver left running keeps its key, params and seed, to be run again."""
    key = propose(ledger, 7)
    ledger.append("started", key=key)
    left = Ledger.open(ledger.folder).state.runs[key]
    assert (left.state, left.params, left.seed) == ("interrupted", {"lr": 0.01}, 7)


def test_runs_of_a_live_driver_are_running(ledger: Ledger) -> None:
    """Somebody who only looks sees what runs."""
    key = propose(ledger, 0)
    ledger.append("started", key=key)
    with study_lock(ledger.folder):
        assert Ledger.open(ledger.folder, read_only=True).state.runs[key].state == "running"


APPENDER = """
import sys
from pathlib import Path
from synq_tune.config.load import load_space
from synq_tune.study.ledger import Ledger
ledger = Ledger.create(Path(sys.argv[1]), load_space("digits_w3a3"))
for number in range(100_000):
    key = f"trial-{number:04d}"
    ledger.append("proposed", key=key, kind="search", number=number, params={"i": number}, seed=1)
    ledger.append("started", key=key)
    ledger.append("finished", key=key, state="completed", metrics={"top1": 1.0}, epochs_run=1)
    print(number, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 40])
def test_kill_leaves_a_prefix(tmp_path: Path, acknowledged: int) -> None:
    """After kill -9 in the middle of appends every acknowledged run is there, in order."""
    folder = tmp_path / "study"
    process = subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(acknowledged):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    tail = process.stdout.read().split("\n")
    process.wait()
    last = max([acknowledged - 1, *(int(line) for line in tail[:-1])])
    ledger = Ledger.open(folder)
    runs = list(ledger.state.runs.values())
    assert [r.number for r in runs] == list(range(len(runs)))
    assert len(runs) > last and all(r.state == "completed" for r in runs[: last + 1])
    run(ledger, len(runs))


def test_thousands_of_runs_open_quickly(tmp_path: Path, spec: StudySpec) -> None:
    """A restart is not slowed down by a long history."""
    ledger = Ledger.create(tmp_path / "study", spec)
    lines = []
    for number in range(2000):
        key = f"trial-{number:04d}"
        common = {"at": 1.0, "key": key}
        lines += [
            {"event": "proposed", "kind": "search", "number": number, "params": {}, "seed": 0}
            | common,
            {"event": "started"} | common,
            {"event": "evaluated", "epoch": 1, "metrics": {"top1": 1.0}} | common,
            {"event": "finished", "state": "completed", "metrics": {}} | common,
        ]
    with open(ledger.path, "ab") as file:
        file.writelines(map(encode_record, lines))
    start = time.process_time()
    assert len(Ledger.open(ledger.folder).state.runs) == 2000
    assert time.process_time() - start < 2.0


def test_header_needs_no_heavy_import(tmp_path: Path) -> None:
    """A study's header is on disk before torch, Ray, Optuna or MLflow is imported."""
    code = (
        "import sys; from pathlib import Path; from synq_tune.config.load import load_space;"
        "from synq_tune.study.ledger import Ledger;"
        "Ledger.create(Path(sys.argv[1]), load_space('digits_w3a3'));"
        "print([m for m in ('torch', 'ray', 'optuna', 'mlflow') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "study")]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "[]"


def test_an_event_is_on_the_disk_before_it_counts(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced with the whole line in it, and only then is the state another: a machine
    that loses its power has lost nothing that anybody was told."""
    seen: list[tuple[bytes, int]] = []
    fsync = os.fsync

    def synced(file: int) -> None:
        seen.append((ledger.path.read_bytes(), len(ledger.state.sessions)))
        fsync(file)

    monkeypatch.setattr(os, "fsync", synced)
    before = len(ledger.state.sessions)
    ledger.append("session", action="started")
    ((content, known),) = seen
    assert json.loads(content.splitlines()[-1])["action"] == "started"
    assert (known, len(ledger.state.sessions)) == (before, before + 1)


def test_only_the_last_line_can_be_torn(ledger: Ledger) -> None:
    """Damage in the one before it is damage, however near the end."""
    run(ledger, 0)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    lines[-2] = lines[-2].replace(b'"crc":"', b'"crc":"0')
    ledger.path.write_bytes(b"".join(lines))
    with pytest.raises(InputError, match=f"line {len(lines) - 1} of {len(lines)} is damaged"):
        Ledger.open(ledger.folder)
