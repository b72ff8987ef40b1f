"""A run's values as MLflow's metrics, params and tags, in as few requests as its limits allow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from synq_tune.config.metrics import METRICS
from synq_tune.study.state import Run
from synq_tune.tracking.describe import text_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 5000
# MLflow refuses a request of more than 1000 metrics, 100 params or 1000 of all together.
METRICS_PER_BATCH = 800
PARAMS_PER_BATCH = 90


def log_batch(
    client: MlflowClient,
    run_id: str,
    metrics: Sequence[Metric],
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> None:
    """As few requests as MLflow's limits allow; the tags go with the last one."""
    from mlflow.entities import Param, RunTag

    values = [Param(key, value[:MAX_PARAM_LENGTH]) for key, value in params.items()]
    labels = [RunTag(key, value[:MAX_TAG_LENGTH]) for key, value in tags.items()]
    requests = list(
        zip_longest(
            _chunks(metrics, METRICS_PER_BATCH), _chunks(values, PARAMS_PER_BATCH), fillvalue=[]
        )
    )
    if labels and not requests:
        requests = [([], [])]
    for number, (some_metrics, some_params) in enumerate(requests, start=1):
        some_tags = labels if number == len(requests) else []
        client.log_batch(run_id, some_metrics, some_params, some_tags, synchronous=True)


def milliseconds(seconds: float | None) -> int:
    """MLflow's time of a time in seconds; None stands for now."""
    return int(1000 * (time.time() if seconds is None else seconds))


def changed(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of `new` that `old` has not, or has otherwise."""
    return {key: value for key, value in new.items() if key not in old or old[key] != value}


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def points(
    metrics: Mapping[str, float], step: int, at: float | None = None, model_id: str | None = None
) -> list[Metric]:
    """MLflow's points for some metrics.

    Args:
        metrics: value by name.
        step: the epoch.
        at: time in seconds since the epoch; None: now. With the ledger's time a point can be logged
            twice: a store keeps only one of two that agree in time and value.
        model_id: of the logged model that the points belong to as well.
    """
    from mlflow.entities import Metric

    then = milliseconds(at)
    return [Metric(k, shown(k, v), then, step, model_id=model_id) for k, v in metrics.items()]


def shown(name: str, value: float) -> float:
    """The value of a metric as MLflow gets it: a percentage with two decimals.

    MLflow's pages write all digits of a number, and cut what has no room. The ledger and
    `summary.json` have them all.

    Args:
        name: such as `top1`, `agreement_best_epoch`, `best/top1` or `ladder/the best found`.
        value: as measured.
    """
    group, _, bare = name.rpartition("/")
    metric = METRICS.get(bare.removesuffix("_best_epoch"))
    is_percent = group == "ladder" or (metric is not None and metric.unit == "%")
    return round(float(value), 2) if is_percent else float(value)


def epoch_points(entry: Mapping[str, Any], at: float) -> list[Metric]:
    """Metrics and losses of one entry of a run's history, and when it was evaluated.

    The losses of the epochs before it, which nobody evaluated, come with it and have its time.
    """
    earlier = (entry.get("earlier") or {}).items()
    found = [m for epoch, losses in earlier for m in points(_named(losses), int(epoch), at)]
    return found + points({**entry["metrics"], **_named(entry.get("losses"))}, entry["epoch"], at)


def _named(losses: Mapping[str, float] | None) -> dict[str, float]:
    return {f"loss/{name}": value for name, value in (losses or {}).items()}


def final_points(run: Run, last_step: int) -> list[Metric]:
    """The final metrics that MLflow does not show already as the latest ones.

    They go to the highest step of all attempts, because MLflow sorts by the value of the last step.
    """
    if not run.is_final:
        return []
    last = run.history[-1] if run.history else {"epoch": None, "metrics": {}}
    shown = last["metrics"] if last["epoch"] == last_step else {}
    step = max(last_step, run.epochs_run if last_step < 0 else 0)
    return points(changed(run.metrics, shown), step, run.finished_at)


def run_params(run: Run) -> dict[str, str]:
    """What the trial was given."""
    return {key: text_of(value) for key, value in {**run.params, "seed": run.seed}.items()}
