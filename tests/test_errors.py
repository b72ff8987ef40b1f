"""The user's mistakes: exit 2, one line on stderr, nothing left behind, nothing started."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from synq_tune.commands.ending import exit_code
from synq_tune.config.load import load_space
from synq_tune.models.build import BUNDLED_WEIGHTS
from synq_tune.study.ledger import Ledger

ROOT = Path(__file__).parents[1]
WEIGHTS = BUNDLED_WEIGHTS["digits_resnet26"]


def script(name: str) -> ModuleType:
    """A script of the project as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Run `search.py` with arguments that must be refused; returns the line on stderr."""

    def run(*arguments: str) -> str:
        folder = tmp_path / "study"
        where = [] if "--resume" in arguments else ["--output-dir", str(folder)]
        store = ["--store", str(tmp_path / "store")]
        assert exit_code(script("search").main, [*arguments, *where, *store]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert not folder.exists()
        assert not (tmp_path / "store").exists()
        return error

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--space", "digit_w3a3"], "Did you mean 'digits_w3a3'"),
        (["--space", "../pyproject"], "Unknown space"),
        (["--space", "digits_w3a3", "--set", "finetune.lrr=1"], "Did you mean 'lr'"),
        (["--space", "digits_w3a3", "--set", "finetune.cam=gradcan"], "Did you mean 'gradcam'"),
        (["--space", "digits_w3a3", "--set", "recipe=synk"], "Did you mean 'synq'"),
        (["--space", "digits_w3a3", "--set", "teacher.model=digits_resnet25"], "digits_resnet26"),
        (["--space", "digits_w3a3", "--set", "bits.weights=1"], "greater than or equal to 2"),
        (["--space", "digits_w3a3", "--set", "name=../escape"], "name"),
        (["--space", "digits_w3a3", "--num-trials", "0"], "study.num_trials"),
        (["--space", "digits_w3a3", "--set", "study.metric=top1", "--set", "study.val_data=null"],
         "--val-data"),
        (["--space", "digits_w3a3", "--set", "bits.overrides={nolayer: 4}"], "nolayer"),
        (["--space", "digits_w3a3", "--val-data", "/nowhere"], "/nowhere"),
        (["--space", "digits_w3a3", "--weights", "/nowhere.pth"], "/nowhere.pth"),
        (["--space", "digits_w3a3", "--tracking-uri", "foo://bar"], "tracking URI"),
    ],
    ids=lambda v: " ".join(v[2:] or v[1:]) if isinstance(v, list) else "",
)  # fmt: skip
def test_wrong_settings(refused, arguments: list[str], expected: str) -> None:
    """Space, key, name, value, file: each is named with what is allowed or nearest."""
    assert expected in refused(*arguments)


def test_weights_that_do_not_fit(refused, tmp_path: Path) -> None:
    """The keys are named."""
    path = tmp_path / "net.safetensors"
    save_file({"conv1.weight": torch.zeros(1), "other": torch.zeros(1)}, path)
    error = refused("--space", "digits_w3a3", "--weights", str(path))
    assert "missing (bn1" in error and "left over (other)" in error


def test_truncated_weights(refused, tmp_path: Path) -> None:
    """Half a file is named as such."""
    path = tmp_path / "net.safetensors"
    path.write_bytes(WEIGHTS.read_bytes()[:1000])
    assert "truncated" in refused("--space", "digits_w3a3", "--weights", str(path))


def test_a_pickle_with_code_is_never_executed(refused, tmp_path: Path) -> None:
    """Its payload does not run."""

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = tmp_path / "net.pth"
    path.write_bytes(pickle.dumps({"state_dict": Payload()}))
    assert "not executed" in refused("--space", "digits_w3a3", "--weights", str(path))
    assert not (tmp_path / "executed").exists()


def _class_folders(where: Path, classes: int, images: int = 3) -> Path:
    for label in range(classes):
        folder = where / str(label)
        folder.mkdir(parents=True)
        for number in range(images):
            pixels = np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return where


def test_an_empty_val_data(refused, tmp_path: Path) -> None:
    """An empty folder is not a data set."""
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("--space", "digits_w3a3", "--val-data", str(tmp_path / "empty"))


def test_another_number_of_classes(refused, tmp_path: Path) -> None:
    """Twelve folders do not fit ten classes; seven numbers would be seven of the ten labels."""
    data = _class_folders(tmp_path / "val", 12)
    error = refused("--space", "digits_w3a3", "--val-data", str(data))
    assert "got 12" in error and "== 10" in error


def test_a_teacher_near_chance(refused, tmp_path: Path) -> None:
    """Class order and normalisation are the suspects."""
    data = _class_folders(tmp_path / "val", 10, images=6)
    error = refused("--space", "digits_w3a3", "--val-data", str(data))
    assert "order of the classes" in error and "normalisation" in error


def test_a_folder_of_another_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its ledger stays as it was."""
    folder = tmp_path / "study"
    Ledger.create(folder, load_space("digits_w4a4")).close()
    before = (folder / "ledger.jsonl").read_bytes()
    arguments = ["--space", "digits_w3a3", "--output-dir", str(folder)]
    assert exit_code(script("search").main, arguments) == 2
    assert "belongs to another study" in capsys.readouterr().err
    assert (folder / "ledger.jsonl").read_bytes() == before


def test_resume_of_nothing(refused, tmp_path: Path) -> None:
    """A folder without a ledger is not a study, and stays empty."""
    assert "holds a study" in refused("--resume", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_resumed_study_keeps_its_settings(refused, tmp_path: Path) -> None:
    """Settings belong to the header."""
    error = refused("--resume", str(tmp_path), "--set", "study.seed=3")
    assert "--resume keeps the study's settings` must hold, but got --set. " in error
    error = refused("--resume", str(tmp_path), "--val-data", "digits")
    assert "but got --val-data. " in error


def test_a_dry_run_counts_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials, updates, images, hours, memory, disk; no folder, no dataset."""
    arguments = ["--space", "digits_w3a3", "--dry-run", "--output-dir", str(tmp_path / "study")]
    assert exit_code(script("search").main, arguments) == 0
    out = capsys.readouterr().out
    for word in ("trials", "updates", "images seen", "hours", "memory", "disk"):
        assert word in out
    assert "1,440 optimizer steps" in out  # (12 trials + 2 repeats + the paper's) * 24 epochs * 4
    assert list(tmp_path.iterdir()) == []


def test_a_diverged_trial_alone_ends_with_3(tmp_path: Path, capsys) -> None:
    """`finetune.py` names what broke, the epoch and the settings in one line."""
    sets = [
        "synthesis.num_images=32", "synthesis.num_holdout=8", "synthesis.iterations=1",
        "synthesis.center_iterations=1", "finetune.lr=1e30", "finetune.epochs=2",
    ]  # fmt: skip
    values = [part for text in sets for part in ("--set", text)]
    arguments = ["--space", "digits_w3a3", "--store", str(tmp_path), *values]
    assert exit_code(script("finetune").main, arguments) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and " at epoch 1 (lr=1e+30, lambda_ce=" in last


@pytest.mark.long
def test_a_tracking_server_that_is_not_there(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noticed before any work, not after the search."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    arguments = ["--space", "digits_w3a3", "--tracking-uri", "http://127.0.0.1:9"]
    assert "tracking store can be opened" in refused(*arguments)


def test_status_of_a_folder_without_study(tmp_path: Path, capsys) -> None:
    """The other commands follow the same rule."""
    assert exit_code(script("status").main, [str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


_NETS = """
import torch
from torch import nn

def net(kind):
    norm = nn.Identity() if kind == "no_batchnorm" else nn.BatchNorm2d(4)
    act = nn.RReLU() if kind == "unknown_activation" else nn.ReLU()
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)]
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, act, *head)
"""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("no_batchnorm", "has BatchNorm layers"), ("unknown_activation", "RReLU at 2")],
)
def test_a_network_that_cannot_be_asked(refused, tmp_path: Path, kind: str, expected: str) -> None:
    """One line before any work, not a bad dataset."""
    (tmp_path / "net.py").write_text(_NETS)
    teacher = {"model": f"{tmp_path / 'net.py'}:net", "kwargs": {"kind": kind}, "channels": 1,
               "input_size": 8, "mean": [0.0], "std": [1.0]}  # fmt: skip
    assert expected in refused("--space", "digits_w3a3", "--set", f"teacher={json.dumps(teacher)}")
