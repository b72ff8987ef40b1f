"""A bar over a whole search: lines stand above it, whoever prints them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from synq_tune.config.load import load_space
from synq_tune.search import runs_bar
from synq_tune.search.runs_bar import RunsBar
from synq_tune.study.ledger import Ledger

SEARCH = """
import sys, threading
from pathlib import Path
from synq_tune.config.load import load_space
from synq_tune.process.progress import progress_bar
from synq_tune.search.runs_bar import RunsBar
from synq_tune.study.ledger import Ledger

sets = ["study.num_trials=2", "study.confirm={top: 1, seeds: 2}"]
ledger = Ledger.create(Path(sys.argv[1]), load_space("digits_w3a3", sets))

def run(key, kind, number):
    ledger.append("proposed", key=key, kind=kind, number=number, params={}, seed=0, label="")
    ledger.append("started", key=key)
    ledger.append("finished", key=key, state="completed", metrics={"top1": 90.0 - number},
                  epochs_run=1, seconds=42.0)

with RunsBar() as bar:
    bar.show(ledger.state, 1)
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr)
    other = threading.Thread(target=lambda: print("from a thread", file=sys.stderr))
    other.start()
    other.join()
    with progress_bar(3, "within") as inner:
        inner.update(3)
    print("after it")
    run("trial-0000", "search", 0)
    bar.show(ledger.state, 1)
    print("no line end", end="")
with progress_bar(2, "ladder") as later:
    later.update(2)
"""


def _screen(output: str, width: int) -> list[str]:
    """What a terminal shows after all this: carriage returns, line feeds and steps up."""
    lines, row, column = [[" "] * width], 0, 0
    text = output.replace("\x1b[A", "\x00")
    for character in text:
        if character == "\n":
            row += 1
            lines += [[" "] * width] * (row == len(lines))
            lines[row] = list(lines[row])
        elif character == "\r":
            column = 0
        elif character == "\x00":
            row -= 1
        else:
            lines[row][min(column, width - 1)] = character
            column += 1
    return ["".join(line).rstrip() for line in lines]


def test_on_a_terminal_lines_stand_above_the_bar(tmp_path: Path) -> None:
    """Prints of both streams, of threads, and other bars leave whole lines and one bar."""
    main, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    code = [sys.executable, "-c", SEARCH, str(tmp_path / "study")]
    process = subprocess.Popen(code, stdout=terminal, stderr=terminal)
    os.close(terminal)
    found = bytearray()
    while True:
        try:
            found += os.read(main, 65536)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    lines = [line.partition("|")[0] for line in _screen(found.decode(), 80)]
    assert [line for line in lines if line] == [
        "to stdout",
        "to stderr",
        "from a thread",
        "after it",
        "search    1 of 4 runs, about 2 min left ",
        "no line end",
        "ladder: 100%",
    ]
    assert b"within: " in found


def test_elsewhere_a_line_a_minute_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What did not change is not said again, and a transition says nothing by itself."""
    monkeypatch.setattr(runs_bar, "MINUTE", 0.01)
    ledger = Ledger.create(tmp_path / "study", load_space("digits_w3a3", ["study.num_trials=4"]))
    ticks = threading.Semaphore(0)
    draw = RunsBar._draw

    def drawn(self: RunsBar, *known: object) -> None:
        draw(self, *known)
        ticks.release()

    monkeypatch.setattr(RunsBar, "_draw", drawn)
    with RunsBar() as bar:
        bar.show(ledger.state, 1)
        for _ in range(5):
            ticks.acquire()
    out, said = capsys.readouterr()
    assert (out, said) == ("", "search    0 of 7 runs\n")
