"""What machines run is compared before the first trial."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

import synq_tune
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.search.environment import check_this_machine, compare, differences, environment_probe
from synq_tune.search.worker import load_study
from tests.crash.cluster import cluster
from tests.crash.study import REFUSED, TinyStudy

HERE = {
    "python": "3.11.7", "ray": "2.60.0", "torch": "2.15.0+cu130", "synq_tune": "0.1.0",
    "source": "0123456789ab", "worker": "ready",
}  # fmt: skip


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({}, []),
        ({"torch": "2.15.0+cpu"}, []),
        ({"torch": "2.14.1"}, ["torch 2.14.1 (here 2.15.0)"]),
        ({"python": "3.12.1"}, ["python 3.12.1 (here 3.11.7)"]),
        ({"synq_tune": "none", "source": "none"}, ["synq_tune none (here 0.1.0)"]),
        (
            {"source": "ba9876543210", "worker": "ImportError: x"},
            ["synq_tune of other source ba9876543210 (here 0123456789ab)"],
        ),
        ({"worker": "ImportError: x"}, ["a worker that cannot be imported (ImportError: x)"]),
    ],
)
def test_what_differs(there: dict[str, str], expected: list[str]) -> None:
    """Versions, the source under one version, and a worker that cannot start; torch's builds do not."""
    assert differences(HERE, {**HERE, **there}) == expected


def test_every_machine_that_differs_is_named() -> None:
    """One line: which machine, what, and what to do."""
    machines = {"10.0.0.1": HERE, "10.0.0.2": {**HERE, "ray": "2.59.0"}}
    machines |= {f"10.0.1.{n}": {**HERE, "torch": "2.14.0"} for n in range(4)}
    with pytest.raises(InputError) as caught:
        compare(HERE, machines)
    line = str(caught.value)
    assert "10.0.0.2: ray 2.59.0 (here 2.60.0); 10.0.1.0: torch 2.14.0" in line
    assert "and 2 more" in line and "10.0.0.1" not in line and "requirements.lock" in line


def test_a_machine_that_joins_later_is_compared_by_its_worker() -> None:
    """With what the driver said it runs, before any file is brought there."""
    here = environment_probe()()
    check_this_machine(here)
    context = {
        "spec": load_space("digits_w3a3").model_dump(mode="json", by_alias=True), "dataset": "d",
        "store": "s", "labelled": None, "manifest": object(), "facts": {**here, "torch": "1.0"},
    }  # fmt: skip
    with pytest.raises(InputError, match=r"torch \S+ \(here 1\.0\)"):
        load_study(context)


def test_one_source_is_one_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum is of what the .py files say, wherever they lie; one changed byte is another sum."""
    here = environment_probe()()
    assert here["worker"] == "ready" and here["python"].startswith("3.")
    copy = tmp_path / "synq_tune"
    shutil.copytree(Path(synq_tune.__file__).parent, copy, ignore=shutil.ignore_patterns("*.pyc"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    loaded = {name: m for name, m in sys.modules.items() if name.partition(".")[0] == "synq_tune"}
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    assert environment_probe()()["source"] == here["source"]
    (copy / "store.py").write_text((copy / "store.py").read_text() + "\n")
    assert environment_probe()()["source"] != here["source"]


@pytest.mark.slow
@pytest.mark.ray
def test_a_machine_with_an_older_check_out_is_refused(tmp_path: Path) -> None:
    """Before any synthesis and any trial, with one line and without a trace."""
    package = tmp_path / "older" / "synq_tune"
    shutil.copytree(Path(synq_tune.__file__).parent, package)
    (package / "search" / "transfer.py").unlink()
    study = TinyStudy(tmp_path / "studies" / "tiny")
    with cluster(0, 1, within=("env", f"PYTHONPATH={package.parent}")) as (address, _):
        study.arguments = ("--ray-address", address)
        driver = study.start()
        assert driver.wait() == REFUSED
    (line,) = driver.said().strip().splitlines()
    assert re.search(r"got [0-9.]+ \(node [0-9a-f]{8}\): synq_tune of other source", line)
    assert not study.folder.exists() and not (study.folder.parent / "store/datasets").exists()
