"""Timing functions against each other."""

from __future__ import annotations

import time

import pytest
import torch

from synq_tune.bench.timing import Timings, interleave

CPU = torch.device("cpu")


def test_functions_run_in_turn_after_a_warm_up() -> None:
    """Every round runs each function once, so that a slow minute slows all of them."""
    calls: list[str] = []
    timings = interleave({name: lambda n=name: calls.append(n) for name in "ab"}, 3, CPU)
    assert "".join(calls) == "ab" * 4
    assert {name: len(seconds) for name, seconds in timings.rounds.items()} == {"a": 3, "b": 3}


def test_seconds_are_those_of_a_call() -> None:
    """The clock covers the call and little else."""
    timings = interleave({"sleep": lambda: time.sleep(0.02)}, 1, CPU)
    assert 0.02 <= timings.median("sleep") < 1


def test_a_ratio_compares_within_rounds() -> None:
    """A round in which everything took ten times as long changes no ratio."""
    timings = Timings({"ours": [1.0, 20.0, 3.0], "floor": [1.0, 10.0, 1.5]})
    assert timings.ratio("ours", over="floor") == pytest.approx(2.0)
    assert timings.median("ours") == 3.0
