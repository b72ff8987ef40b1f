"""Weights that cannot be had are said at once: which file, from where, its sum, and --weights."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from synq_tune.config import Teacher, Weights
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.models import download
from synq_tune.models.fetch_first import fetch_first

ROOT = Path(__file__).parents[2]
COMMANDS = (
    ["search"],
    ["search", "--dry-run"],
    ["inspect"],
    ["synthesize"],
    ["allocate", "--max-bits", "3"],
    ["finetune"],
)


@pytest.fixture
def closed_url() -> str:
    """An address on this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def silent_url() -> Iterator[str]:
    """An address at which connections are taken and nothing is ever said."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_every_command_says_it_before_torch_is_loaded(closed_url: str, tmp_path: Path) -> None:
    """Exit code 2 and one error line for a bundled space of ImageNet; no study is left behind."""
    url = f"{closed_url}/resnet18.pth.zip"
    options = ["--space", "resnet18_w3a3", "--set", f"teacher.weights.url={url}"]
    code = (
        "import sys\n"
        "from synq_tune.cli.main import main\n"
        "from synq_tune.commands.ending import exit_code\n"
        f"for words in {[[*words, *options] for words in COMMANDS]}:\n"
        "    print(exit_code(main, words), [m for m in ('torch', 'ray') if m in sys.modules])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.stdout.splitlines() == ["2 []"] * len(COMMANDS), run.stderr
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    sha1 = load_space("resnet18_w3a3").teacher.weights.sha1
    for part in ("the weights resnet18.pth", url, sha1, "--weights FILE"):
        assert all(part in line for line in errors), errors
    assert len(errors) == len(COMMANDS)
    assert not list(tmp_path.glob("studies/*/"))


def test_a_server_that_says_nothing_is_not_waited_for(
    silent_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight seconds at most, whatever urlopen does with its own limit."""
    assert download._PATIENCE < 10
    monkeypatch.setattr(download, "_PATIENCE", 0.3)
    config = Teacher(model="cifar_resnet20", weights=Weights(url=f"{silent_url}/net.pth"))
    start = time.monotonic()
    with pytest.raises(InputError, match=r"net\.pth can .* no answer within 0\.3 seconds from"):
        fetch_first(config, tmp_path)
    assert time.monotonic() - start < 5
    assert not (tmp_path / "weights" / "net.pth").exists()


def test_a_hub_that_is_away_is_said_before_timm_is_loaded(
    closed_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The file, its address and --weights; nothing where the file lies in the hub's cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", closed_url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    config = load_space("deit_tiny_w4a8").teacher
    snapshot = tmp_path / "models--timm--deit_tiny_patch16_224.fb_in1k/snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("0" * 40)
    fetch_first(config)
    assert capsys.readouterr().err == ""
    (snapshot / "model.safetensors").unlink()
    fetch_first(config)
    said = capsys.readouterr().err
    place = f"model.safetensors of {closed_url}/timm/deit_tiny_patch16_224.fb_in1k"
    assert place in said and "--weights FILE" in said


@pytest.mark.parametrize("weights", [Weights(), Weights(file="x.pth", url="https://example.com/x")])
def test_nothing_is_fetched_where_nothing_is_missing(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is given, and bundled weights, need no server."""
    monkeypatch.setattr(download, "_opener", lambda *_: pytest.fail("a server was asked"))
    fetch_first(Teacher(model="digits_resnet26", weights=weights), tmp_path)
