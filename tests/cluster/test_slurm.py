"""The Slurm script of scripts/cluster, run for real; only Slurm's own commands are stand-ins."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.checker import Verdict, check_finished, ledger_lines
from tests.crash.study import SETS, processes_of

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/cluster/slurm.sh"
# What Slurm's commands do on a cluster of two nodes, both of them this machine.
COMMANDS = {
    "scontrol": """
case $1 in
  show) tr , '\\n' <<< "$3" ;;
  requeue) echo "$2" >> "$SHIMS/requeued" ;;
esac
""",
    "srun": """
tasks=$SLURM_NTASKS nodes=
while [[ $1 == --* ]]; do
  case $1 in --ntasks=*) tasks=${1#*=} ;; --nodes=*) nodes=${1#*=} ;; esac
  shift
done
if [[ $tasks != "$nodes" || -e $SHIMS/full ]]; then
  echo "srun: error: Unable to create step for job: More processors requested than permitted" >&2
  exit 1
fi
printf '%s' "$RAY_AUTH_TOKEN" > "$SHIMS/token"
tree() { echo $1; for child in $(cat /proc/$1/task/*/children 2>/dev/null); do tree $child; done; }
end() { # Slurm kills a step of a job that it is stopping only 30 s after its TERM to all
  told=$((told + 1))
  [[ -n $! ]] || exit 1
  [[ -e $SHIMS/stopping && $told == 1 ]] || kill -KILL $(tree $!)
}
trap end TERM
"$@" &
while kill -0 $! 2>/dev/null; do wait $!; done
""",
    "squeue": 'cat "$SHIMS/stopping" 2>/dev/null || echo None\n',
    "hostname": "echo 127.0.0.1 fe80::1\n",
}


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Run the script as a job's batch step, in a folder that looks like the check-out."""
    shims = tmp_path / "shims"
    shims.mkdir()
    for name, text in COMMANDS.items():
        (shims / name).write_text("#!/usr/bin/env bash\n" + text)
        (shims / name).chmod(0o755)
    for name, target in ((".venv", Path(sys.prefix)), ("scripts", ROOT / "scripts")):
        (tmp_path / name).symlink_to(target)

    def start(nodes: str, *arguments: str) -> subprocess.Popen[bytes]:
        variables = {
            "SHIMS": str(shims), "PATH": f"{shims}:{os.environ['PATH']}", "HOME": str(tmp_path),
            "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": nodes, "SLURM_CPUS_PER_TASK": "1", "OMP_NUM_THREADS": "1",
            "SLURM_NTASKS": str(len(nodes.split(","))), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
        with open(tmp_path / "log", "a") as log:
            return subprocess.Popen(
                ["bash", str(SCRIPT), *arguments], env={**environment, **variables}, cwd="/",
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    return start


def test_the_script_is_bash() -> None:
    """Bash can parse it."""
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_a_job_that_could_not_go_on_is_refused(submit: Callable, tmp_path: Path) -> None:
    """Without --output-dir every turn would begin a new study: nothing starts."""
    assert submit("one,two", "--space", "digits_w3a3").wait(60) == 2
    assert "--output-dir or --resume is given" in (tmp_path / "log").read_text()


def test_a_step_that_does_not_start_ends_the_job(submit: Callable, tmp_path: Path) -> None:
    """What srun refuses is not waited for until the patience with slow nodes is over."""
    (tmp_path / "shims/full").touch()
    assert submit("one,two", *_arguments(tmp_path)).wait(60) == 1
    assert "a step ended" in (tmp_path / "log").read_text()


def test_a_signal_before_the_driver_is_heeded(submit: Callable, tmp_path: Path) -> None:
    """The end of the time may come while the script still asks who its nodes are."""
    scontrol = tmp_path / "shims/scontrol"
    scontrol.write_text(
        scontrol.read_text() + '[[ $1 != show ]] || { touch "$SHIMS/asked"; sleep 1; }'
    )
    job = submit("one,two", *_arguments(tmp_path))
    _until((tmp_path / "shims/asked").exists, job, tmp_path / "log")
    os.kill(job.pid, signal.SIGUSR1)
    assert job.wait(60) == 130, (tmp_path / "log").read_text()
    assert (tmp_path / "shims/requeued").exists()
    assert not (tmp_path / "studies").exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("why", "is_requeued"), [("None", False), ("TimeLimit", True)])
def test_a_job_that_slurm_stops_ends_in_order(
    submit: Callable, tmp_path: Path, why: str, is_requeued: bool
) -> None:
    """TERM to all its processes, Ray's too: scancel does not queue it again, the end of its time does."""
    job, log = submit("one,two", *_arguments(tmp_path)), tmp_path / "log"
    folder = tmp_path / "studies" / "tiny"
    _until(lambda: any('"evaluated"' in x for x in ledger_lines(folder)), job, log)
    (tmp_path / "shims/stopping").write_text(why)
    for pid in [*processes_of(job.pid), job.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    assert job.wait(60) == 130, log.read_text()[-3000:]
    assert json.loads(ledger_lines(folder)[-1])["action"] == "interrupted"
    assert (tmp_path / "shims/requeued").exists() == is_requeued


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_a_job_out_of_time_goes_on_when_it_runs_again(submit: Callable, tmp_path: Path) -> None:
    """USR1 before the end of its time: the study is interrupted and the job queued again."""
    folder, log = tmp_path / "studies" / "tiny", tmp_path / "log"
    arguments = _arguments(tmp_path)
    job = submit("one,two", *arguments)
    _until(lambda: any('"evaluated"' in x for x in ledger_lines(folder)), job, log)
    _check_a_stranger(tmp_path)
    os.kill(job.pid, signal.SIGUSR1)
    assert job.wait(200) == 130, log.read_text()[-3000:]
    assert (tmp_path / "shims/requeued").read_text().split() == [str(os.getpid())]
    assert json.loads(ledger_lines(folder)[-1])["action"] == "interrupted"
    finals = [line for line in ledger_lines(folder) if '"event":"finished"' in line]
    token = (tmp_path / "shims/token").read_text()
    again = submit("one", *arguments)
    assert again.wait(500) == 0, log.read_text()[-3000:]
    assert len((tmp_path / "shims/requeued").read_text().split()) == 1
    assert check_finished(folder, finals, trials=2) == Verdict(0, 0)
    assert (tmp_path / "shims/token").read_text() != token
    _check_secret(token, tmp_path)


def _arguments(folder: Path) -> list[str]:
    """A study of two trials, long enough to be stopped."""
    values = [*SETS, "study.num_trials=2", "finetune.steps_per_epoch=60"]
    sets = [part for value in values for part in ("--set", value)]
    arguments = ["--space", "digits_w3a3", "--output-dir", str(folder / "studies" / "tiny"), *sets]
    return [*arguments, "--store", str(folder / "store")]


def _until(is_so: Callable[[], bool], job: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.time() + 500
    while not is_so():
        assert job.poll() is None and time.time() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)


def _check_a_stranger(folder: Path) -> None:
    """Who does not know the token is told so in one line, and cannot join."""
    address = f"127.0.0.1:{20000 + os.getpid() % 10000}"
    command = [sys.executable, str(ROOT / "scripts/search.py"), "--space", "digits_w3a3"]
    command += ["--output-dir", str(folder / "stranger"), "--ray-address", address]
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]  # Ray's own warning may come first
    assert "the Ray cluster can be joined" in line and "InvalidAuthToken" in line
    assert "0" * 64 not in done.stderr
    assert not (folder / "stranger").exists()


def _check_secret(token: str, folder: Path) -> None:
    """It is in no file that the job left, and in nothing it printed."""
    assert len(token) == 64
    for path in [folder / "log", *(folder / "studies").rglob("*")]:
        assert not path.is_file() or token.encode() not in path.read_bytes(), path
    assert not (folder / ".ray").exists()
