"""Which searched parameters mattered: fANOVA of the trials that completed (Hutter et al., 2014).

Of several objectives the first is explained: what the others cost follows from the widths alone.
"""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from synq_tune.search.to_optuna import to_optuna
from synq_tune.study.state import StudyState

_FOREST = {"n_trees": 16, "max_depth": 8, "seed": 0}
"""A quarter of Optuna's trees, which took a minute where 600 trials completed."""
_FEWEST = 2


def parameter_importances(state: StudyState) -> dict[str, float]:
    """Share in [0, 1] of the metric's variation by parameter, the largest first.

    Empty where fewer than two trials completed, or all measured the same: nothing varies.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = to_optuna(state)
    done = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    if len(done) < _FEWEST or len({_first(trial) for trial in done}) == 1 or not _varied(done):
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        evaluator = FanovaImportanceEvaluator(**_FOREST)
        shares = get_param_importances(study, evaluator=evaluator, target=_first)
    return {key: float(share) for key, share in shares.items()}


def _first(trial: FrozenTrial) -> float:
    return trial.values[0]


def _varied(trials: list[FrozenTrial]) -> bool:
    """Whether any parameter took two values."""
    return any(len({str(t.params.get(key)) for t in trials}) > 1 for key in trials[0].params)
