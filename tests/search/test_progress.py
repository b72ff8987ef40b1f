"""Training states on their way to the driver, beside the ledger, and back to a worker."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray import cloudpickle
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial

from synq_tune.config.load import load_space
from synq_tune.finetune.training_state import FORMAT, tensor_bytes
from synq_tune.search.payload import Payload
from synq_tune.search.progress import keep_state, load_state
from synq_tune.search.tune_adapter import MAX_ATTEMPTS, LedgerCallback
from synq_tune.study.files import checkpoint_path, prune, state_files, state_path
from synq_tune.study.ledger import Ledger

KEY = "trial-0000"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A study with one run."""
    ledger = Ledger.create(tmp_path / "study", load_space("digits_w3a3"))
    ledger.append("proposed", key=KEY, kind="search", number=0, params={}, seed=1, label="")
    return ledger


@pytest.fixture
def callback(ledger: Ledger) -> LedgerCallback:
    return LedgerCallback(ledger, lambda key: None)


def _state(value: float) -> bytes:
    return tensor_bytes({"x": torch.full((4,), value)}, {"format": FORMAT, "value": value})


def _start(callback: LedgerCallback, epoch: int = 0) -> None:
    callback.on_trial_start(0, [], _tune_trial(epoch))


def _tune_trial(epoch: int = 0, error_file: Path | None = None) -> SimpleNamespace:
    run = {"key": KEY, "epoch": epoch}
    return SimpleNamespace(config={"run": run}, pickled_error_file=error_file)


def _raising(error: Exception, folder: Path) -> SimpleNamespace:
    """A trial of Tune that ended with an error, which lies where Tune puts it."""
    path = folder / "error.pkl"
    path.write_bytes(cloudpickle.dumps(error))
    return _tune_trial(error_file=path)


def _report(callback: LedgerCallback, epoch: int, **fields: Any) -> dict[str, Any]:
    """A result as Tune hands it to callbacks, after its trip from the worker."""
    result = {"epoch": epoch, "seconds": 1.0, "payload": Payload(_state(epoch)), **fields}
    result = pickle.loads(pickle.dumps(result, protocol=5))
    callback.on_trial_result(0, [], _tune_trial(), result)
    return result


def _evaluation(top1: float) -> dict[str, Any]:
    return {"metrics": {"top1": top1}, "losses": {"total": 1.0}, "partial": False}


def test_the_ledger_names_the_state_a_run_goes_on_from(
    ledger: Ledger, callback: LedgerCallback
) -> None:
    """After each evaluated or kept epoch the last state is there, and no other."""
    _start(callback)
    _report(callback, 1, **_evaluation(50.0))
    _report(callback, 2)
    run = Ledger.open(ledger.folder).state.runs[KEY]
    assert (run.kept_epoch, run.epochs_run) == (2, 2)
    assert [entry["epoch"] for entry in run.history] == [1]
    assert run.kept_sha256 == hashlib.sha256(_state(2)).hexdigest()
    assert load_state(ledger.folder, run) == _state(2)
    assert set(state_files(ledger.folder).values()) == {(KEY, 2)}


def test_losses_of_epochs_that_nobody_evaluated_are_in_the_ledger(
    ledger: Ledger, callback: LedgerCallback
) -> None:
    """What the file gives back is what the driver had in memory, digest for digest."""
    earlier = {str(epoch): {"total": 1.0 / epoch} for epoch in range(1, 12)}
    _start(callback)
    _report(callback, 12, **_evaluation(50.0), earlier=earlier)
    _report(callback, 13, **_evaluation(51.0), earlier={})
    read = Ledger.open(ledger.folder, read_only=True).state.runs[KEY].history
    assert read == ledger.state.runs[KEY].history
    assert [entry.get("earlier") for entry in read] == [earlier, None]


def test_a_result_that_tune_keeps_weighs_nothing(ledger: Ledger, callback: LedgerCallback) -> None:
    """Tune holds every trial's last result in memory and prints it into unread messages."""
    _start(callback)
    result = _report(callback, 1, **_evaluation(50.0))
    assert result["payload"].take() is None
    assert len(repr(Payload(bytes(10**6)))) < 40


def test_tunes_statistics_of_a_finished_run_are_let_go(callback: LedgerCallback) -> None:
    """Tune keeps every trial of a round; of a finished one its last result is enough."""
    trial = Trial("worker", config={"run": {"key": KEY}}, stub=True)
    before = len(trial.run_metadata.get_json_state())
    numbers = {f"loss {i}": float(i) for i in range(10)}
    trial.update_last_result({"losses": numbers, "done": True})
    assert len(trial.metric_analysis) >= 10
    callback.on_trial_complete(0, [trial], trial)
    assert trial.metric_analysis == trial.metric_n_steps == {}
    assert trial.last_result["losses"] == numbers
    assert len(trial.run_metadata.get_json_state()) < before + 1000


def test_killed_between_file_and_ledger_the_state_before_counts(
    ledger: Ledger, callback: LedgerCallback
) -> None:
    """A state that the ledger does not name is not used, and goes away."""
    _start(callback)
    _report(callback, 1, **_evaluation(50.0))
    keep_state(ledger.folder, KEY, 2, _state(2))
    state = Ledger.open(ledger.folder).state
    assert load_state(ledger.folder, state.runs[KEY]) == _state(1)
    prune(ledger.folder, state)
    assert set(state_files(ledger.folder).values()) == {(KEY, 1)}


@pytest.mark.parametrize("fault", ["flipped byte", "truncated", "empty", "missing"])
def test_a_damaged_state_is_said_and_the_run_begins_again(
    ledger: Ledger, callback: LedgerCallback, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    """One line, and epoch 0: a lost file costs time, not the result."""
    _start(callback)
    _report(callback, 1, **_evaluation(50.0))
    path = state_path(ledger.folder, KEY, 1)
    data = path.read_bytes()
    flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
    damaged = {"flipped byte": flipped, "truncated": data[:-5], "empty": b""}
    path.unlink() if fault == "missing" else path.write_bytes(damaged[fault])
    assert load_state(ledger.folder, ledger.state.runs[KEY]) is None
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(f"{KEY}: its state after epoch 1 cannot be")


def test_a_run_that_begins_again_forgets_what_led_nowhere(
    ledger: Ledger, callback: LedgerCallback
) -> None:
    """Its history is that of one training, never of two."""
    _start(callback)
    _report(callback, 1, **_evaluation(50.0))
    _start(callback, epoch=1)
    assert [e["epoch"] for e in ledger.state.runs[KEY].history] == [1]
    _start(callback)
    run = ledger.state.runs[KEY]
    assert (run.history, run.metrics, run.kept_sha256, run.epochs_run) == ([], {}, None, 0)


def test_a_finished_run_leaves_its_student_only(ledger: Ledger, callback: LedgerCallback) -> None:
    """The last payload of a completed trial is the student, written by the driver under its sum."""
    _start(callback)
    _report(callback, 1, **_evaluation(50.0))
    _report(callback, 3, **_evaluation(60.0), state="completed", done=True)
    run = ledger.state.runs[KEY]
    data = checkpoint_path(ledger.folder, KEY).read_bytes()
    assert run.checkpoint_sha256 == hashlib.sha256(data).hexdigest()
    prune(ledger.folder, ledger.state)
    assert not state_files(ledger.folder)


def test_a_stopped_run_leaves_nothing(ledger: Ledger, callback: LedgerCallback) -> None:
    """What came with the result at which the scheduler stopped it is not kept."""
    _start(callback)
    _report(callback, 1, **_evaluation(50.0), done=True)
    assert ledger.state.runs[KEY].state == "stopped"
    assert not state_files(ledger.folder) and not checkpoint_path(ledger.folder, KEY).exists()


def test_a_state_that_cannot_be_written_does_not_stop_the_run(
    ledger: Ledger, callback: LedgerCallback, capsys: pytest.CaptureFixture[str]
) -> None:
    """The evaluation is recorded; after a crash the run would have further to go again."""
    (ledger.folder / "checkpoints").write_text("a file where a folder has to be")
    _start(callback)
    _report(callback, 1, **_evaluation(50.0))
    run = ledger.state.runs[KEY]
    assert (run.epochs_run, run.kept_sha256) == (1, None)
    assert "is not kept" in capsys.readouterr().err


def test_only_deaths_without_progress_count(ledger: Ledger, callback: LedgerCallback) -> None:
    """A machine that is taken away again and again costs intervals; a run that kills is failed."""
    death = _raising(RayActorError(), ledger.folder)
    for epoch in range(1, MAX_ATTEMPTS + 2):
        _start(callback, epoch - 1)
        _report(callback, epoch, **_evaluation(50.0))
        callback.on_trial_error(0, [], death)
    assert not ledger.state.runs[KEY].is_final
    for _ in range(MAX_ATTEMPTS):
        _start(callback, MAX_ATTEMPTS + 1)
        callback.on_trial_error(0, [], death)
    assert ledger.state.runs[KEY].state == "failed"


def test_an_error_without_a_text_is_recorded_by_its_name(
    ledger: Ledger, callback: LedgerCallback
) -> None:
    """MemoryError says nothing of itself."""
    _start(callback)
    callback.on_trial_error(0, [], _raising(MemoryError(), ledger.folder))
    run = ledger.state.runs[KEY]
    log = ledger.folder / f"errors/{KEY}.log"
    assert (run.state, run.error) == ("failed", f"MemoryError. The full text is in {log}.")
    assert log.is_file()
