"""How many trials run at once and what each of them gets."""

from __future__ import annotations

from dataclasses import dataclass

from synq_tune.config import Study


@dataclass(frozen=True)
class Plan:
    """Shares of one trial, and how many trials there are at once."""

    max_concurrent: int
    cpus_per_trial: float
    gpus_per_trial: float
    threads: int
    """CPU threads torch may use in one trial."""


def plan_resources(study: Study, num_cpus: int, num_gpus: int) -> Plan:
    """Divide the cluster among concurrent trials.

    Without a GPU a trial gets one core by default. With GPUs it gets one of them, or the fraction
    the study asks for; cores are divided evenly, so that trials never fight for threads.

    Args:
        study: `max_concurrent` and `gpus_per_trial`, either may be `auto`; a deterministic one runs
            at most that many trials at once, with one thread each on any machine.
        num_cpus: cores of the cluster, at least 1.
        num_gpus: GPUs of the cluster.
    """
    auto_gpus = 1.0 if num_gpus else 0.0
    gpus = auto_gpus if study.gpus_per_trial == "auto" else float(study.gpus_per_trial)
    fitting = int(num_gpus / gpus) if gpus else num_cpus
    wanted = fitting if study.max_concurrent == "auto" else study.max_concurrent
    concurrent = max(1, min(wanted, fitting if gpus else wanted))
    if study.deterministic is not None:
        concurrent = min(concurrent, study.deterministic)
    # A share rounded up would leave the last trial waiting for a core that is free.
    share = int(1000 * num_cpus / concurrent) / 1000
    # The order in which threads add decides the last bits of a sum.
    threads = 1 if study.deterministic is not None else max(1, num_cpus // concurrent)
    return Plan(concurrent, min(share, num_cpus), gpus, threads)
