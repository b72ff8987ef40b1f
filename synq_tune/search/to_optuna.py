"""A study's finished trials as a study of Optuna, for its plots and importances."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState, create_trial

from synq_tune.config import Domain
from synq_tune.config.metrics import mode_of
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import objectives

_STATES = {"completed": TrialState.COMPLETE, "stopped": TrialState.PRUNED}


def to_optuna(state: StudyState) -> optuna.Study:
    """A study in memory with every final search trial, in order of their numbers.

    Completed trials have the metric's last value, or a value for each objective; stopped ones are
    pruned, others failed. Metrics of each evaluated epoch are intermediate values.
    """
    names = objectives(state)
    directions = ["minimize" if mode_of(name) == "min" else "maximize" for name in names]
    study = optuna.create_study(study_name=state.spec.name, directions=directions)
    with warnings.catch_warnings():  # it names the axis of Optuna's plots, no more
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(names))
    for run in state.of_kind("search"):
        if run.is_final:
            study.add_trial(_trial(run, state, names))
    return study


def _trial(run: Run, state: StudyState, names: Sequence[str]) -> FrozenTrial:
    domains = {
        key: _distribution(state.spec.search[key]) for key in run.params if key in state.spec.search
    }
    kind = _STATES.get(run.state, TrialState.FAIL)
    values = {row["epoch"]: row["metrics"].get(names[0]) for row in run.history}
    is_complete = kind is TrialState.COMPLETE and all(name in run.metrics for name in names)
    return create_trial(
        state=kind if is_complete or kind is not TrialState.COMPLETE else TrialState.FAIL,
        values=[run.metrics[name] for name in names] if is_complete else None,
        params={key: run.params[key] for key in domains},
        distributions=domains,
        intermediate_values={epoch: v for epoch, v in values.items() if v is not None},
        user_attrs={"key": run.key, "metrics": run.metrics},
    )


def _distribution(domain: Domain) -> BaseDistribution:
    if domain.choice is not None:
        return CategoricalDistribution(domain.values)
    low, high = domain.values
    kind: Any = FloatDistribution if domain.float_ is not None else IntDistribution
    return kind(low, high, log=domain.log)
