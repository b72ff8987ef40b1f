"""A generator that trains along: its batches, its clocks, its state."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from synq_tune.config import FineTune, StudySpec
from synq_tune.config.load import load_space
from synq_tune.errors import NonFiniteLossError
from synq_tune.finetune.training_state import about
from synq_tune.generators.source import GeneratorSource
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import activation_quantizers, calibrate, quantize_student
from synq_tune.trial.trial import Trial
from synq_tune.views.difficulty import difficulty
from synq_tune.views.low_pass import low_pass
from synq_tune.views.source import Batch, SourceMaterial, load_source
from synq_tune.views.teacher_cache import explain
from tests.helpers import digits_dataset, digits_trial, goes_on_where_it_was

PLAIN: dict[str, Any] = {
    "source": "generator", "batch_size": 6, "steps_per_epoch": 2, "d0": None, "crop_scale": None,
    "flip": False, "lambda_cam": 0, "calibration_batches": 2, "generator_warmup_epochs": 0,
}  # fmt: skip
OF_STUDENT = {"generator_disagreement": 0.1, "generator_agreement": 0.1, "generator_band": 1.0}


def _source(teacher: LoadedTeacher, seed: int = 3, **changes: Any) -> GeneratorSource:
    config = FineTune(**{**PLAIN, **changes})
    material = SourceMaterial(teacher, digits_dataset(20, 4), Path("none"), torch.device("cpu"))
    source = load_source(material, config, seed)
    assert isinstance(source, GeneratorSource)
    return source


def _images(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([batch.images for batch in batches])


def test_a_batch_is_what_the_teacher_says_of_it(teacher: LoadedTeacher) -> None:
    """Logits and difficulty are of the very images; nothing is attached to a graph."""
    (batch, _) = _source(teacher).batches(0)
    assert batch.images.shape == (6, 1, 8, 8) and not batch.images.requires_grad
    torch.testing.assert_close(batch.teacher_logits, teacher(batch.images), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(batch.difficulty, difficulty(batch.teacher_logits, batch.labels))
    assert batch.saliency is None and batch.shares is None
    assert torch.equal(batch.target, batch.labels)


def test_synqs_ideas_are_of_generated_images_too(teacher: LoadedTeacher) -> None:
    """The same images filtered, with the teacher asked again about them and about their maps."""
    (plain, _), (seen, _) = (
        _source(teacher, **change).batches(0) for change in ({}, {"d0": 2.0, "lambda_cam": 1.0})
    )
    torch.testing.assert_close(seen.images, low_pass(plain.images, 2.0))
    config = FineTune(**PLAIN)
    logits, maps = explain(teacher, seen.images, seen.labels, ["gradcam"], config)
    torch.testing.assert_close(seen.teacher_logits, logits)
    torch.testing.assert_close(seen.saliency, maps["gradcam"])
    torch.testing.assert_close(seen.difficulty, difficulty(logits, seen.labels))


def test_views_are_drawn_anew_for_each_batch(teacher: LoadedTeacher) -> None:
    """Crops and flips, where a recipe asks for them, follow from the seed."""
    asked = {"crop_scale": (0.5, 0.9), "flip": True}
    first, again, plain = (
        _images(list(_source(teacher, **change).batches(0))) for change in (asked, asked, {})
    )
    assert torch.equal(first, again) and not torch.equal(first, plain)


def test_mixed_images_have_shares(teacher: LoadedTeacher) -> None:
    """The label is the largest share; difficulty is the total variation from the shares."""
    mixed = {"generator_mixing": 3, "generator_mixing_probability": 1.0}
    (batch, _) = _source(teacher, **mixed).batches(0)
    torch.testing.assert_close(batch.shares.sum(1), torch.ones(6))
    assert batch.target is batch.shares
    p = batch.teacher_logits.softmax(1)
    torch.testing.assert_close(batch.difficulty, (p - batch.shares).abs().sum(1) / 2)


def test_the_student_sees_images_from_before_the_step(teacher: LoadedTeacher) -> None:
    """The generator has moved when it hands over a batch, and not what it hands over."""
    source = _source(teacher)
    before = source.training.network.linear.weight.clone()
    first = next(source.batches(0))
    other = _source(teacher)
    draw = next(other._draws(0))
    torch.testing.assert_close(first.images, other.training.network(draw).detach())
    assert not torch.equal(before, source.training.network.linear.weight)


def test_neither_network_collects_a_gradient(teacher: LoadedTeacher) -> None:
    """The student in a generator's loss stays as it is, and so do its gradients."""
    source = _source(teacher, **OF_STUDENT)
    student = _student(teacher, source)
    source.watch(student)
    before = {k: v.clone() for k, v in student.state_dict().items()}
    list(source.batches(0))
    assert all(p.grad is None for p in (*student.parameters(), *teacher.graph.parameters()))
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
    assert set(source.losses()) == {"total", "ce", "bns", "disagreement", "agreement", "band"}


def _student(teacher: LoadedTeacher, source: GeneratorSource) -> torch.fx.GraphModule:
    student = quantize_student(teacher, load_space("digits_w4a4").bits, "minmax")
    calibrate(student, source.calibration_images())
    return student


def test_images_can_be_made_again(teacher: LoadedTeacher) -> None:
    """A stage that reads images alone moves no weight, and gets the same ones twice."""
    source = _source(teacher)
    before = source.training.network.linear.weight.clone()
    first, again, others = (list(source.image_batches(epoch)) for epoch in (0, 0, 1))
    assert len(first) == source.steps_per_epoch
    assert all(map(torch.equal, first, again)) and not any(map(torch.equal, first, others))
    assert torch.equal(before, source.training.network.linear.weight)


def test_it_learns(teacher: LoadedTeacher) -> None:
    """The teacher recognises what the generator was asked for more and more."""
    source = _source(teacher, batch_size=16, steps_per_epoch=8)
    losses = []
    for epoch in range(3):
        source.warm_up(epoch)
        losses.append(source.losses()["total"])
    assert losses[2] < losses[1] < losses[0]


def test_rates_fall_at_the_generators_own_epochs(teacher: LoadedTeacher) -> None:
    """Warm-up epochs count; the student's milestones are another clock."""
    source = _source(teacher, generator_milestones=(1, 3), generator_warmup_epochs=2)
    rates = []
    for run in (lambda: source.warm_up(0), lambda: source.warm_up(1),
                lambda: list(source.batches(0)), lambda: list(source.batches(1))):  # fmt: skip
        run()
        rates.append(source.training.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 1e-4, 1e-4, 1e-5])


def test_seeds_tell_trials_apart(teacher: LoadedTeacher) -> None:
    """The same seed gives the same images whatever torch drew before; another gives others."""
    first = _images(list(_source(teacher).batches(0)))
    torch.rand(5)
    assert torch.equal(first, _images(list(_source(teacher).batches(0))))
    assert not torch.equal(first, _images(list(_source(teacher, seed=4).batches(0))))


def test_an_epoch_is_a_pass_over_as_many_images(teacher: LoadedTeacher) -> None:
    """Where no number is set: 16 images of the training part are three batches of six."""
    assert _source(teacher, steps_per_epoch=None).steps_per_epoch == 3
    assert _source(teacher).steps_per_epoch == 2


def test_a_diverged_generator_says_so(teacher: LoadedTeacher) -> None:
    """It names the loss, its epoch and its rate."""
    source = _source(teacher, generator_lr=1e30)
    with pytest.raises(
        NonFiniteLossError, match=r"generator's .* loss is .* in its epoch 1 .*1e\+30"
    ):
        source.warm_up(0)


def _spec(*sets: str) -> StudySpec:
    small = ["finetune.source=generator", "finetune.batch_size=4", "finetune.steps_per_epoch=2",
             "finetune.calibration_batches=1", "study.eval_every=1", "finetune.epochs=2",
             "finetune.crop_scale=null", "finetune.generator_warmup_epochs=2"]  # fmt: skip
    return load_space("digits_w3a3", [*small, *sets])


def _of_student() -> list[str]:
    return [f"finetune.{key}={value}" for key, value in OF_STUDENT.items()]


_MIXED = ["finetune.generator_mixing=3", "finetune.generator_conditional_norm=true"]
_REBUILT = ["quantizer=genie", "reconstruct.method=genie", "reconstruct.iterations=1",
            "reconstruct.batch_size=4", "reconstruct.blocks=[layer1, layer2]"]  # fmt: skip
CASES = [
    pytest.param(_of_student(), id="student in the loop"),
    pytest.param(["finetune.generator_freeze_epoch=1"], id="ranges within", marks=pytest.mark.slow),
    pytest.param(_MIXED, id="mixed and conditional", marks=pytest.mark.slow),
    pytest.param(_REBUILT, id="with a reconstruction", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("sets", CASES)
@pytest.mark.long
def test_a_trial_goes_on_where_it_was(
    teacher: LoadedTeacher, tmp_path: Path, sets: list[str]
) -> None:
    """From every place at which a state can be taken: warm-up, reconstruction, training."""
    spec = _spec(*sets)
    whole = digits_trial(spec, teacher, tmp_path)
    expected = [vars(row) for row in whole.run(is_kept=lambda epoch: True)]
    assert [row["position"] for row in expected[:2]] == [1, 2]
    places = [(row["epoch"], row["position"]) for row in expected]
    assert len(set(places)) == len(places)
    make = partial(digits_trial, spec, teacher, tmp_path)
    goes_on_where_it_was(make, expected, whole, range(1, len(expected)))


def test_a_state_names_the_warm_up(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """Losses of the warm-up are reported with the first epoch that is evaluated."""
    trial = digits_trial(_spec(), teacher, tmp_path)
    rows = trial.run(is_kept=lambda epoch: True)
    next(rows)
    found = about(trial.state())
    assert (found["stage"], found["position"], found["epoch"]) == ("warmup", 1, 0)
    first = next(row for row in rows if row.epoch == 1)
    assert {"warmup/ce", "warmup/bns", "source/ce", "source/bns"} <= first.losses.keys()


def _ranges(trial: Trial) -> list[torch.Tensor]:
    quantizers = activation_quantizers(trial.student).values()
    return [value for q in quantizers for value in q.state_dict().values()]


def test_ranges_are_of_the_epoch_that_is_asked_for(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """After one epoch of the warm-up they are those of a warm-up of one epoch, and stay so."""
    sets = ["finetune.epochs=0"]
    frozen, short, late = (
        digits_trial(_spec(*sets, f"finetune.{key}"), teacher, tmp_path)
        for key in ("generator_freeze_epoch=1", "generator_warmup_epochs=1", "epochs=0")
    )
    for trial in (frozen, short, late):
        list(trial.run())
    assert all(map(torch.equal, _ranges(frozen), _ranges(short)))
    assert not all(map(torch.equal, _ranges(frozen), _ranges(late)))


def test_noise_needs_no_generator(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """The ladder's rung that calibrates on noise does not wait for a warm-up."""
    trial = digits_trial(_spec("finetune.epochs=0"), teacher, tmp_path)
    trial.calibrate_on = "noise"
    assert [row.position for row in trial.run(is_kept=lambda epoch: True)] == [0]
