"""How many trials run at once and what each of them gets."""

from __future__ import annotations

from dataclasses import dataclass

from synq_tune.config import Study

ROUND_TRIALS = 250
"""Trials in one run of Tune, which keeps about 60 kB of each and looks through all of them at each step:
with thousands, the driver starts Tune anew every so often."""


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
    num_cpus: int,
    num_gpus: int,
    fitting: int | None = None,
    most: int | None = None,
) -> Plan:
    """Divide the cluster among concurrent trials.

    Without a GPU a trial gets one core by default. With GPUs the first trials get one each; the next
    share it as their memory allows, or in the fraction the study asks for. Cores are divided evenly,
    so that trials never fight for threads.

    Args:
        study: `max_concurrent` and `gpus_per_trial`, either may be `auto`; a deterministic one runs
            at most that many trials at once, with one thread each on any machine.
        num_cpus: cores of the cluster, at least 1.
        num_gpus: GPUs of the cluster.
        fitting: trials whose memory fits on one GPU; None if not measured yet.
        most: trials that one GPU was seen to hold at most; None if all did.
    """
    gpus = _gpu_share(study, num_cpus, num_gpus, fitting, most)
    places = int(num_gpus / gpus) if gpus else num_cpus
    wanted = places if study.max_concurrent == "auto" else study.max_concurrent
    concurrent = max(1, min(wanted, places if gpus else wanted))
    if study.deterministic is not None:
        concurrent = min(concurrent, study.deterministic)
    # A share rounded up would leave the last trial waiting for a core that is free.
    share = int(1000 * num_cpus / concurrent) / 1000
    # The order in which threads add decides the last bits of a sum.
    threads = 1 if study.deterministic is not None else max(1, num_cpus // concurrent)
    is_measuring = study.gpus_per_trial == "auto" and num_gpus > 0 and fitting is None
    rounds = num_gpus if is_measuring else ROUND_TRIALS
    return Plan(concurrent, min(share, num_cpus), gpus, threads, rounds)


def _gpu_share(
    study: Study, num_cpus: int, num_gpus: int, fitting: int | None, most: int | None
) -> float:
    """The fraction of a GPU, or the number of them, for one trial; 0 without any."""
    if study.gpus_per_trial != "auto":
        asked = float(study.gpus_per_trial)
        return max(asked, 1 / most) if asked and most else asked
    if not num_gpus:
        return 0.0
    sharing = min(fitting or 1, most or fitting or 1, max(1, num_cpus // num_gpus))
    return _fraction(sharing)


def _fraction(sharing: int) -> float:
    """1 / sharing in Ray's ten-thousandths, rounded down: rounded up, the last one would not fit."""
    return int(10_000 / sharing) / 10_000
