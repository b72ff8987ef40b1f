"""Every command ends in order on Ctrl+C, SIGTERM and SIGHUP, whoever else gets them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_COMMAND = """
import os, signal, sys, time
sys.argv[0] = "synthesize.py"
from synq_tune.commands.ending import exit_code
from synq_tune.process.signals import heeding

def main(argv):
    with heeding() as interrupts:
        {body}
    return 0

sys.exit(exit_code(main))
"""
_SLEEP = "print('ready', flush=True); time.sleep(60)"
_DEFERRED = """
        with interrupts.deferred():
            print('ready', flush=True)
            while not interrupts.requested.is_set():
                time.sleep(0.01)
            time.sleep(0.5)
            print('steps done', flush=True)
            {after}
"""
_SWALLOWED = """
        try:
            print('ready', flush=True); time.sleep(60)
        except BaseException:
            raise RuntimeError('an import was cut short') from None
"""


def _start(body: str, **options: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND.format(body=body)], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip
    return process


def _until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None and process.stdout.readline() == "ready\n"


@pytest.mark.parametrize("to_group", [False, True], ids=["driver", "group"])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda s: s.name)
def test_each_ends_with_130_and_a_line(number: signal.Signals, to_group: bool) -> None:
    """A command that keeps its work says how to go on."""
    process = _start(_SLEEP)
    _until_ready(process)
    (os.killpg if to_group else os.kill)(process.pid, number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error.startswith("interrupted; go on with: ")


@pytest.mark.parametrize("number", SIGNALS, ids=lambda s: s.name)
def test_steps_that_run_are_waited_for(number: signal.Signals) -> None:
    """Inside `deferred` the first signal is a request."""
    process = _start(_DEFERRED.format(after=""))
    _until_ready(process)
    process.send_signal(number)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "steps done\n")
    assert "again to stop at once" in error


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGHUP), SIGNALS],
    ids=["timeout", "systemd", "all"],
)
def test_what_comes_together_is_one(numbers: tuple[signal.Signals, ...]) -> None:
    """`timeout` signals twice, systemd in two ways: nobody insists."""
    process = _start(_DEFERRED.format(after=""))
    _until_ready(process)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.05)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "steps done\n"), error
    assert error.count("again to stop at once") == 1


def test_a_second_signal_does_not_wait() -> None:
    """Not for steps, and not for threads of ours that still upload."""
    body = (
        "import threading; threading.Thread(target=time.sleep, args=(60,)).start()"
        + _DEFERRED.format(after="time.sleep(60)")
    )
    process = _start(body)
    _until_ready(process)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None and process.stdout.readline() == "steps done\n"
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 130


def test_an_error_that_came_of_the_signal_is_no_error() -> None:
    """A library cut short in its import raises what it likes."""
    process = _start(_SWALLOWED)
    _until_ready(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode in (1, 130)  # a traceback's code where nothing converts errors


_LOST = """
        class Loses:
            def __del__(self):
                print('ready', flush=True); time.sleep(60)
        Loses()
        time.sleep(60)
"""


@pytest.mark.parametrize("number", SIGNALS, ids=lambda s: s.name)
def test_a_signal_that_python_drops_is_repeated(number: signal.Signals) -> None:
    """What is raised while an object is deleted is printed and forgotten, otherwise."""
    process = _start(_LOST)
    _until_ready(process)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and error.startswith("interrupted"), error


@pytest.mark.long
def test_a_deaf_main_thread_ends_too() -> None:
    """A thread watches, for the case that a library's own code does not come back to Python."""
    body = (
        "import ctypes, synq_tune.process.signals as s; s._DEAF = 0.2; print('ready', flush=True); "
        "ctypes.CDLL(None).system(b'sleep 30')"
    )
    process = _start(body)
    _until_ready(process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in error


def test_nohup_is_respected() -> None:
    """A SIGHUP that is ignored stays so."""
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = _start("print('ready', flush=True); time.sleep(1); print('went on')", **ignore)
    _until_ready(process)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "went on\n")


@pytest.mark.parametrize("name", ["search.py", "synthesize.py", "finetune.py", "evaluate.py"])
def test_scripts_heed_signals_before_they_import(name: str) -> None:
    """Between Python's start and the handlers nothing takes long: no library is imported there."""
    script = Path(__file__).parents[2] / "scripts" / name
    code = (
        f"import sys, runpy; runpy.run_path({str(script)!r}); "
        "print(sorted({'torch', 'ray', 'mlflow', 'pydantic', 'numpy', 'yaml'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
