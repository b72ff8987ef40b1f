"""The user's code of a study: kept beside it, the same after a restart, known to every worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.search.own_code_copies import Sources, open_sources

NET = """
from torch import nn

def make(width):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU())

def weigh(activations, gradients):
    return gradients.mean((2, 3))
"""

WORKER = """
import json, sys
from synq_tune.config import Teacher
from synq_tune.models.build import build_model
from synq_tune.search.own_code_copies import receive
context = json.load(sys.stdin)
receive(context["sources"])
print(build_model(Teacher.model_validate(context["teacher"]))[0].out_channels)
"""


def _spec(model: str, cam: str = "gradcam") -> StudySpec:
    sets = [f"teacher.model={model}", "teacher.kwargs={width: 7}", f"finetune.cam={cam}"]
    return load_space("digits_w3a3", sets)


def _worker(spec: StudySpec, sources: Sources, tmp_path: Path) -> str:
    """What a fresh process elsewhere builds from the context alone."""
    context = {"sources": sources.for_workers(), "teacher": spec.teacher.model_dump(mode="json")}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WORKER], input=json.dumps(context), capture_output=True, text=True,
        cwd=elsewhere, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "code/net.py"
    path.parent.mkdir()
    path.write_text(NET)
    return path


@pytest.mark.long
def test_a_worker_without_the_file_builds_the_network(net: Path, tmp_path: Path) -> None:
    """The text travels: the file is gone when the worker starts."""
    spec = _spec(f"{net}:make")
    sources = open_sources(spec, tmp_path / "study")
    net.unlink()
    assert _worker(spec, sources, tmp_path) == "7"


@pytest.mark.long
def test_a_worker_with_another_file_takes_the_drivers(net: Path, tmp_path: Path) -> None:
    """A file of another version at the same path is not used."""
    spec = _spec(f"{net}:make")
    sources = open_sources(spec, tmp_path / "study")
    net.write_text("raise RuntimeError('another version')")
    assert _worker(spec, sources, tmp_path) == "7"


@pytest.mark.long
def test_a_worker_imports_the_drivers_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python:package.module:function` is found by the driver's entry of the import path."""
    package = tmp_path / "lib/own_networks"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text(NET)
    monkeypatch.syspath_prepend(package.parent)
    spec = _spec("python:own_networks.net:make")
    sources = open_sources(spec, tmp_path / "study")
    assert sources.py_modules() == [str(package)]
    assert _worker(spec, sources, tmp_path) == "7"


def test_installed_packages_are_not_shipped(tmp_path: Path) -> None:
    """A cluster's machines have their own torchvision."""
    sources = open_sources(_spec("python:torchvision.models:resnet18"), tmp_path)
    assert sources.py_modules() == []


def test_the_study_keeps_a_copy_with_its_sum(net: Path, tmp_path: Path) -> None:
    """`sources/NAME.py`, readable, and a SHA256SUMS that sha256sum can check."""
    open_sources(_spec(f"{net}:make", f"{net}:weigh"), tmp_path / "study").keep(tmp_path / "study")
    folder = tmp_path / "study/sources"
    assert {p.name for p in folder.iterdir()} == {"net.py", "SHA256SUMS"}
    assert (folder / "net.py").read_text() == NET
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, check=True)


def test_two_files_of_one_name_are_both_kept(net: Path, tmp_path: Path) -> None:
    """Neither copy overwrites the other."""
    other = tmp_path / "other/net.py"
    other.parent.mkdir()
    other.write_text(NET + "\n# other\n")
    open_sources(_spec(f"{net}:make", f"{other}:weigh"), tmp_path / "s").keep(tmp_path / "s")
    assert {p.read_text() for p in (tmp_path / "s/sources").glob("*.py")} == {
        NET, NET + "\n# other\n",
    }  # fmt: skip


def test_a_changed_file_stops_the_restart(net: Path, tmp_path: Path) -> None:
    """Trials of two versions must not mix; the message says how to go on."""
    spec, study = _spec(f"{net}:make"), tmp_path / "study"
    open_sources(spec, study).keep(study)
    net.write_text(NET + "\n# changed\n")
    with pytest.raises(InputError, match=r"changed. Restore it from .*net\.py, or start a new"):
        open_sources(spec, study)
    net.write_text(NET)
    assert open_sources(spec, study).texts == {str(net): NET}


def test_a_lost_file_is_replaced_by_its_copy(net: Path, tmp_path: Path) -> None:
    """The study goes on where only its own folder is left."""
    spec, study = _spec(f"{net}:make"), tmp_path / "study"
    open_sources(spec, study).keep(study)
    net.unlink()
    assert open_sources(spec, study).texts == {str(net): NET}


def test_a_study_without_own_code_keeps_nothing(tmp_path: Path) -> None:
    """No folder is made."""
    open_sources(load_space("digits_w3a3"), tmp_path).keep(tmp_path)
    assert not any(tmp_path.iterdir())
