"""The training loop on the digits teacher and a small synthetic dataset."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torchvision

from synq_tune.config import Bits, FineTune, Teacher
from synq_tune.config.load import RECIPES_DIR, load_space, names_in
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.errors import NonFiniteLossError
from synq_tune.finetune.loop import EpochMetrics, TrainingStep, finetune
from synq_tune.finetune.optimizer import lr_factor, optimizer_of, warmup_factor
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.learned_scale import learned_scales
from synq_tune.quantization.student import calibrate, quantize_student
from synq_tune.views.source import Batch, ViewSource
from synq_tune.views.teacher_cache import load_teacher_cache, make_views
from synq_tune.views.transforms import draw_transforms
from tests.helpers import digits_dataset

SMALL = {"epochs": 2, "batch_size": 32, "num_views": 2, "flip": False, "calibration_batches": 2}
"""Two batches are every image once: more of them cost more than the training that follows."""


QUICK = ("synq", "synq_lsq", "adadfq", "gdfq_synq", "genie", "arc_ait")
"""Recipes that the default tests train: one of each family; all others are among the long tests."""


def _each(recipe: str) -> object:
    return recipe if recipe in QUICK else pytest.param(recipe, marks=pytest.mark.long)


@pytest.fixture(scope="module")
def dataset() -> SyntheticDataset:
    return digits_dataset(96, 32)


def _train(
    teacher: LoadedTeacher,
    dataset: SyntheticDataset,
    config: FineTune,
    quantizer: str = "minmax",
    seed: int = 0,
) -> tuple[list[EpochMetrics], dict[str, torch.Tensor]]:
    views = make_views(teacher, dataset, config)
    source = ViewSource(dataset.train_images, dataset.train_labels, views, config, seed)
    student = quantize_student(teacher, Bits(weights=3, activations=3), quantizer)
    calibrate(student, source.calibration_images())
    rows = list(finetune(student, source, config, teacher=teacher.graph))
    return rows, student.state_dict()


@pytest.mark.parametrize("quantizer", ["minmax", pytest.param("lsq", marks=pytest.mark.long)])
@pytest.mark.parametrize("recipe", [_each(name) for name in names_in(RECIPES_DIR)])
def test_training_lowers_the_loss(
    teacher: LoadedTeacher, dataset: SyntheticDataset, recipe: str, quantizer: str
) -> None:
    """Every recipe with every quantizer learns from the teacher."""
    finetune_ = load_space("digits_w3a3", [f"recipe={recipe}"]).finetune
    # T = 20 with weight 20 is 8,000 times the KL.
    rate = {"synq_code": 1e-6}.get(recipe, 1e-5 if finetune_.kd_weight >= 20 else 1e-3)
    update = {**SMALL, "epochs": 6, "steps_per_epoch": 4, "lr": rate}
    config = finetune_.model_copy(update=update)
    rows, _ = _train(teacher, dataset, config, quantizer)
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1].losses["total"] < rows[0].losses["total"]
    parts = sum(v for k, v in rows[0].losses.items() if k != "total")
    assert rows[0].losses["total"] == pytest.approx(parts, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"lambda_cam": 0}, "cam"),
        ({"lambda_ce": 0}, "ce"),
        ({"feature_weight": 0}, "feature"),
        ({"perturbation_weight": 0}, "perturbed"),
    ],
    ids=lambda v: str(v),
)
def test_each_idea_can_be_switched_off(
    teacher: LoadedTeacher, dataset: SyntheticDataset, changes: dict[str, float], absent: str
) -> None:
    """A weight of zero takes its loss out of the step."""
    everything = {"feature_weight": 1.0, "perturbation_weight": 1.0, "epochs": 1}
    config = FineTune(**{**SMALL, **everything})
    assert absent in _train(teacher, dataset, config)[0][0].losses
    config = FineTune(**{**SMALL, **everything, **changes})
    assert absent not in _train(teacher, dataset, config)[0][0].losses


def test_unsure_samples_are_asked_for_the_teachers_answer(
    teacher: LoadedTeacher, dataset: SyntheticDataset
) -> None:
    """By the entropy of its answer, whatever the label; by hand from the student's logits."""
    images, labels = dataset.train_images.float(), dataset.train_labels
    answer = 0.3 * teacher(images)
    batch = Batch(images, labels, answer, None, torch.zeros(len(labels)))
    config = FineTune(
        lambda_cam=0, lambda_ce=2.0, tau=0.7, mask_by="entropy", masked_target="teacher"
    )
    student = quantize_student(teacher, Bits(weights=3, activations=3), "minmax")
    calibrate(student, [images])
    step = TrainingStep(student, config, None)
    q, log = answer.softmax(1), student(images).log_softmax(1)
    is_sure = -(q * q.log()).sum(1) / math.log(10) <= 0.7
    assert 0 < is_sure.sum() < len(labels)
    hard, soft = -log[torch.arange(len(labels)), labels], -(q * log).sum(1)
    found = step(batch)[step.loss_names.index("ce")]
    torch.testing.assert_close(found, 2 * torch.where(is_sure, hard, soft).mean())
    masked = TrainingStep(student, config.model_copy(update={"masked_target": "nothing"}), None)
    found = masked(batch)[masked.loss_names.index("ce")]
    torch.testing.assert_close(found, 2 * (hard * is_sure).mean())


def test_the_same_seed_gives_the_same_student(
    teacher: LoadedTeacher, dataset: SyntheticDataset
) -> None:
    """A trial is a function of its configuration and seed."""
    config = FineTune(**SMALL)
    first, again = _train(teacher, dataset, config), _train(teacher, dataset, config)
    other = _train(teacher, dataset, config, seed=1)
    assert [r.losses for r in first[0]] == [r.losses for r in again[0]]
    assert all(torch.equal(v, again[1][k]) for k, v in first[1].items())
    assert not torch.equal(first[1]["conv1.weight"], other[1]["conv1.weight"])


def test_batchnorm_statistics_never_move(teacher: LoadedTeacher, dataset: SyntheticDataset) -> None:
    """Teacher and student stay in evaluation mode; only the affine parameters learn."""
    _, state = _train(teacher, dataset, FineTune(**SMALL))
    own = teacher.graph.state_dict()
    assert torch.equal(state["bn1.running_mean"], own["bn1.running_mean"])
    assert not torch.equal(state["bn1.weight"], own["bn1.weight"])


def test_a_diverging_run_names_loss_epoch_and_step(
    teacher: LoadedTeacher, dataset: SyntheticDataset
) -> None:
    """NaN is never replaced or swallowed."""
    config = FineTune(**{**SMALL, "lr": 1e30, "grad_clip": None, "epochs": 5})
    with pytest.raises(NonFiniteLossError, match=r"loss is (nan|inf) at epoch \d, step \d"):
        _train(teacher, dataset, config)


def test_only_asked_epochs_are_yielded(teacher: LoadedTeacher, dataset: SyntheticDataset) -> None:
    """Rungs and the last epoch."""
    config = FineTune(**{**SMALL, "epochs": 5, "steps_per_epoch": 1})
    views = make_views(teacher, dataset, config)
    source = ViewSource(dataset.train_images, dataset.train_labels, views, config, 0)
    student = quantize_student(teacher, Bits(weights=4, activations=4), "minmax")
    calibrate(student, source.calibration_images())
    rows = finetune(student, source, config, is_evaluated={2}.__contains__)
    assert [row.epoch for row in rows] == [2, 5]


def test_an_epoch_sees_every_image_once(teacher: LoadedTeacher, dataset: SyntheticDataset) -> None:
    """In a seeded order that changes from epoch to epoch; `steps_per_epoch` overrides."""
    config = FineTune(**{**SMALL, "batch_size": 24, "crop_scale": None, "d0": None})
    views = make_views(teacher, dataset, config)
    source = ViewSource(dataset.train_images, dataset.train_labels, views, config, 0)
    batches = list(source.batches(0))
    assert [len(b.labels) for b in batches] == [24, 24, 16]
    images = torch.cat([b.images for b in batches])
    own = dataset.train_images.float()
    key = (0, 3, 3)
    assert torch.equal(images[:, *key].sort().values, own[:, *key].sort().values)
    assert not torch.equal(images, torch.cat([b.images for b in source.batches(1)]))
    longer = ViewSource(
        dataset.train_images, dataset.train_labels, views,
        config.model_copy(update={"steps_per_epoch": 7}), 0,
    )  # fmt: skip
    assert len(list(longer.batches(0))) == 7


@pytest.mark.parametrize("mix_weight", [None, (0.5, 1.0)])
def test_views_are_what_the_teacher_sees(
    teacher: LoadedTeacher, dataset: SyntheticDataset, mix_weight: tuple[float, float] | None
) -> None:
    """Stored logits are those of the remade pixels, to float16; difficulty fits the labels."""
    config = FineTune(**{**SMALL, "d0": 4.0, "mix_weight": mix_weight})
    views = make_views(teacher, dataset, config)
    every = torch.arange(len(dataset.train_images))
    pixels = views.transforms.pixels(dataset.train_images, 1, every, config)
    logits = teacher(pixels)
    torch.testing.assert_close(views.logits[1].float(), logits, rtol=1e-2, atol=2e-2)
    p = logits.softmax(1).gather(1, dataset.train_labels[:, None])[:, 0]
    torch.testing.assert_close(views.difficulty[1], 1 - p, rtol=1e-2, atol=1e-2)
    assert set(views.saliency) == {"cam", "gradcam", "gradcam++"}
    assert views.saliency["gradcam"].shape == (2, 64, 4, 4)


def test_views_are_made_once(
    teacher: LoadedTeacher, dataset: SyntheticDataset, tmp_path: Path
) -> None:
    """The second trial with the same D0 and crops reads what the first one stored."""
    config = FineTune(**SMALL)
    first = load_teacher_cache(teacher, dataset, config, tmp_path)
    (file,) = (tmp_path / "views").glob("*.safetensors")
    stamp = file.stat().st_mtime_ns
    again = load_teacher_cache(teacher, dataset, config.model_copy(update={"lr": 0.5}), tmp_path)
    assert file.stat().st_mtime_ns == stamp
    assert torch.equal(first.logits, again.logits)
    load_teacher_cache(teacher, dataset, config.model_copy(update={"d0": 3.0}), tmp_path)
    assert len(list((tmp_path / "views").glob("*.safetensors"))) == 2


def test_a_studys_trials_ask_the_teacher_once_per_view_and_filter(
    teacher: LoadedTeacher, dataset: SyntheticDataset, tmp_path: Path
) -> None:
    """Five D0, every CAM technique and rate: 5 × views × images through the teacher, training included."""
    asked = 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal asked
        asked += len(inputs[0])

    handle = teacher.graph.register_forward_pre_hook(count)
    try:
        for d0 in (2.0, 4.0, 8.0, 20.0, 80.0):
            for cam, lr in (("cam", 1e-3), ("gradcam", 1e-2), ("gradcam++", 1e-2)):
                config = FineTune(**{**SMALL, "epochs": 1, "d0": d0, "cam": cam, "lr": lr})
                views = load_teacher_cache(teacher, dataset, config, tmp_path)
                source = ViewSource(dataset.train_images, dataset.train_labels, views, config, 0)
                student = quantize_student(teacher, Bits(weights=3, activations=3), "minmax")
                calibrate(student, source.calibration_images())
                list(finetune(student, source, config, teacher=teacher.graph))
    finally:
        handle.remove()
    assert asked == 5 * SMALL["num_views"] * len(dataset.train_images)


def test_an_imagenet_studys_views_fit_beside_its_images() -> None:
    """5,120 images at 224 px, 8 views and 5 D0 take less than 2 GB, as ResNet-18's real ones do."""
    settings = Teacher(model="torchvision:resnet18")
    teacher = load_teacher(settings, model=torchvision.models.resnet18())
    images = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0)).half()
    dataset = SyntheticDataset(
        images, torch.arange(4), 0, "noise", "0" * 32, "0" * 64, Path("none"), {}
    )
    views = make_views(teacher, dataset, FineTune(num_views=2))
    stored = [
        *vars(views.transforms).values(),
        views.logits,
        views.difficulty,
        *views.saliency.values(),
    ]
    assert set(views.saliency) == {"cam", "gradcam", "gradcam++"}
    assert sum(tensor.nbytes for tensor in stored) / (2 * 4) * 5120 * 8 * 5 < 2e9


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant"}, [1, 1, 1]),
        ({"schedule": "cosine"}, [1, 0.5, 0]),
        ({"schedule": "exponential", "final_lr_factor": 0.01}, [1, 0.1, 0.01]),
        ({"schedule": "multistep", "milestones": (5, 10)}, [1, 0.1, 0.01]),
    ],
    ids=lambda v: v.get("schedule") if isinstance(v, dict) else "",
)
def test_learning_rate_schedules(settings: dict[str, object], expected: list[float]) -> None:
    """At the start, in the middle and at the end of ten epochs."""
    config = FineTune(epochs=10, **settings)
    factors = [lr_factor(config, epoch, epoch / 10) for epoch in (0, 5, 10)]
    assert factors == pytest.approx(expected, abs=1e-9)


def test_no_hook_survives_training(teacher: LoadedTeacher, dataset: SyntheticDataset) -> None:
    """The released code leaks two hooks per step."""
    config = FineTune(**{**SMALL, "feature_weight": 1.0, "perturbation_weight": 1.0})
    _train(teacher, dataset, config)
    assert not any(m._forward_hooks for m in teacher.graph.modules())


def test_adam_trains_learned_steps_without_decaying_them(
    teacher: LoadedTeacher, dataset: SyntheticDataset
) -> None:
    """Another optimizer is one field; decay would shrink the grids themselves."""
    config = FineTune(**{**SMALL, "optimizer": "adam", "lr": 1e-3, "weight_decay": 0.1})
    _, before = _train(teacher, dataset, config.model_copy(update={"epochs": 0}), "lsq")
    rows, after = _train(teacher, dataset, config, "lsq")
    assert rows[-1].losses["total"] < rows[0].losses["total"]
    student = quantize_student(teacher, Bits(weights=3, activations=3), "lsq")
    scales = learned_scales(student)
    for group in optimizer_of(student, config).param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.0 if parameter in scales else 0.1)
    names = [n for n, p in student.named_parameters() if p in scales]
    assert any(not torch.equal(before[n], after[n]) for n in names)


def test_learned_steps_have_their_own_rate(
    teacher: LoadedTeacher, dataset: SyntheticDataset
) -> None:
    """Adam moves every parameter by its rate in the first update, and a layer's middle step with it."""
    config = FineTune(**{
        **SMALL, "epochs": 1, "steps_per_epoch": 1, "optimizer": "adam", "lr": 1e-4, "weight_decay": 0,
        "step_lr_factor": 0.1,
    })  # fmt: skip
    _, before = _train(teacher, dataset, config.model_copy(update={"epochs": 0}), "lsq")
    _, after = _train(teacher, dataset, config, "lsq")
    moved = (after["conv1.weight"] - before["conv1.weight"]).abs().max()
    assert float(moved) == pytest.approx(1e-4, rel=0.02)
    prefix = "conv1.weight_quantizer."
    shares = after[prefix + "log_ratio"].abs()
    middle = before[prefix + "initial_scale"].median()
    assert float(shares.max() * middle) == pytest.approx(1e-5, rel=0.02)


def test_norms_and_biases_have_their_own_rate(teacher: LoadedTeacher) -> None:
    """One factor for every parameter of one dimension that is no step; the rest stays at 1."""
    student = quantize_student(teacher, Bits(weights=3, activations=3), "lsq")
    config = FineTune(norm_lr_factor=0.2, step_lr_factor=0.1)
    factors = {
        id(p): group["lr_factor"]
        for group in optimizer_of(student, config).param_groups
        for p in group["params"]
    }
    scales = learned_scales(student)
    for name, parameter in student.named_parameters():
        if parameter not in scales:
            assert factors[id(parameter)] == (0.2 if parameter.dim() == 1 else 1.0), name


def test_warmup_raises_the_rate_in_proportion() -> None:
    """The full rate is reached after its share of the updates; the first one moves already."""
    config = FineTune(warmup=0.2)
    factors = [warmup_factor(config, progress) for progress in (0.05, 0.1, 0.2, 0.9, 1.0)]
    assert factors == pytest.approx([0.25, 0.5, 1.0, 1.0, 1.0])
    assert warmup_factor(FineTune(warmup=0.0), 0.01) == 1.0


def test_a_relative_rate_moves_tensors_by_a_share_of_their_size(
    teacher: LoadedTeacher, dataset: SyntheticDataset
) -> None:
    """Channels of other sizes move alike; Adam's first update shows the rate itself."""
    config = FineTune(**{
        **SMALL, "epochs": 1, "steps_per_epoch": 1, "optimizer": "adam", "lr": 1e-3, "weight_decay": 0,
        "lr_relative": True,
    })  # fmt: skip
    _, before = _train(teacher, dataset, config.model_copy(update={"epochs": 0}))
    _, after = _train(teacher, dataset, config)
    weights = [n for n, tensor in before.items() if n.endswith("weight") and tensor.dim() > 1]
    sizes = {name: before[name].flatten(1).square().mean(1).sqrt() for name in weights}
    every = torch.cat(list(sizes.values()))
    assert every.max() > 1.5 * every.min()
    for name, size in sizes.items():
        moved = (after[name] - before[name]).flatten(1).abs().amax(1)
        torch.testing.assert_close(moved, 1e-3 * size, rtol=0.02, atol=0)


def test_blends_of_independent_images_keep_their_variance() -> None:
    """Where asked: without it, halves of two images have 0.7 of their contrast."""
    noise = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    deviations = []
    for keeps in (False, True):
        config = FineTune(
            crop_scale=None, flip=False, d0=None, mix_weight=(0.5, 0.5), mix_keeps_variance=keeps
        )
        blends = draw_transforms(256, config, seed=1).pixels(noise, 0, torch.arange(256), config)
        deviations.append(float(blends.std()))
    assert deviations == pytest.approx([math.sqrt(0.5), 1.0], abs=0.02)


def test_a_blend_is_of_two_images_in_the_same_view(
    teacher: LoadedTeacher, dataset: SyntheticDataset
) -> None:
    """Own share in the range asked for; the filter sees the blend."""
    config = FineTune(**{**SMALL, "d0": 4.0, "mix_weight": (0.6, 0.9)})
    looks = draw_transforms(64, config, seed=3)
    images = dataset.train_images
    assert looks.weights.min() >= 0.6 and looks.weights.max() <= 0.9
    plain = config.model_copy(update={"mix_weight": None})
    every = torch.arange(64)
    alone = looks.pixels(images, 1, every, plain)
    share = looks.weights[1][:, None, None, None]
    expected = share * alone + (1 - share) * alone[looks.partners[1]]
    torch.testing.assert_close(looks.pixels(images, 1, every, config), expected)
    loud = config.model_copy(update={"mix_keeps_variance": True})
    root = (share**2 + (1 - share) ** 2).sqrt()
    # The filter is linear: what divides the blend divides what it lets through.
    torch.testing.assert_close(looks.pixels(images, 1, every, loud), expected / root)
    unblended = draw_transforms(64, plain, seed=3)
    assert torch.equal(unblended.boxes, looks.boxes) and bool((unblended.weights == 1).all())
