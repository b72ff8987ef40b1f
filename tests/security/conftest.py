"""A study and a trial, run under watch in an environment that hides nothing: see confined.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.study import SETS

ROOT = Path(__file__).parents[2]
CONFINED = Path(__file__).with_name("confined.py")
SECRETS = {
    "AWS_ACCESS_KEY_ID": "canaryaccesskey",
    "AWS_SECRET_ACCESS_KEY": "canarysecretkey",
    "MLFLOW_TRACKING_USERNAME": "canaryuser",
    "MLFLOW_TRACKING_PASSWORD": "canarypassword",
    "HF_TOKEN": "canaryhftoken",
}
"""What a user's shell may hold."""
_KEPT = (
    "PATH",
    "LANG",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "RAY_worker_niceness",
)


@dataclass(frozen=True)
class Watched:
    """What a command did, as seen from outside."""

    folder: Path
    """Everything it wrote: its HOME, its store, its studies."""
    code: int
    foreign: dict[str, int]
    """Packets that would have left the machine, by address and port."""
    lost: int
    """Packets nobody looked at."""
    listening: dict[str, list[int]]
    """Ports that took connections, by address."""
    said: str
    """Standard output and error."""

    def files(self) -> list[Path]:
        """All files it left."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


def environment(home: Path) -> dict[str, str]:
    """Of a user who switched nothing off; pytest's and CI's own variables silence MLflow by themselves."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    asked_for = {"RAY_USAGE_STATS_ENABLED": "1", "MLFLOW_DISABLE_TELEMETRY": "false"}
    asked_for["ORT_DISABLE_TELEMETRY"] = "0"
    return {**kept, **asked_for, **SECRETS, "HOME": str(home), "PYTHONPATH": str(ROOT)}


def watched(folder: Path, *command: str) -> Watched:
    """Run a Python program under watch; the test is skipped where this machine cannot."""
    (folder / "home").mkdir(parents=True)
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("no ip and unshare (iproute2, util-linux) on this machine")
    isolate = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*isolate, "true"], capture_output=True).returncode:
        pytest.skip("this user may not make a network namespace (unshare --net)")
    report, output = folder / "report.json", folder.with_suffix(".output")
    with open(output, "w") as out:
        subprocess.run(
            [*isolate, sys.executable, str(CONFINED), str(report), sys.executable, *command],
            cwd=folder, env=environment(folder / "home"), stdout=out, stderr=out, check=False,
        )  # fmt: skip
    said = output.read_text()
    assert report.exists(), said
    found = json.loads(report.read_text())
    report.unlink()
    return Watched(folder, said=said, **found)


def _values(sets: list[str]) -> list[str]:
    return [part for text in sets for part in ("--set", text)]


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """`scripts/search.py` on the bundled digits: Ray, Optuna, MLflow, ladder, export."""
    folder = tmp_path_factory.mktemp("watched") / "study"
    sets = [*SETS, "study.val_data=digits", "study.num_trials=2", "study.confirm=null"]
    found = watched(
        folder, str(ROOT / "scripts/search.py"), "--space", "digits_w3a3", *_values(sets),
        "--output-dir", str(folder / "studies/first"), "--max-concurrent", "1",
    )  # fmt: skip
    assert found.code == 0, found.said
    return found


@pytest.fixture(scope="session")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """`scripts/finetune.py` on the bundled digits, exported."""
    folder = tmp_path_factory.mktemp("watched") / "trial"
    sets = [text for text in SETS if not text.startswith(("study.", "search."))]
    found = watched(
        folder, str(ROOT / "scripts/finetune.py"), "--space", "digits_w3a3", *_values(sets),
        "--export-to", str(folder / "exported"),
    )  # fmt: skip
    assert found.code == 0, found.said
    return found
