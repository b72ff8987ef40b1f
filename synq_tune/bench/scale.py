"""What a driver costs a trial, part by part, and whether that adds up when 64 workers send it
messages."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from synq_tune.bench.material import Report
from synq_tune.bench.scale_model import Driver, Line, read_off
from synq_tune.bench.simulated_study import METRIC, PARTS, SimulatedDriver
from synq_tune.bench.two_raylets import two_raylets
from synq_tune.config import StudySpec
from synq_tune.errors import InputError
from synq_tune.notes import counted
from synq_tune.search.cluster import ray_cluster
from synq_tune.search.resources import ROUND_TRIALS, ROUND_TURNS
from synq_tune.search.sampler import space_size

PLACES, FEW_PLACES = 64, 8
FEW, MANY = 0, 9000
"""Finished trials before those that are watched."""
WATCHED = 60
"""Trials that are watched without Ray."""
READ_PLACES, READ_TRIALS = 1000, 10_000
"""What the model is read off for."""
BESIDE = ("mlflow", "ray")
"""Parts that threads of their own do."""


@dataclass(frozen=True)
class Cost:
    """Milliseconds a trial."""

    cpu: dict[str, float]
    """By part."""
    disk: float
    """That the ledger waited for the disk."""
    messages: int
    """Bytes of a trial's states and student."""


def bench_scale(spec: StudySpec, rounds: int, device: torch.device) -> Report:
    """CPU of the driver a trial, alone with few and with many finished trials, and on two raylets.

    Proposals, ledger, `summary.json`, console, checkpoints and MLflow on SQLite are a study's own.
    Simulated are the workers: they train nothing, import no torch, and send the messages of a trial
    that nobody stops. What Ray costs is measured with 8 workers; 64 are the check of the sum.

    Args:
        spec: its search space, epochs and network, whose size the messages have.
        rounds: trials on Ray, at least one for each worker.
        device: not used, as nothing is trained; every benchmark has it.

    Raises:
        InputError: the space has too few configurations or does not fit its network, or Ray does
            not start.
    """
    del device
    _check_size(spec, max(MANY + WATCHED + PLACES, rounds))
    few, many = (alone(spec, earlier, WATCHED, PLACES) for earlier in (FEW, MANY))
    ray = _told_apart(on_ray(spec, max(rounds // 4, 4 * FEW_PLACES), FEW_PLACES), few)
    run = _told_apart(on_ray(spec, max(rounds, 2 * PLACES), PLACES), few)
    return _report(spec, model_of(few, many, ray.cpu["ray"]), few, many, run)


def _told_apart(cost: Cost, alone: Cost) -> Cost:
    """A cost on Ray whose share of Ray is without what Tune calls and nobody watches there."""
    called = {name: alone.cpu[name] for name in ("suggest", "callback")}
    ray = cost.cpu["ray"] - sum(called.values())
    return replace(cost, cpu={**cost.cpu, **called, "ray": ray})


def _check_size(spec: StudySpec, trials: int) -> None:
    if space_size(spec) < trials:
        raise InputError(
            f"`the space has {trials} configurations` must hold for this benchmark, but got "
            f"{space_size(spec):g}. Give an interval: --set 'search.lr={{float: [0.001, 0.1]}}'."
        )


def model_of(few: Cost, many: Cost, ray: float) -> Driver:
    """The model through what was measured with few and with many finished trials.

    Args:
        few: at `FEW` finished trials.
        many: at `MANY`.
        ray: milliseconds a trial for Ray's messages and Tune, whatever has finished.
    """
    parts = {name: Line.through((FEW, few.cpu[name]), (MANY, many.cpu[name])) for name in few.cpu}
    own = {name: line for name, line in parts.items() if name not in BESIDE}
    beside = {name: line for name, line in parts.items() if name in BESIDE} | {"ray": Line(ray)}
    return Driver(own, beside, (few.disk + many.disk) / 2)


def alone(spec: StudySpec, earlier: int, trials: int, places: int) -> Cost:
    """Without Ray: the messages come from the driver's own process.

    Args:
        spec: of the study.
        earlier: finished trials that the ledger has already.
        trials: watched.
        places: trials at once.
    """
    with _driver(spec, earlier + trials + places, places, earlier) as driver:
        driver.run_alone(trials, places)
        return _cost(driver, trials)


def on_ray(spec: StudySpec, trials: int, places: int) -> Cost:
    """On two raylets of this machine, with a worker process for each place.

    The first trials, one for each place, are left out: they wait for workers to start.

    Returns:
        The cost, in which `ray` is what the process took beyond the watched parts.
    """
    with _driver(spec, trials, places) as driver, two_raylets() as address:
        ended = _moments(driver, places)
        with ray_cluster(address) as machines:
            driver.run_on(machines)
        driver.tracked.wait()
        whole, number = time.process_time() - ended[0][1], ended[-1][0] - ended[0][0]
    cost = _cost(driver, number)
    cost.cpu["ray"] = 1000 * whole / number - sum(cost.cpu.values())
    return cost


def _moments(driver: SimulatedDriver, warm: int) -> list[tuple[int, float]]:
    """(trials that are over, CPU seconds) from the moment on at which `warm` are over."""
    told, moments = driver._on_transition, []

    def on_transition(key: str) -> None:
        told(key)
        over = driver.ledger.state.tally.num_over()
        if over == warm and not moments:
            driver.watch.reset()
        if over >= warm:
            moments.append((over, time.process_time()))

    driver._on_transition = on_transition
    return moments


@contextlib.contextmanager
def _driver(
    spec: StudySpec, trials: int, places: int, earlier: int = 0
) -> Iterator[SimulatedDriver]:
    """A driver in a folder of its own, whose lines nobody reads."""
    study = spec.study.model_copy(
        update={"num_trials": trials, "max_concurrent": places, "metric": METRIC, "val_data": None,
                "confirm": None, "target_loss": None, "max_hours": None, "scheduler": "none",
                "gpus_per_trial": 0.0}
    )  # fmt: skip
    spec = spec.model_copy(update={"study": study})
    with (
        tempfile.TemporaryDirectory(prefix="synq_tune_bench_") as folder,
        open(os.devnull, "w", encoding="utf-8") as nobody,
        contextlib.redirect_stdout(nobody),
    ):
        driver = SimulatedDriver(spec, Path(folder) / "studies" / "simulated", earlier)
        try:
            yield driver
        finally:
            driver.close()


def _cost(driver: SimulatedDriver, trials: int) -> Cost:
    watch, told = driver.watch, driver.context
    cpu = {name: 1000 * watch.cpu[name] / trials for name in PARTS}
    disk = 1000 * (watch.wall["ledger"] - watch.cpu["ledger"]) / trials
    states = (len(told["evaluated"]) - 1) * told["state_bytes"]
    return Cost(cpu, disk, states + told["student_bytes"])


def _report(spec: StudySpec, driver: Driver, few: Cost, many: Cost, run: Cost) -> Report:
    numbers: dict[str, object] = {
        "space": spec.name,
        **{f"{name}_ms": value for name, value in few.cpu.items()},
        **{f"{name}_ms_at_{MANY}": value for name, value in many.cpu.items()},
        "ray_ms": driver.beside["ray"].at_0,
        "disk_ms": driver.waiting,
        "predicted_ms": driver.cpu(PLACES),
        "measured_ms": sum(run.cpu.values()),
        "measured": run.cpu,
        "bytes_per_trial": few.messages,
    }
    title = f"CPU of the driver a trial of {spec.name}, whose messages are real, in milliseconds"
    columns = counted(FEW, "trial"), counted(MANY, "trial"), counted(PLACES, "worker")
    heads = f"{'finished before, or on Ray':36}{columns[0]:>12}{columns[1]:>14}{columns[2]:>14}"
    rows = [_row(PARTS[n], few.cpu[n], many.cpu[n], run.cpu[n]) for n in PARTS]
    rows += [_row("Ray and Tune", driver.beside["ray"].at_0, None, run.cpu["ray"])]
    rows += [_row("the ledger waits for the disk", few.disk, many.disk, run.disk)]
    lines = [title, "", heads, *rows, "", *_check(numbers), "", *_readings(driver, few.messages)]
    return Report(lines, numbers)


def _row(name: str, few: float, many: float | None, run: float) -> str:
    return f"{name:36}{few:12.1f}{'' if many is None else f'{many:.1f}':>14}{run:14.1f}"


def _readings(driver: Driver, messages: int) -> list[str]:
    """What a study of 10,000 trials on 1,000 GPUs comes to, by how long a trial takes."""
    in_round = max(ROUND_TRIALS, ROUND_TURNS * READ_PLACES)
    found = []
    for minutes in (1, 10, 60):
        read = read_off(driver, READ_PLACES, READ_TRIALS, minutes, in_round, messages)
        found.append(
            f"trials an hour with {READ_PLACES:,} places, {minutes:2} min each: "
            f"{read.trials_per_hour:,.0f} of {read.wanted:,.0f} (bottleneck: {read.bottleneck}), "
            f"{read.megabytes:.1f} MB/s to the driver"
        )
    return [*found, f"largest part of the driver at the end: {driver.largest(READ_TRIALS)}"]


def _check(numbers: Mapping[str, object]) -> list[str]:
    predicted, measured = float(str(numbers["predicted_ms"])), float(str(numbers["measured_ms"]))
    return [
        f"with {counted(PLACES, 'worker')}: predicted {predicted:.1f} ms, measured {measured:.1f} ms, "
        f"{measured / predicted:.2f} times"
    ]
