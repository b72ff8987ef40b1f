"""What a study is expected to take, before it starts."""

from __future__ import annotations

import pytest

from synq_tune.commands.dry_run import Counts, UnitSeconds, counts, parts
from synq_tune.config import StudySpec
from synq_tune.config.load import load_space


def _spec(*sets: str) -> StudySpec:
    return load_space("digits_w3a3", sets)


def _counts(*sets: str, labelled: int = 896) -> Counts:
    return counts(_spec(*sets), 10, labelled, (1, 8, 8))


def test_synthesis_counts_centres_and_images() -> None:
    """768 images in 3 batches, and one batch of centres."""
    spec = _spec()
    expected = 3 * spec.synthesis.iterations + spec.synthesis.center_iterations
    assert spec.synthesis.num_images + spec.synthesis.num_holdout <= 3 * spec.synthesis.batch_size
    assert _counts().synthesis_steps == expected


def test_without_a_scheduler_every_trial_trains_to_its_end() -> None:
    """12 trials of 24 epochs of 4 steps, and 3 runs more."""
    found = _counts("study.scheduler=none")
    assert found.trial_steps == 12 * 24 * 4
    assert found.final_steps == (1 + 2) * 24 * 4


@pytest.mark.parametrize("trials", [2, 4, 12, 40])
def test_asha_saves_steps_and_the_more_the_more_trials(trials: int) -> None:
    """Rungs at 3, 9 and 24 epochs: a lone trial runs to its end, of many about a ninth."""
    found = _counts(f"study.num_trials={trials}").trial_steps / 4
    alone = _counts("study.num_trials=1").trial_steps / 4
    assert alone == 24
    least = 3 * trials + 6 * trials / 3 + 15 * trials / 9
    assert least < found < 24 * trials
    fewer = trials // 2
    assert found / trials < _counts(f"study.num_trials={fewer}").trial_steps / 4 / fewer


def test_nothing_trained_takes_no_step() -> None:
    """Calibration and evaluation alone."""
    found = _counts("finetune.epochs=0")
    assert found.trial_steps == found.final_steps == 0
    assert found.trial_images > 0


def test_parts_add_up_what_was_timed() -> None:
    """Trials share the machine; the rest comes one after the other."""
    count = Counts(10, 20, 0, 8, 3, 30, 40, 50, 60, 70)
    units = UnitSeconds(start=1, synthesis_step=2, view=3, student=4, step=5, trained=6)
    assert parts(count, units, concurrent=2) == {
        "start": 1,
        "synthesis": 20,
        "views": 60,
        "trials": (30 * 5 + 40 * 4) / 2,
        "confirm and ladder": 50 * 5 + 60 * 4,
        "export": 280,
    }


def test_a_reconstruction_is_paid_by_every_trial_and_every_other_seed() -> None:
    """Its images are shown at an image's share of a step; the paper's defaults have none."""
    found = _counts("recipe=genie", "search.reconstruct.iterations={choice: [100, 300]}")
    assert (found.reconstructed, found.trials, found.finals) == (
        pytest.approx(1.3 * 200 * 32),
        12,
        2,
    )
    units = UnitSeconds(start=0, synthesis_step=0, view=0, student=0, step=0, trained=2)
    seconds = parts(found, units, concurrent=3)["reconstruction"]
    assert seconds == pytest.approx(1.3 * 200 * 32 * 2 * (12 / 3 + 2))
    assert "reconstruction" not in parts(_counts(), units, concurrent=3)
