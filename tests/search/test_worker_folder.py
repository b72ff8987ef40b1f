"""Relative paths in the user's code mean the same in a trial as in the driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from synq_tune.search.worker_folder import go_to, naming_missing_folder

ROOT = Path(__file__).parents[2]

_NETWORK = """
import torch
from torch import nn


def network():
    first = (nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    net = nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    net.load_state_dict(torch.load("beside_me.pth"))
    return net
"""
_SPACE = """
format: 1
name: own
recipe: synq
teacher: {model: "net.py:network", input_size: 8, channels: 1, mean: [0.5], std: [0.5]}
bits: {weights: 4, activations: 4}
synthesis: {num_images: 32, num_holdout: 16, batch_size: 16, iterations: 2, center_iterations: 2}
finetune: {epochs: 1, batch_size: 16, steps_per_epoch: 1}
search: {lr: {choice: [1.0e-3, 1.0e-2]}}
study: {num_trials: 1, max_concurrent: 1, confirm: null}
"""


def test_a_worker_goes_to_the_drivers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its machine has it; elsewhere it stays."""
    monkeypatch.chdir("/")
    go_to(str(tmp_path / "missing"))
    assert os.getcwd() == "/"
    go_to(str(tmp_path))
    assert os.getcwd() == str(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """On another machine the reason for a missing file is not the file."""
    with (
        pytest.raises(FileNotFoundError, match="The driver runs in .*/missing, which .* not have"),
        naming_missing_folder(str(tmp_path / "missing")),
    ):
        open("weights.pth")  # noqa: SIM115
    with pytest.raises(FileNotFoundError) as error, naming_missing_folder(str(tmp_path)):
        open("weights.pth")  # noqa: SIM115
    assert "driver" not in str(error.value)


@pytest.mark.slow
@pytest.mark.ray
def test_a_network_that_opens_a_file_beside_it(tmp_path: Path) -> None:
    """The whole chain, from a folder of the user's."""
    (tmp_path / "net.py").write_text(_NETWORK)
    (tmp_path / "space.yaml").write_text(_SPACE)
    make = (
        "import torch; from torch import nn; torch.save(nn.Sequential(nn.Conv2d(1, 8, 3), "
        "nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))"
        ".state_dict(), 'beside_me.pth')"
    )
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/search.py"), "--space", "space.yaml",
         "--store", "store", "--output-dir", "study"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "trial-0000  completed" in done.stdout
