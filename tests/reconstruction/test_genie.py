"""GENIE-M: each part comes nearer to the teacher's, and a stopped reconstruction goes on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from synq_tune.config import Reconstruct, StudySpec
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import weight_layers
from synq_tune.reconstruction.cache import Caches
from synq_tune.reconstruction.drop import ElementDrop
from synq_tune.reconstruction.fit import mini_batches, rounding_penalty
from synq_tune.trial.requirements import check_parts
from tests.helpers import digits_trial, goes_on_where_it_was

SMALL = ["quantizer=genie", "finetune.batch_size=16", "finetune.num_views=1", "finetune.crop_scale=null",
         "finetune.clip_weights=false", "finetune.calibration_batches=2", "finetune.mix_weight=null",
         "finetune.epochs=0", "study.eval_every=1", "reconstruct.method=genie",
         "reconstruct.blocks=[layer1, layer2, layer3]", "reconstruct.iterations=2",
         "reconstruct.lr_rounding=0.05"]  # fmt: skip


def _spec(*sets: str) -> StudySpec:
    return load_space("digits_w3a3", [*SMALL, *sets])


@pytest.mark.long
def test_a_fitted_student_is_nearer_to_its_teacher(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """On the hold-out images too; its rounding is hard and not to nearest, its losses are told."""
    ends = []
    for iterations in (0, 30):
        spec = _spec("reconstruct.blocks=auto", f"reconstruct.iterations={iterations}",
                     "bits.activations=8")  # fmt: skip
        trial = digits_trial(spec, teacher, tmp_path)
        ends.append(list(trial.run())[-1])
    grids = [layer.weight_quantizer for layer in weight_layers(trial.student).values()]
    assert all(grid.is_chosen and grid.soft is None for grid in grids)
    assert ends[1].metrics["holdout_mse"] < ends[0].metrics["holdout_mse"]
    assert len(ends[1].losses) == 14 and "block/layer1.0" in ends[1].losses


@pytest.mark.parametrize(
    ("epochs", "free"),
    [(0, "false"), *(pytest.param(2, f, marks=pytest.mark.slow) for f in ("false", "true"))],
)
@pytest.mark.long
def test_it_goes_on_where_it_was(
    teacher: LoadedTeacher, tmp_path: Path, epochs: int, free: str
) -> None:
    """Behind any part, and in the fine-tuning behind it, bit for bit."""
    spec = _spec(f"finetune.epochs={epochs}", f"reconstruct.free_weights={free}")
    whole = digits_trial(spec, teacher, tmp_path)
    expected = [vars(row) for row in whole.run(is_kept=lambda epoch: True)]
    ends = [6, 0, 0] if epochs else [0]
    assert [row["position"] for row in expected] == [1, 2, 3, 4, 5, *ends]
    stops = {2, 6, len(expected) - 1} - {len(expected)}
    goes_on_where_it_was(partial(digits_trial, spec, teacher, tmp_path), expected, whole, stops)


@pytest.mark.parametrize(("free", "moves"), [("false", False), ("true", True)])
def test_fine_tuning_moves_weights_where_they_are_free(
    teacher: LoadedTeacher, tmp_path: Path, free: str, moves: bool
) -> None:
    """Frozen, the codes are those that the reconstruction chose."""
    spec = _spec("finetune.epochs=1", "finetune.lr=2.0", f"reconstruct.free_weights={free}")
    trial = digits_trial(spec, teacher, tmp_path)
    rows = trial.run(is_kept=lambda epoch: True)
    for _ in range(5):
        next(rows)
    layers = weight_layers(trial.student).values()
    codes = [layer.integer_weight()[0].clone() for layer in layers]
    steps = [layer.weight_quantizer.scale.detach().clone() for layer in layers]
    list(rows)
    same = [
        torch.equal(c, layer.integer_weight()[0]) for c, layer in zip(codes, layers, strict=True)
    ]
    assert all(same) != moves
    after = [layer.weight_quantizer.scale for layer in layers]
    assert not any(torch.equal(s, a) for s, a in zip(steps, after, strict=True))


def test_other_quantizers_are_refused_before_any_work(teacher: LoadedTeacher) -> None:
    """In one line that names what to use."""
    with pytest.raises(InputError, match=r"learns its rounding.*LsqWeight\. Use quantizer=genie"):
        check_parts(_spec("quantizer=lsq"), teacher)
    with pytest.raises(InputError, match=r"reconstruct\.blocks: .*'nothing'"):
        check_parts(_spec("reconstruct.blocks=[nothing]"), teacher)


@pytest.mark.parametrize(("count", "size"), [(10, 4), (3, 8), (8, 4)])
def test_mini_batches_have_the_size_asked_for(count: int, size: int) -> None:
    """Whatever the number of images; each image comes once in each order of all."""
    rows, taken = mini_batches(count, size, 1), []
    for _ in range(2 * count):
        batch = next(rows)
        assert len(batch) == min(size, count)
        taken += batch.tolist()
    assert all(sorted(taken[i : i + count]) == list(range(count)) for i in range(0, count, count))
    assert taken[: len(taken) // 2] != taken[len(taken) // 2 :] or count < 4


def test_the_penalty_waits_and_its_exponent_falls() -> None:
    """Off in the warm-up, then from the first exponent to the last."""
    asked = []

    class Bits:
        def penalty(self, beta: float) -> float:
            asked.append(beta)
            return 1.0

    config = Reconstruct(rounding_weight=0.5)
    assert rounding_penalty([Bits()], 0.19, config) is None
    assert rounding_penalty([Bits()], 0.2, config) == 0.5
    rounding_penalty([Bits()], 0.6, config)
    assert asked == [20.0, pytest.approx(11.0)]


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.5, 1.0])
def test_single_values_are_dropped_with_their_probability(probability: float) -> None:
    """Of an odd number of values; the same ones for the same seed."""
    like = torch.empty(7, 11_111)
    first, second = (ElementDrop(probability, 3, like.device) for _ in range(2))
    masks = first(like), first(like)
    assert abs(float(masks[0].float().mean()) - probability) < 0.01
    assert torch.equal(second(like), masks[0])
    assert probability in (0.0, 1.0) or not torch.equal(*masks)


def test_what_is_over_the_budget_lies_on_the_disk() -> None:
    """With the same values, and no file that stays."""
    values = torch.randn(10, 3, 4)
    caches = Caches(500e-9, torch.device("cpu"))
    near = caches.of(iter(values.split(4)), 10, [])
    far = caches.of(iter(values.split(3)), 10, [near])
    assert (near.in_memory, far.in_memory) == (True, False)
    rows = torch.tensor([7, 0, 7])
    assert torch.equal(near.rows(rows), values[rows]) and torch.equal(far.rows(rows), values[rows])
    doubled = caches.mapped(lambda x: 2 * x, far, 4, [near, far])
    assert torch.equal(doubled.rows(slice(0, 10)), 2 * values)


@pytest.mark.slow
def test_the_disk_changes_no_value(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """A reconstruction under a budget of nothing gives the same student."""
    ends = []
    for budget in ("4.0", "1.0e-9"):
        trial = digits_trial(_spec(f"reconstruct.memory_budget={budget}"), teacher, tmp_path)
        list(trial.run())
        ends.append(trial.student.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
