"""A training taken up from its bytes in another place ends as if it had never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.finetune.loop import EpochMetrics
from synq_tune.finetune.optimizer import optimizer_of
from synq_tune.finetune.training_state import about, restore, tensor_bytes
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import quantize_student
from synq_tune.trial.trial import Trial
from tests.helpers import digits_trial

EPOCHS = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def _spec(*sets: str) -> StudySpec:
    small = ["finetune.batch_size=16", "finetune.num_views=1", "study.eval_every=2",
             "finetune.calibration_batches=1"]  # fmt: skip
    return load_space("digits_w3a3", [*small, f"finetune.epochs={EPOCHS}", *sets])


def _facts(rows: list[EpochMetrics]) -> dict[int, tuple[dict, dict, dict]]:
    """What each evaluated epoch says."""
    return {row.epoch: (row.losses, row.metrics, row.earlier) for row in rows if row.metrics}


def _tensors(trial: Trial) -> dict[str, Tensor]:
    moments = {
        f"{name}/{slot}": value
        for name, parameter in trial.student.named_parameters()
        for slot, value in trial._optimizer.state[parameter].items()
    }
    return {**trial.student.state_dict(), **moments}


def test_an_evaluated_epoch_brings_the_losses_of_those_before_it(
    teacher: LoadedTeacher, store: Path
) -> None:
    """Every epoch's losses arrive once, and the same if a state was kept in between."""
    spec = _spec("finetune.epochs=5", "study.eval_every=3")
    plain = list(digits_trial(spec, teacher, store).run())
    assert [(row.epoch, list(row.earlier)) for row in plain] == [(3, [1, 2]), (5, [4])]
    assert all("total" in losses for row in plain for losses in row.earlier.values())
    kept = list(digits_trial(spec, teacher, store).run(is_kept=lambda epoch: True))
    assert _facts(kept) == _facts(plain)


@pytest.mark.parametrize("quantizer", ["minmax", "lsq"])
@pytest.mark.parametrize(
    "optimizer",
    [
        ["finetune.optimizer=adam"],  # the default recipe's rates follow from the initial weights
        ["finetune.optimizer=sgd", "finetune.lr=1e-3", "finetune.lr_relative=false",
         "finetune.clip_weights=true", "finetune.schedule=multistep", "finetune.milestones=[2]"],
        ["finetune.range_share=0.6"],
        ["bits.overrides={layer2.*: 4, linear: {weights: 8}, relu*: {activations: 2}}"],
    ],
    ids=["adam", "sgd", "narrow", "mixed widths"],
)  # fmt: skip
@pytest.mark.long
def test_going_on_is_bit_identical(
    teacher: LoadedTeacher, store: Path, quantizer: str, optimizer: list[str]
) -> None:
    """Losses, accuracies, weights, grids and moments, whichever epoch it was taken up from."""
    spec = _spec(f"quantizer={quantizer}", *optimizer)
    whole = digits_trial(spec, teacher, store)
    expected = _facts(list(whole.run()))
    for stop in range(1, EPOCHS):
        first = digits_trial(spec, teacher, store)
        rows = []
        for row in first.run(is_kept=lambda epoch: True):
            rows.append(row)
            if row.epoch == stop:
                break
        data = first.state(seconds=1.5)
        assert about(data)["seconds"] == 1.5
        torch.rand(3)  # another process's generator stands elsewhere
        second = digits_trial(spec, teacher, store)
        rows += second.run(start=data)
        assert _facts(rows) == expected
        ends = _tensors(second), _tensors(whole)
        assert ends[0].keys() == ends[1].keys()
        assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_code_that_draws_random_numbers_goes_on_where_it_was(
    teacher: LoadedTeacher, store: Path
) -> None:
    """torch's generator is part of the state: a user's own code may draw from it."""
    spec = _spec()
    trial = digits_trial(spec, teacher, store)
    next(trial.run(is_kept=lambda epoch: True))
    data, expected = trial.state(), torch.rand(4)
    torch.manual_seed(99)
    student = quantize_student(teacher, spec.bits, spec.quantizer)
    restore(data, student, optimizer_of(student, spec.finetune))
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08\0\0\0\0\0\0\0{}      ", tensor_bytes({"a": torch.zeros(1)}),
     tensor_bytes({"a": torch.zeros(1)}, {"format": 99}),
     tensor_bytes({"student/conv.weight_quantizer.scale": torch.zeros(1)}, {"format": 1})],
    ids=["empty", "not tensors", "no state", "another format", "before learned ratios"],
)  # fmt: skip
def test_other_bytes_are_refused(data: bytes) -> None:
    """A file of another kind or a later version is said to be one."""
    with pytest.raises(ValueError, match="must hold, but got"):
        about(data)


def test_tied_tensors_are_written(teacher: LoadedTeacher) -> None:
    """Two names of one tensor, as tied weights have, are both in the file."""
    from safetensors.torch import load

    tied = torch.arange(3.0)
    assert set(load(tensor_bytes({"a": tied, "b": tied}))) == {"a", "b"}
