"""The RayJob of scripts/cluster: KubeRay takes it, and its retry goes on with the study."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from synq_tune.cli.search import parse
from tests.cluster.rayjob_schema import SCHEMA
from tests.crash.checker import Verdict, check_finished, ledger_lines
from tests.crash.cluster import cluster
from tests.crash.study import SETS

ROOT = Path(__file__).parents[2]
JOB, CLAIM = yaml.safe_load_all((ROOT / "scripts/cluster/rayjob.yaml").read_text())


def _with(path: str, value: Any) -> dict[str, Any]:
    """The job with one value replaced, or added."""
    job = yaml.safe_load(yaml.safe_dump(JOB))
    *parents, last = path.split(".")
    place = job
    for key in parents:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value
    return job


def test_the_job_fits_kuberays_schema() -> None:
    """Every field has a name and a type that KubeRay's RayJob v1 knows."""
    jsonschema.validate(JOB, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.backofflimit", 3),
        ("spec.backoffLimit", "3"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.workerGroupSpecs.0.replica", 2),
        ("apiVersion", "ray.io/v1alpha1"),
    ],
)
def test_the_schema_finds_mistakes(path: str, value: Any) -> None:
    """What the API server would refuse, or drop without a word, is an error here."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(_with(path, value), SCHEMA)


def test_the_study_lies_on_the_heads_volume() -> None:
    """A retry is another pod: folder and store must be on what outlives it."""
    entry = shlex.split(JOB["spec"]["entrypoint"])
    arguments = parse(entry[entry.index("/opt/synq-tune/scripts/search.py") + 1 :])
    pod = JOB["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
    assert mount["name"] == volume["name"]
    for path in (arguments.output_dir, arguments.store):
        assert Path(path).is_relative_to(mount["mountPath"])
    assert arguments.ray_address == "auto" and JOB["spec"]["backoffLimit"] > 0


def test_ray_is_the_locks() -> None:
    """One Ray in the image, in the job and in what `ray[default]` adds."""
    lock = (ROOT / "requirements.lock").read_text()
    (version,) = re.findall(r"^ray==([^ \\]+)", lock, re.MULTILINE)
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] == version


def test_the_image_is_the_jobs() -> None:
    """The job's paths are the image's, and what its recipe names is in the context it is built from."""
    recipe = (ROOT / "scripts/cluster/Dockerfile").read_text()
    (workdir,) = re.findall(r"^WORKDIR (.+)$", recipe, re.MULTILINE)
    python, script = shlex.split(JOB["spec"]["entrypoint"])[:2]
    assert python == f"{workdir}/.venv/bin/python" and f"{workdir}/.venv/bin/ray " in recipe
    assert (ROOT / Path(script).relative_to(workdir)).is_file()
    for name in re.findall(r"scripts/cluster/[\w.]+", recipe):
        assert (ROOT / name).is_file(), name


def test_the_image_holds_the_program_alone() -> None:
    """What the build needs is sent to it; secrets, images and weights in a checkout are not."""
    sent = """
        .ci/install LICENSE Makefile README.md pyproject.toml requirements.lock requirements-uv.lock
        scripts/search.py scripts/cluster/requirements.lock search_spaces/digits_w3a3.yaml
        synq_tune/commands/cli.py
    """
    kept = """
        .git/config .venv/bin/python .env scripts/.env .netrc .aws/credentials mine.safetensors
        data/val.zip studies/a/ledger.jsonl scripts/__pycache__/search.pyc
    """
    assert [path for path in sent.split() if not _is_sent(path)] == []
    assert [path for path in kept.split() if _is_sent(path)] == []


def _is_sent(path: str) -> bool:
    """As docker reads the file: the last rule decides that matches the path or a folder above it."""
    names, sent = path.split("/"), True
    for rule in (ROOT / "scripts/cluster/Dockerfile.dockerignore").read_text().splitlines():
        pattern = rule.removeprefix("!")
        among = names if pattern.startswith("**/") else names[:1]
        if any(fnmatchcase(name, pattern.removeprefix("**/")) for name in among):
            sent = rule.startswith("!")
    return sent


def test_the_jobs_servers_packages_are_pinned_once() -> None:
    """What the image adds is pinned by hash and overrides nothing of the lock."""
    names = [
        _names(ROOT / path) for path in ("requirements.lock", "scripts/cluster/requirements.lock")
    ]
    assert "aiohttp-cors" in names[1] and not names[0] & names[1]
    text = (ROOT / "scripts/cluster/requirements.lock").read_text()
    assert all("--hash=sha256:" in part for part in re.split(r"\n(?=[a-z])", text)[1:])


def _names(lock: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==", lock.read_text(), re.MULTILINE))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_a_retry_goes_on_with_the_study(tmp_path: Path) -> None:
    """The entrypoint is killed with its pod; the same command in a new cluster ends the study."""
    folder = tmp_path / "digits_w3a3"
    with cluster(1) as (address, _):
        first = _pod(tmp_path, address)
        deadline = time.time() + 500
        while not any('"event":"evaluated"' in line for line in ledger_lines(folder)):
            assert first.poll() is None and time.time() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    finals = [line for line in ledger_lines(folder) if '"event":"finished"' in line]
    with cluster(1) as (address, _):
        assert _pod(tmp_path, address).wait(500) == 0, (tmp_path / "log").read_text()
    assert check_finished(folder, finals, trials=2) == Verdict(0, 0)


def _pod(volume: Path, address: str) -> subprocess.Popen[bytes]:
    """Run the entrypoint on this machine: a tiny study, on our volume and cluster."""
    text = JOB["spec"]["entrypoint"].replace("/opt/synq-tune/.venv/bin/python", sys.executable)
    text = text.replace("/opt/synq-tune", str(ROOT)).replace("/studies", str(volume))
    sets = [part for value in [*SETS, "study.num_trials=2"] for part in ("--set", value)]
    command = [*shlex.split(text.replace("--ray-address auto", f"--ray-address {address}")), *sets]
    with open(volume / "log", "w") as log:
        return subprocess.Popen(
            command, cwd=volume, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
