"""Proposals follow from the ledger alone, and never repeat."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.search.queue import RunQueue
from synq_tune.search.sampler import (
    Sampler,
    configuration_key,
    first_configurations,
    max_trials,
)
from synq_tune.seeds import trial_seed
from synq_tune.study.ledger import Ledger
from synq_tune.study.state import Run

SMALL = {"lr": {"choice": [0.01, 0.001, 0.1]}, "cam": {"choice": ["cam", "gradcam"]}}
CONTINUOUS = {
    "lr": {"float": [1.0e-4, 1.0e-1], "log": True},
    "tau": {"float": [0.3, 0.9]},
    "num_views": {"int": [1, 8]},
}
Fitness = Callable[[dict[str, Any]], float]


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., StudySpec]:
    """The digits study with another space; `study` overrides its settings."""

    def make(search: dict[str, Any] | None = None, **study: Any) -> StudySpec:
        if search is None:
            return load_space("digits_w3a3", flags={"study": study})
        tree = load_space("digits_w3a3").model_dump(mode="json", by_alias=True)
        tree |= {"search": search, "study": tree["study"] | study}
        path = tmp_path / "space.yaml"
        path.write_text(yaml.safe_dump(tree))
        return load_space(str(path))

    return make


def top1(run: Run) -> float | None:
    return run.metrics.get("top1")


def propose(ledger: Ledger, sampler: Sampler) -> dict[str, Any] | None:
    """Ask, and record the proposal as the driver does."""
    params = sampler.propose(ledger.state)
    if params is not None:
        number = len(ledger.state.runs)
        key = f"trial-{number:04d}"
        ledger.append("proposed", key=key, kind="search", number=number, params=params, seed=0)
        ledger.append("started", key=key)
    return params


def finish(ledger: Ledger, number: int, how: str = "completed", **metrics: float) -> None:
    key = f"trial-{number:04d}"
    if metrics:
        ledger.append("evaluated", key=key, epoch=24, metrics=metrics, losses={})
    ledger.append("finished", key=key, state=how, metrics={}, epochs_run=24, seconds=1.0)


def search(ledger: Ledger, sampler: Sampler, count: int, fitness: Fitness) -> list[dict[str, Any]]:
    found = []
    for _ in range(count):
        params = propose(ledger, sampler)
        assert params is not None
        finish(ledger, len(ledger.state.runs) - 1, top1=fitness(params))
        found.append(params)
    return found


def fitness(params: dict[str, Any]) -> float:
    """Best at the largest lambda_cam and lr = 0.003."""
    return 90.0 - 500 * abs(params["lr"] - 0.003) + params["lambda_cam"] / 1000


def test_restart_changes_no_proposal(tmp_path: Path, make_spec: Callable[..., StudySpec]) -> None:
    """A sampler fed step by step and one that reads the whole ledger propose the same."""
    spec = make_spec()
    ledger = Ledger.create(tmp_path / "study", spec)
    live = Sampler(spec, top1)
    for number in range(12):
        restarted = Sampler(spec, top1)
        again = Ledger.open(ledger.folder)
        assert restarted.propose(again.state) == live.propose(ledger.state)
        params = propose(ledger, live)
        assert params is not None
        if number % 4 == 1:
            finish(ledger, number - 1, "stopped", top1=50.0)
            finish(ledger, number, "diverged")
        elif number % 4 == 3:
            # Results arrive in another order than the proposals.
            finish(ledger, number, top1=fitness(params))
            finish(ledger, number - 1, top1=fitness(params) - 1)


def test_order_of_results_changes_no_proposal(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """Which of two runs ended first does not matter once both are over."""
    proposals = []
    for name, order in (("a", (0, 1, 2, 3)), ("b", (3, 1, 0, 2))):
        ledger = Ledger.create(tmp_path / name, make_spec())
        sampler = Sampler(ledger.state.spec, top1)
        for _ in range(4):
            propose(ledger, sampler)
        for number in order:
            finish(ledger, number, top1=80.0 + number)
            sampler.propose(ledger.state)
        proposals.append(sampler.propose(ledger.state))
    assert proposals[0] == proposals[1]


def test_asking_twice_gives_the_same(tmp_path: Path, make_spec: Callable[..., StudySpec]) -> None:
    """A proposal that was not recorded leaves no trace."""
    ledger = Ledger.create(tmp_path / "study", make_spec())
    sampler = Sampler(ledger.state.spec, top1)
    search(ledger, sampler, 5, fitness)
    assert sampler.propose(ledger.state) == sampler.propose(ledger.state)


def test_other_seed_gives_other_proposals(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """The study's seed decides."""
    found = []
    for seed in (0, 1):
        ledger = Ledger.create(tmp_path / str(seed), make_spec(seed=seed))
        found.append(search(ledger, Sampler(ledger.state.spec, top1), 3, fitness))
    assert found[0] != found[1]


def test_small_space_is_exhausted_without_repeats(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """Every configuration comes exactly once, then None."""
    ledger = Ledger.create(tmp_path / "study", make_spec(SMALL, num_trials=50))
    sampler = Sampler(ledger.state.spec, top1)
    found = search(ledger, sampler, 6, lambda params: 100 * params["lr"])
    assert len({configuration_key(params) for params in found}) == 6
    assert sampler.propose(ledger.state) is None
    assert max_trials(ledger.state.spec) == 6


def test_long_studies_draw_no_more_than_short_ones(
    tmp_path: Path, make_spec: Callable[..., StudySpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Draws of TPE times the trials that each reads stay bounded, and nothing is proposed twice."""
    monkeypatch.setattr("synq_tune.search.sampler._MAX_TRIALS_READ", 40)
    drawn: dict[int, int] = {}
    draws = Sampler._drawn

    def counted(self: Sampler, seed: int) -> list[dict[str, Any]]:
        found = draws(self, seed)
        drawn[self._num_read] = len(found)
        return found

    monkeypatch.setattr(Sampler, "_drawn", counted)
    space = {"lr": {"choice": [0.1, 0.2, 0.3]}, "d0": {"choice": [1, 2, 4, 8, 16, 20, 40, 60, 80]}}
    ledger = Ledger.create(tmp_path / "study", make_spec(space, num_trials=27))
    found = search(ledger, Sampler(ledger.state.spec, top1), 27, lambda params: params["lr"])
    assert len({configuration_key(params) for params in found}) == 27
    assert max(count for read, count in drawn.items() if read < 16) > 1
    assert all(count <= max(1, 40 // read) for read, count in drawn.items())


def test_running_trials_are_not_proposed_again(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """Parallel trials differ although none has a result."""
    ledger = Ledger.create(tmp_path / "study", make_spec(SMALL))
    sampler = Sampler(ledger.state.spec, top1)
    found = [propose(ledger, sampler) for _ in range(7)]
    assert found[6] is None
    assert len({configuration_key(params) for params in found[:6] if params}) == 6


def test_proposals_are_valid_configurations(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """All forms of a domain give values inside it, without a warning of Optuna."""
    space = {
        **CONTINUOUS,
        "schedule": {"choice": ["cosine", "constant"]},
        "crop_scale": {"choice": [[0.5, 1.0], [0.8, 1.0], None]},
        "batch_size": {"int": [64, 66]},
    }
    ledger = Ledger.create(tmp_path / "study", make_spec(space, num_trials=8))
    spec = ledger.state.spec
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = search(ledger, Sampler(spec, top1), 12, lambda params: 100 * params["tau"])
    for params in found:
        assert all(domain.contains(params[key]) for key, domain in spec.search.items())
        spec.trial_config(params)


def test_first_configurations_come_first(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """`first` is tried in order, completed by finetune's own values, each once."""
    first = [{"lr": 0.01}, {"lr": 0.01, "cam": "cam"}, {"lr": 0.01}]
    spec = make_spec(SMALL, first=first, num_trials=6)
    ledger = Ledger.create(tmp_path / "study", spec)
    found = search(ledger, Sampler(spec, top1), 6, lambda params: 1.0)
    own = spec.finetune.cam
    assert found[:2] == [{"lr": 0.01, "cam": own}, {"lr": 0.01, "cam": "cam"}]
    assert len({configuration_key(params) for params in found}) == 6


def test_first_configuration_may_lie_outside(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """finetune's own value counts as tried although the space does not hold it."""
    space = {"cam": {"choice": ["cam", "gradcam"]}, "lr": {"choice": [0.5, 0.7]}}
    spec = make_spec(space, first=[{"cam": "cam"}], num_trials=9)
    ledger = Ledger.create(tmp_path / "study", spec)
    sampler = Sampler(spec, top1)
    assert first_configurations(spec)[0]["lr"] == spec.finetune.lr
    assert max_trials(spec) == 5
    assert len(search(ledger, sampler, 5, lambda params: params["lr"])) == 5
    assert sampler.propose(ledger.state) is None


@pytest.mark.parametrize(("num_trials", "startup"), [(1, 10), (8, 10), (40, 10), (64, 16)])
def test_ten_trials_or_a_quarter_come_before_tpe(
    make_spec: Callable[..., StudySpec], num_trials: int, startup: int
) -> None:
    """From fewer TPE repeats the best of them with one value changed."""
    assert Sampler(make_spec(num_trials=num_trials), top1).startup == startup


def test_tpe_moves_towards_good_values(tmp_path: Path, make_spec: Callable[..., StudySpec]) -> None:
    """After the start most proposals are near the optimum."""
    ledger = Ledger.create(tmp_path / "study", make_spec(CONTINUOUS, num_trials=32))
    spec = ledger.state.spec
    found = search(ledger, Sampler(spec, top1), 32, lambda p: 90 - 100 * abs(p["tau"] - 0.4))
    late = [abs(params["tau"] - 0.4) for params in found[16:]]
    assert sum(distance < 0.15 for distance in late) >= 12


def test_tpe_moves_away_from_divergence(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """A region where trials diverge is left."""
    ledger = Ledger.create(tmp_path / "study", make_spec(CONTINUOUS, num_trials=24))
    sampler = Sampler(ledger.state.spec, top1)
    found = []
    for number in range(24):
        params = propose(ledger, sampler)
        assert params is not None
        found.append(params["lr"] > 1e-2)
        if found[-1]:
            finish(ledger, number, "diverged")
        else:
            finish(ledger, number, top1=80.0)
    assert sum(found[12:]) <= 3


def test_divergence_alone_teaches_nothing(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """While no run has a value, proposals stay random instead of gathering around a failure."""
    ledger = Ledger.create(tmp_path / "study", make_spec(CONTINUOUS, num_trials=16))
    sampler = Sampler(ledger.state.spec, top1)
    found = []
    for number in range(16):
        params = propose(ledger, sampler)
        assert params is not None
        finish(ledger, number, "diverged")
        found.append(params["tau"])
    assert max(found) - min(found) > 0.4


def test_stopped_trials_are_ranked_below_completed_ones(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """Completed beats stopped whatever the value, a late rung an early one, any value none."""
    from optuna.samplers._tpe.sampler import _split_trials

    ledger = Ledger.create(tmp_path / "study", make_spec(CONTINUOUS, num_trials=8))
    sampler = Sampler(ledger.state.spec, top1)
    for _ in range(4):
        propose(ledger, sampler)
    finish(ledger, 0, "diverged")
    for number, epoch, value in ((1, 3, 99.0), (2, 8, 60.0)):
        key = f"trial-{number:04d}"
        metrics = {"top1": value}
        ledger.append("evaluated", key=key, epoch=epoch, metrics=metrics, losses={}, partial=True)
        finish(ledger, number, "stopped")
    finish(ledger, 3, top1=50.0)
    sampler.propose(ledger.state)
    study = sampler._study
    told = [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED")]
    numbers = [t.number for t in told]
    ranked = []
    for count in range(1, 5):
        below, _ = _split_trials(study, told, count)
        ranked += [numbers.index(t.number) for t in below if numbers.index(t.number) not in ranked]
    assert ranked == [3, 2, 1, 0]


def test_trial_seeds_differ_and_stay() -> None:
    """A trial's seed is a function of the study's seed, its number and its repeat."""
    seeds = {trial_seed(s, n, r) for s in range(3) for n in range(50) for r in range(3)}
    assert len(seeds) == 450
    assert trial_seed(0, 0) == 258919602
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_study_without_search_has_one_trial(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """Nothing to search leaves the settings as they are: one trial."""
    ledger = Ledger.create(tmp_path / "study", make_spec({}))
    sampler = Sampler(ledger.state.spec, top1)
    assert search(ledger, sampler, 1, lambda params: 1.0) == [{}]
    assert sampler.propose(ledger.state) is None
    assert max_trials(ledger.state.spec) == 1


WIDE = {"lr": {"float": [1e-3, 1e-1], "log": True}, "bits.weights": {"choice": [2, 3, 4, 8]}}


def _finish_front(ledger: Ledger, number: int) -> None:
    """Accuracy grows with the width, size too; every fifth trial is stopped, every seventh diverges."""
    params = ledger.state.runs[f"trial-{number:04d}"].params
    how = "stopped" if number % 5 == 4 else "diverged" if number % 7 == 6 else "completed"
    top1 = 99 - 20 / params["bits.weights"] - 100 * abs(params["lr"] - 0.01)
    costs = {"size": 1000.0 * params["bits.weights"]} if how == "completed" else {}
    finish(ledger, number, how, top1=top1, **costs)


def test_two_objectives_propose_the_same_after_a_restart(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """Beyond the start-up too, with trials that were stopped and that diverged."""
    spec = make_spec(WIDE, objectives=["top1", "size"])
    ledger = Ledger.create(tmp_path / "study", spec)
    live = Sampler(spec, top1, ("size",))
    for number in range(24):
        restarted = Sampler(spec, top1, ("size",))
        state = Ledger.open(ledger.folder).state
        assert restarted.propose(state) == live.propose(ledger.state)
        assert propose(ledger, live) is not None
        _finish_front(ledger, number)
    keys = {configuration_key(run.params) for run in ledger.state.runs.values()}
    assert len(keys) == 24


def test_a_front_is_searched_at_both_ends(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """Behind the start-up one objective goes where it is best, two go on drawing narrow widths."""
    drawn = {}
    for name, others in (("one", ()), ("two", ("size",))):
        objectives = {"objectives": ["top1", "size"]} if others else {}
        spec = make_spec(WIDE, num_trials=40, **objectives)
        ledger = Ledger.create(tmp_path / name, spec)
        sampler = Sampler(spec, top1, others)
        for number in range(40):
            assert propose(ledger, sampler) is not None
            _finish_front(ledger, number)
        later = list(ledger.state.runs.values())[15:]
        drawn[name] = sum(run.params["bits.weights"] <= 3 for run in later)
    assert drawn["two"] > drawn["one"] + 3


def test_first_configurations_may_name_any_searched_key(
    make_spec: Callable[..., StudySpec],
) -> None:
    """What one leaves out is the study's own value, of whichever section."""
    search = {**WIDE, "reconstruct.batch_size": {"choice": [16, 32]}}
    spec = make_spec(search, first=[{"lr": 0.01}])
    assert first_configurations(spec) == [
        {"lr": 0.01, "bits.weights": 3, "reconstruct.batch_size": 32}
    ]


def test_calibrations_differ_by_their_widths_alone(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """Where nothing is trained each width is a trial, and neither ladder nor seeds follow."""
    spec = make_spec({"bits.weights": {"choice": [2, 4, 8]}}, objectives=["top1", "size"])
    spec = spec.model_copy(update={"finetune": spec.finetune.model_copy(update={"epochs": 0})})
    ledger = Ledger.create(tmp_path / "study", spec)
    queue = RunQueue(spec, Sampler(spec, top1, ("size",)))
    widths = []
    while (event := queue.propose(ledger.state)) is not None:
        ledger.append("proposed", **event)
        ledger.append("started", key=event["key"])
        finish(ledger, event["number"], top1=90.0 + event["number"], size=1.0)
        widths.append(event["params"]["bits.weights"])
    assert sorted(widths) == [2, 4, 8] and queue.is_done(ledger.state)


def test_the_ladder_says_whose_widths_the_papers_defaults_have(
    tmp_path: Path, make_spec: Callable[..., StudySpec]
) -> None:
    """They run before the best is known; the name is one that MLflow takes."""
    labels = []
    for search in (WIDE, SMALL):
        spec = make_spec(search, num_trials=1)
        ledger = Ledger.create(tmp_path / str(len(labels)), spec)
        queue = RunQueue(spec, Sampler(spec, top1))
        ledger.append("proposed", **queue.propose(ledger.state))
        labels.append(queue.propose(ledger.state)["label"])
    assert labels == ["the paper's defaults at W3A3", "the paper's defaults"]
    assert re.fullmatch(r"[\w\-. /:]+", labels[0].replace("'", ""))
