"""What `scripts/bench.py` runs."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from synq_tune.config.load import load_space
from synq_tune.errors import InputError, stage

BENCHES = {
    "step": "synq_tune.bench.step:bench_step",
    "trial": "synq_tune.bench.trial_speed:bench_trial",
    "synthesis": "synq_tune.bench.synthesis_speed:bench_synthesis",
    "reconstruct": "synq_tune.bench.reconstruction_speed:bench_reconstruction",
    "memory": "synq_tune.bench.memory_use:bench_memory",
    "search": "synq_tune.bench.service:bench_search",
    "scale": "synq_tune.bench.scale:bench_scale",
}
"""Name → where its function is: `search` and `scale` import Ray."""
BENCH_NAMES = tuple(BENCHES)
ROUNDS = {"search": 100, "scale": 256}
"""How often by default: trials of these; five times each of everything else."""


def bench(
    what: str,
    space: str,
    sets: Sequence[str] = (),
    weights: str | None = None,
    rounds: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    batch_size: int | None = None,
) -> tuple[list[str], dict[str, Any]]:
    """Run one benchmark; lines to print, and the same as plain values.

    Args:
        what: one of `BENCH_NAMES`.
        space: name or file.
        sets: assignments `key.path=value` over the space.
        weights: the teacher's checkpoint; None = seeded random weights.
        rounds: how often each compared function is timed; trials of `search` and `scale`. None =
            `ROUNDS`, else 5.
        threads: of torch on the CPU; None keeps its own choice.
        device: `cpu`, `cuda`, …; None = the GPU if there is one.
        batch_size: instead of the space's, of what is timed.

    Raises:
        InputError: the settings are wrong, or the device is not there.
    """
    rounds = _positive("rounds", ROUNDS.get(what, 5) if rounds is None else rounds)
    flags: dict[str, Any] = {"teacher": {"weights": {"file": weights}}}
    flags["synthesis" if what == "synthesis" else "finetune"] = {"batch_size": batch_size}
    spec = load_space(space, sets, flags)
    # torch takes a second to import: wrong settings are refused before.
    import torch

    module, _, function = BENCHES[what].partition(":")
    run = getattr(importlib.import_module(module), function)
    # A process's first optimizer imports torch's compiler: seconds that are no step's own.
    torch.optim.SGD([torch.zeros(1)])
    if threads is not None:
        torch.set_num_threads(_positive("threads", threads))
    device = _device(device)
    with stage(f"bench {what}", f"--space {space}"):
        report = run(spec, rounds, device)
    return report.lines, report.numbers


def _positive(flag: str, number: int) -> int:
    if number < 1:
        raise InputError(f"`--{flag} >= 1` must hold, but got {number}.")
    return number


def _device(name: str | None) -> Any:
    import torch

    from synq_tune.trial.assets import choose_device

    if name is None:
        return choose_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"`--device is on this machine` must hold, but got {name!r}: {reason}"
        ) from error
    return device
