"""How many trials run at once and what each of them gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synq_tune.config import Study
from synq_tune.errors import InputError

Machine = tuple[float, float]
"""(CPUs, GPUs) of one machine; a trial runs on one."""

ROUND_TRIALS = 250
"""Trials in one run of Tune, at least. It keeps about 50 kB of each: with thousands, the driver
starts Tune anew every so often."""
ROUND_TURNS = 8
"""Trials in one run of Tune for each place, at least: when it ends, every place waits for the
last trial of it, and gets a new worker."""


@dataclass(frozen=True)
class Plan:
    """Shares of one trial, and how many trials there are at once."""

    max_concurrent: int
    cpus_per_trial: float
    gpus_per_trial: float
    threads: int
    """CPU threads torch may use in one trial."""
    round_trials: int = ROUND_TRIALS
    """After how many trials the plan is made anew."""

    @property
    def trials_per_gpu(self) -> int:
        """How many trials share a GPU; 1 without one."""
        return max(1, int(1 / self.gpus_per_trial)) if self.gpus_per_trial else 1


def plan_resources(
    study: Study,
    machines: Sequence[Machine],
    fitting: int | None = None,
    most: int | None = None,
) -> Plan:
    """Divide the machines among concurrent trials.

    Without a GPU a trial gets one core by default. With GPUs the first trials get one each; the
    next share it as their memory allows, or in the fraction the study asks for. Cores are divided
    evenly, so that trials never fight for threads.

    Args:
        study: `max_concurrent` and `gpus_per_trial`, either may be `auto`; a deterministic one runs
            at most that many trials at once, with one thread each on any machine.
        machines: one, or those of a cluster; with at least one core in all.
        fitting: trials whose memory fits on one GPU; None if not measured yet.
        most: trials that one GPU was seen to hold at most; None if all did.

    Raises:
        InputError: no machine has the GPUs that one trial asks for.
    """
    num_gpus = int(sum(gpus for _, gpus in machines))
    gpus = _gpu_share(study, machines, fitting, most)
    places = sum(_places(cpus, there, gpus) for cpus, there in machines)
    if gpus and not places:
        raise InputError(
            "`a machine has the GPUs of a trial` must hold, but got "
            f"gpus_per_trial={gpus:g} and machines with {[int(there) for _, there in machines]}. "
            "Give a smaller --gpus-per-trial."
        )
    wanted = places if study.max_concurrent == "auto" else study.max_concurrent
    concurrent = max(1, min(wanted, places if gpus else wanted))
    if study.deterministic is not None:
        concurrent = min(concurrent, study.deterministic)
    share = _cpu_share(machines, gpus, concurrent)
    # The order in which threads add decides the last bits of a sum.
    threads = 1 if study.deterministic is not None else max(1, int(share))
    is_measuring = study.gpus_per_trial == "auto" and num_gpus > 0 and fitting is None
    rounds = num_gpus if is_measuring else max(ROUND_TRIALS, ROUND_TURNS * concurrent)
    return Plan(concurrent, share, gpus, threads, rounds)


def _gpu_share(
    study: Study, machines: Sequence[Machine], fitting: int | None, most: int | None
) -> float:
    """The fraction of a GPU, or the number of them, for one trial; 0 without any."""
    if study.gpus_per_trial != "auto":
        asked = float(study.gpus_per_trial)
        return max(asked, 1 / most) if asked and most else asked
    cores = [cpus / gpus for cpus, gpus in machines if gpus]
    if not cores:
        return 0.0
    sharing = min(fitting or 1, most or fitting or 1, max(1, int(min(cores))))
    return _fraction(sharing)


def _fraction(sharing: int) -> float:
    """1 / sharing in Ray's ten-thousandths, rounded down: rounded up, the last one would not
    fit."""
    return int(10_000 / sharing) / 10_000


def _places(cpus: float, gpus_there: float, gpus: float) -> int:
    """Trials that find their GPUs on one machine, of which none is shared out over two; or a
    core."""
    if not gpus:
        return int(cpus)
    return int(gpus_there) * int(1 / gpus + 1e-9) if gpus < 1 else int(gpus_there / gpus)


def _cpu_share(machines: Sequence[Machine], gpus: float, concurrent: int) -> float:
    """The most CPUs per trial with which all concurrent trials find a place.

    A trial runs on one machine: a share of the cluster's sum may be more than any machine has, and
    a machine without a GPU has no place for a trial that needs one.
    """
    # A share rounded up would leave the last trial waiting for a core that is free.
    shares = {
        int(1000 * cpus / count) / 1000
        for cpus, _ in machines
        for count in range(1, concurrent + 1)
    }

    def places(share: float) -> int:
        return sum(
            min(int(cpus / share + 1e-9), _places(cpus, there, gpus) if gpus else concurrent)
            for cpus, there in machines
        )

    return max((s for s in shares if s > 0 and places(s) >= concurrent), default=0.0)
