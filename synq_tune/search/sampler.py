"""Optuna's TPE as a pure function of the ledger: same runs in it, same proposal, in any process.

The study that Optuna sees lives in memory and is fed from the ledger, in order of trial numbers.
Proposal k is drawn by a fresh sampler seeded from (study.seed, k), so a restart changes nothing.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from synq_tune.config import Domain, StudySpec
from synq_tune.config.metrics import objective
from synq_tune.search.design import spread
from synq_tune.seeds import derive_seed
from synq_tune.store import canonical_json
from synq_tune.study.state import Run, StudyState

FEWEST_STARTUP = 10
"""First trials, which are spread over the space. From fewer, TPE learns one corner of it."""
STARTUP_SHARE = 4
"""A long study spreads one trial in this many."""
_MAX_DRAWS = 8
"""Of TPE for one proposal."""
_MAX_TRIALS_READ = 800
"""Of all draws for one proposal together: each reads every trial there is, and a long study's
proposals shall cost what a short one's do."""
_NEIGHBOURS = 20
_MAX_ENUMERATED = 100_000

MetricOf = Callable[[Run], float | None]


class Sampler:
    """Proposes the next configuration of a study; never one that it has proposed before."""

    def __init__(self, spec: StudySpec, metric_of: MetricOf, others: Sequence[str] = ()) -> None:
        """Start with an empty picture; the first `propose` reads the whole state.

        Args:
            spec: of the study.
            metric_of: what to maximise, from a run's `metrics`; None if it was not measured.
            others: metrics of the further objectives; with any, TPE proposes for the front (Ozaki
                et al., 2020).
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.spec = spec
        self.metric_of = metric_of
        self.others = tuple(others)
        self.startup = max(FEWEST_STARTUP, spec.study.num_trials // STARTUP_SHARE)
        self._design: list[dict[str, Any]] | None = None
        domains = {key: domain for key, domain in sorted(spec.search.items()) if _size(domain) > 1}
        self._distributions = {key: _distribution(domain) for key, domain in domains.items()}
        self._study = optuna.create_study(
            directions=["maximize"] * (1 + len(self.others)), sampler=_random_sampler(0)
        )
        self._draft = self._study.ask()
        """What all proposals are drawn for; it never ends."""
        self._open: dict[str, optuna.Trial] = {}
        self._seen: set[str] = set()
        self._num_read = 0
        self._num_informative = 0

    def propose(self, state: StudyState) -> dict[str, Any] | None:
        """The next configuration; None when the whole space has been proposed.

        Args:
            state: of the ledger that this sampler has followed so far.
        """
        runs = state.of_kind("search")
        self._read(state, runs)
        for params in first_configurations(self.spec):
            if self._is_new(params):
                return params
        return self._ask_new(len(runs))

    def _is_new(self, params: Mapping[str, Any]) -> bool:
        return configuration_key(params) not in self._seen

    def _read(self, state: StudyState, runs: list[Run]) -> None:
        """Bring Optuna's study up to date; trials are added in the order of their numbers."""
        for run in runs[self._num_read :]:
            self._add(run)
        self._num_read = len(runs)
        for run in [state.runs[key] for key in self._open]:
            if run.is_final:
                self._tell(self._open.pop(run.key), run)

    def _add(self, run: Run) -> None:
        """Let Optuna know that a run exists; until it is over, TPE keeps its distance from it."""
        self._seen.add(configuration_key(run.params))
        # TPE can only place points of the space; finetune's own value in a `first` may be outside.
        if is_inside(self.spec, run.params):
            self._study.sampler = _random_sampler(0)
            self._study.enqueue_trial(self._encode(run.params))
            self._open[run.key] = self._study.ask(self._distributions)

    def _tell(self, trial: optuna.Trial, run: Run) -> None:
        """Report a final run.

        TPE ranks completed trials first, then pruned ones by the epoch they reached and their value
        there, and last pruned ones without a value. A diverged or failed run is told as the latter:
        told as FAIL it would be left out, and its neighbourhood proposed again. With several
        objectives Optuna takes no values of a pruned trial: all of them rank last.
        """
        values = self._values(run) if run.state == "completed" else None
        value = values[0] if values else None
        if values is not None:
            self._study.tell(trial, values)
        else:
            takes_steps = run.state == "stopped" and not self.others
            steps = self._steps(run) if takes_steps else {}
            for epoch, step_value in steps.items():
                trial.report(step_value, epoch)
            self._study.tell(trial, state=TrialState.PRUNED)
            value = next(iter(steps.values()), None)
        self._num_informative += value is not None

    def _values(self, run: Run) -> list[float] | None:
        """What to maximise of a run, in the order of the objectives; None where one is missing."""
        values = [self.metric_of(run), *(objective(run.metrics, name) for name in self.others)]
        return None if None in values else values

    def _steps(self, run: Run) -> dict[int, float]:
        """Value of the metric at each evaluated epoch."""
        rows = [(e["epoch"], e["metrics"]) for e in run.history] or [(run.epochs_run, run.metrics)]
        values = {epoch: self.metric_of(replace(run, metrics=row)) for epoch, row in rows}
        return {epoch: value for epoch, value in values.items() if value is not None}

    def _ask_new(self, number: int) -> dict[str, Any] | None:
        """Optuna's first draw that is new, else one near its last draw, else any that is left.

        In a discrete space TPE soon repeats itself: it does not know that a second run of the same
        configuration would tell nothing.
        """
        for params in self._spread() if self._num_informative < self.startup else ():
            if self._is_new(params):
                return params
        generator = random.Random(derive_seed("draw", self.spec.study.seed, number))
        drawn = self._drawn(derive_seed("proposal", self.spec.study.seed, number))
        near = self._neighbours(drawn[-1], generator)
        for params in itertools.chain(drawn, near):
            if self._is_new(params):
                return params
        return self._draw_new(generator)

    def _spread(self) -> list[dict[str, Any]]:
        """The design of this study's first trials, made when it is needed first."""
        if self._design is None:
            seed = derive_seed("design", self.spec.study.seed)
            beside = first_configurations(self.spec)
            count = min(self.startup, self.spec.study.num_trials)
            self._design = spread(self.spec.search, count, seed, beside)
        return self._design

    def _drawn(self, seed: int) -> list[dict[str, Any]]:
        """Draws of one sampler up to the first new one; at the start at random, then TPE."""
        # Divergence teaches where not to go, not where to go: TPE needs runs with a value.
        is_startup = self._num_informative < self.startup
        sampler = _random_sampler(seed) if is_startup else self._tpe(seed)
        drawn = [self._draw_once(sampler)]
        most = min(_MAX_DRAWS, _MAX_TRIALS_READ // max(1, self._num_read))
        while not self._is_new(drawn[-1]) and len(drawn) < most:
            drawn.append(self._draw_once(sampler))
        return drawn

    def _draw_once(self, sampler: optuna.samplers.BaseSampler) -> dict[str, Any]:
        study, distributions = self._study, self._distributions
        # Samplers leave out the trial they draw for: a proposal that is not recorded leaves no
        # trace.
        frozen = study.get_trials(deepcopy=False)[self._draft.number]
        drawn = sampler.sample_relative(study, frozen, distributions)
        for key in [key for key in distributions if key not in drawn]:
            drawn[key] = sampler.sample_independent(study, frozen, key, distributions[key])
        return self._decode(drawn)

    def _neighbours(
        self, params: dict[str, Any], generator: random.Random
    ) -> Iterator[dict[str, Any]]:
        """`params` with one value drawn anew, later with two, and so on up to all."""
        keys = list(self._distributions)
        for count in range(1, len(keys) + 1):
            for _ in range(_NEIGHBOURS):
                changed = generator.sample(keys, count)
                yield params | {k: _draw(self.spec.search[k], generator) for k in changed}

    def _tpe(self, seed: int) -> optuna.samplers.TPESampler:
        """Every argument that matters, in the open: other defaults of Optuna change nothing."""
        return optuna.samplers.TPESampler(
            n_startup_trials=self.startup,
            n_ei_candidates=24,
            multivariate=True,
            group=False,
            constant_liar=True,
            seed=seed,
        )

    def _draw_new(self, generator: random.Random) -> dict[str, Any] | None:
        """A new configuration at random; None only if there is none."""
        if space_size(self.spec) <= _MAX_ENUMERATED:
            left = [params for params in _all_configurations(self.spec) if self._is_new(params)]
            return generator.choice(left) if left else None
        draws = (draw_configuration(self.spec, generator) for _ in itertools.count())
        return next(params for params in draws if self._is_new(params))

    def _encode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Values as Optuna sees them: a choice is its index in `Domain.values`."""
        return {
            key: _index(domain, params[key]) if domain.choice is not None else params[key]
            for key, domain in self.spec.search.items()
            if key in self._distributions
        }

    def _decode(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: _value(domain, drawn[key]) if key in drawn else domain.values[0]
            for key, domain in self.spec.search.items()
        }


def first_configurations(spec: StudySpec) -> list[dict[str, Any]]:
    """`study.first`, each completed by the study's own values of the searched keys."""
    own = {key: spec.own_value(key) for key in spec.search}
    configurations = []
    for params in spec.study.first:
        values = {key: params.get(key, own[key]) for key in spec.search}
        configurations.append({k: _normal(spec.search[k], v) for k, v in values.items()})
    return configurations


def max_trials(spec: StudySpec) -> int:
    """How many trials the study can have: `num_trials`, or fewer if the space is smaller.

    Where nothing is trained, nothing that is searched matters but widths: one without any.
    """
    if not spec.is_varied:
        return 1
    outside = [p for p in first_configurations(spec) if not is_inside(spec, p)]
    # Calibration alone, tried first for a target, is one trial and no point of the space.
    total = space_size(spec) + int(spec.study.target_loss is not None)
    total += len({configuration_key(params) for params in outside})
    return int(min(spec.study.num_trials, total))


def space_size(spec: StudySpec) -> float:
    """Number of configurations of the space; infinite with an interval of floats."""
    return math.prod(_size(domain) for domain in spec.search.values())


def is_inside(spec: StudySpec, params: Mapping[str, Any]) -> bool:
    """Whether a configuration is a point of the search space."""
    return all(key in params and d.contains(params[key]) for key, d in spec.search.items())


def configuration_key(params: Mapping[str, Any]) -> str:
    """Identity of a configuration; 5 and 5.0 are the same value."""
    return canonical_json({key: _as_float(value) for key, value in params.items()})


def _as_float(value: Any) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else value


def _size(domain: Domain) -> float:
    """Number of values; an interval of one float has one."""
    is_point = domain.choice is None and domain.values[0] == domain.values[1]
    return 1 if is_point else domain.size


def _distribution(domain: Domain) -> BaseDistribution:
    """Numbers keep their order, also when only a few are allowed; other choices have none."""
    if domain.choice is not None:
        last = len(domain.choice) - 1
        indices = CategoricalDistribution(range(last + 1))
        return IntDistribution(0, last) if domain.is_ordered else indices
    if domain.float_ is not None:
        return FloatDistribution(*domain.float_, log=domain.log)
    return IntDistribution(*domain.values, log=domain.log)


def _index(domain: Domain, value: Any) -> int:
    return [_as_float(v) for v in domain.values].index(_as_float(value))


def _value(domain: Domain, drawn: Any) -> Any:
    return domain.values[drawn] if domain.choice is not None else drawn


def _normal(domain: Domain, value: Any) -> Any:
    """The domain's own spelling of a value it contains."""
    if not domain.contains(value):
        return value
    if domain.choice is not None:
        return domain.values[_index(domain, value)]
    return float(value) if domain.float_ is not None else int(value)


def _all_values(domain: Domain) -> tuple[Any, ...]:
    if domain.choice is not None:
        return domain.values
    low, high = domain.values
    return (low,) if low == high else tuple(range(low, high + 1))


def _all_configurations(spec: StudySpec) -> Iterator[dict[str, Any]]:
    options = itertools.product(*(_all_values(domain) for domain in spec.search.values()))
    return (dict(zip(spec.search, values, strict=True)) for values in options)


def draw_configuration(spec: StudySpec, generator: random.Random) -> dict[str, Any]:
    """A point of the search space at random, each value on its own."""
    return {key: _draw(domain, generator) for key, domain in spec.search.items()}


def _draw(domain: Domain, generator: random.Random) -> Any:
    if domain.choice is not None:
        return generator.choice(domain.values)
    low, high = domain.values
    if domain.log:
        drawn = math.exp(generator.uniform(math.log(low), math.log(high)))
        drawn = min(max(drawn, low), high)
    else:
        drawn = generator.uniform(low, high)
    return drawn if domain.float_ is not None else min(max(round(drawn), low), high)


def _random_sampler(seed: int) -> optuna.samplers.RandomSampler:
    return optuna.samplers.RandomSampler(seed=seed)
