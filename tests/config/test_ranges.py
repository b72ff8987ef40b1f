"""Every field of every setting has a range: hostile values are one line, or stand in the table below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from synq_tune.config import Settings, StudySpec
from synq_tune.config.load import build_spec, load_space
from synq_tune.config.nulls import members
from synq_tune.errors import SearchSpaceError

HOSTILE: dict[str, Any] = {
    "negative": -1, "zero": 0, "one": 1, "half": 0.5, "minus half": -0.5, "1.0": 1.0, "2.0": 2.0,
    "nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "1e39": 1e39, "10**30": 10**30,
    "true": True, "text": "x", "empty text": "", "number as text": "1", "control": "a\0b",
    "list": [], "list of list": [[]], "dict": {}, "other dict": {"x": 1}, "negative pair": [-1, 0],
    "falling pair": [0.9, 0.1], "zero pair": [0, 0],
    "pair of text": ["a", "b"], "pair of bools": [True, True],
}  # fmt: skip

COUNT = {"one", "1.0", "2.0"}
POSITIVE = {"one", "half", "1.0", "2.0", "10**30"}
WEIGHT = POSITIVE | {"zero"}
FRACTION = {"zero", "one", "half", "1.0"}
NAME = {"text", "number as text"}
AUTO_COUNT = COUNT | {"number as text"}
BIT = {"2.0"}
FLAG = {"true"}

ACCEPTED: dict[str, set[str]] = {
    "format": {"one", "1.0"}, "name": NAME, "recipe": NAME,
    "teacher.weights": NAME | {"dict"}, "teacher.weights.file": NAME, "teacher.weights.url": NAME,
    "teacher.weights.key": NAME, "teacher.kwargs": {"dict", "other dict"}, "teacher.input_size": COUNT,
    "teacher.channels": COUNT, "teacher.num_classes": BIT, "teacher.crop_pct": {"one", "half", "1.0"},
    "teacher.class_names": {"pair of text"},
    **{f"bits.{k}": BIT for k in ("weights", "activations", "first", "last", "skip")},
    "bits.overrides": {"dict"}, "synthesis": {"dict"}, "finetune": {"dict"}, "search": {"dict"},
    "reconstruct": {"dict"}, "reconstruct.iterations": {"zero"}, "reconstruct.batch_size": COUNT,
    "reconstruct.lr": POSITIVE, "reconstruct.lr_rounding": POSITIVE,
    "reconstruct.lr_weight_step": WEIGHT, "reconstruct.lr_step": WEIGHT,
    "reconstruct.drop_probability": FRACTION, "reconstruct.rounding_weight": WEIGHT,
    "reconstruct.warmup": {"zero", "half"}, "reconstruct.beta": {"falling pair"},
    "reconstruct.blocks": {"pair of text"}, "reconstruct.free_weights": FLAG,
    "reconstruct.memory_budget": POSITIVE, "reconstruct.num_images": COUNT,
    "study": {"dict"}, "study.confirm": {"dict"}, "study.first": {"list"},
    "study.objectives": {"list"},
    "finetune.milestones": {"list"}, "synthesis.num_holdout": BIT,
    "synthesis.seed": COUNT | {"zero"}, "study.seed": COUNT | {"zero"},
    "finetune.epochs": COUNT | {"zero"},
    "finetune.mix_weight": {"zero pair"},
    **{f"synthesis.{k}": COUNT for k in (
        "num_images", "batch_size", "iterations", "center_iterations", "lr_patience")},
    **{f"synthesis.{k}": POSITIVE for k in ("lr", "center_lr")},
    # The base's method has no generator: what is not the default is refused.
    "synthesis.swing": FLAG, "synthesis.alpha_prior": {"one", "1.0"},
    **{f"synthesis.{k}": WEIGHT for k in (
        "min_lr", "alpha_band", "alpha_bns", "alpha_layered", "alpha_center_ce", "focal_beta", "focal_gamma",
        "alpha_pse", "alpha_tv", "perturbation")},
    "synthesis.soft_target": FRACTION, "synthesis.band_limits": {"zero pair"},
    "synthesis.crop_probability": FRACTION, "synthesis.flip": FLAG,
    **{f"finetune.{k}": COUNT for k in (
        "batch_size", "steps_per_epoch", "num_views", "calibration_batches")},
    **{f"finetune.{k}": POSITIVE for k in (
        "lr", "step_lr_factor", "norm_lr_factor", "grad_clip", "temperature", "d0")},
    **{f"finetune.{k}": WEIGHT for k in (
        "weight_decay", "kd_weight", "lambda_ce", "lambda_cam", "feature_weight",
        "perturbation_weight", "perturbation_epsilon")},
    **{f"finetune.{k}": FRACTION for k in ("final_lr_factor", "tau", "paste_probability")},
    "finetune.inundation": {"zero"},  # the base's weights decay
    "finetune.inundation_cap": {"one", "1.0", "2.0", "10**30"},
    **{f"finetune.{k}": FLAG for k in (
        "lr_relative", "nesterov", "mask_strict", "filter_before_crop", "cam_normalize", "cam_resize",
        "cam_floor", "flip", "mix_keeps_variance", "clip_weights", "correct_norms")},
    "synthesis.margin": {"zero", "one", "1.0", "2.0"},
    "synthesis.smoothing": {"zero", "half", "one", "1.0", "2.0"},
    "finetune.generator_latent": AUTO_COUNT, "finetune.generator_conditional_norm": FLAG,
    "finetune.generator_mixing": COUNT, "finetune.generator_mixing_probability": FRACTION,
    **{f"finetune.generator_{k}": WEIGHT for k in (
        "ce", "bns", "disagreement", "agreement", "band")},
    "finetune.generator_band_limits": {"zero pair"}, "finetune.generator_lr": POSITIVE,
    "finetune.generator_milestones": {"list"}, "finetune.gap_weight": WEIGHT,
    "finetune.generator_warmup_epochs": COUNT | {"zero"},
    "finetune.generator_freeze_epoch": COUNT | {"zero"},
    "finetune.momentum": {"half"}, "finetune.warmup": {"zero", "half"},
    "finetune.range_share": {"one", "half", "1.0"}, "finetune.cam_layer": NAME,
    "study.val_data": NAME, "study.deterministic": COUNT,
    **{f"study.{k}": AUTO_COUNT for k in (
        "max_concurrent", "eval_every", "checkpoint_every", "parity_images")},
    "study.gpus_per_trial": AUTO_COUNT | {"zero", "half"},
    **{f"study.{k}": COUNT for k in (
        "num_trials", "eval_images", "keep_checkpoints", "confirm.top", "confirm.seeds")},
    "study.max_hours": {"one", "half", "1.0", "2.0"}, "study.target_loss": WEIGHT - {"10**30"},
}  # fmt: skip
"""Field → the hostile values that are sound for it; whatever is not here is refused."""


def _fields(model: type[Settings], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*path, name)
        for member in members(field.annotation):
            if isinstance(member, type) and issubclass(member, Settings):
                yield from _fields(member, (*path, name))


FIELDS = list(_fields(StudySpec))
BASE = load_space("digits_w3a3").model_dump(by_alias=True)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    inner = _put(tree.get(first) or {}, tuple(rest), value) if rest else value
    return {**tree, first: inner}


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_hostile_values_are_refused_in_one_line(path: tuple[str, ...]) -> None:
    """The line names the key; what is accepted is exactly what the table says."""
    accepted = set()
    for label, value in HOSTILE.items():
        try:
            build_spec(_put(BASE, path, value), "here")
            accepted.add(label)
        except SearchSpaceError as error:
            assert "\n" not in str(error) and path[-1] in str(error), (label, str(error))
    # The base has teacher.mean for no channel: whatever list is given has the wrong length.
    assert accepted == ACCEPTED.get(".".join(path), set())


def test_the_table_knows_every_field() -> None:
    """A new field must say what it accepts, or that it accepts none of these."""
    closed = {".".join(path) for path in FIELDS} - ACCEPTED.keys()
    assert closed == {
        "teacher", "teacher.model", "teacher.mean", "teacher.std", "teacher.interpolation",
        "teacher.weights.sha1", "teacher.weights.sha256", "teacher.weights.package",
        "teacher.weights.match", "quantizer", "bits", "synthesis.method", "synthesis.start",
        "synthesis.labels", "synthesis.spread", "synthesis.latent_dim", "synthesis.generator_width",
        "synthesis.lr_latent", "synthesis.lr_generator", "synthesis.generator_decay",
        "synthesis.generator_decay_every",
        "synthesis.crop_scale", "synthesis.precision", "synthesis.source", "finetune.optimizer",
        "finetune.schedule", "finetune.cam", "finetune.cam_class", "finetune.cam_reduction",
        "finetune.generator_conditioning", "finetune.generator_code", "finetune.generator_embedding",
        "finetune.kd_reduction", "finetune.mask_by", "finetune.masked_target",
        "finetune.crop_scale", "finetune.source", "reconstruct.method", "study.metric",
        "study.scheduler",
    }  # fmt: skip


GENERATOR = {
    "latent_dim": COUNT, "generator_width": BIT, "generator_decay_every": COUNT,
    "lr_latent": POSITIVE, "lr_generator": POSITIVE, "generator_decay": {"one", "half", "1.0"},
    "alpha_prior": WEIGHT, "swing": FLAG,
}  # fmt: skip


@pytest.mark.parametrize("key", GENERATOR)
def test_a_generators_settings_have_ranges_where_they_are_read(key: str) -> None:
    """With a method that has a generator each accepts what the table says."""
    accepted = set()
    for label, value in HOSTILE.items():
        try:
            build_spec(_put(BASE, ("synthesis",), {"method": "genie", key: value}), "here")
            accepted.add(label)
        except SearchSpaceError as error:
            assert "\n" not in str(error) and key in str(error), (label, str(error))
    assert accepted == GENERATOR[key]


STATISTICS = {
    "zero std": ("std", [0], "std >= 0.0001"),
    "negative std": ("std", [-0.2], "std >= 0.0001"),
    "mean of 0-255": ("mean", [123.675], r"\|mean\| <= 3.*divide by 255: \[0.485\]"),
    "std of 0-255": ("std", [58.395], r"\|std\| <= 3.*divide by 255: \[0.229\]"),
    "nan mean": ("mean", [float("nan")], "finite"),
}


@pytest.mark.parametrize(("key", "value", "message"), STATISTICS.values(), ids=STATISTICS.keys())
def test_statistics_are_of_pixels_in_the_unit_range(
    key: str, value: list[float], message: str
) -> None:
    """A division by zero, and statistics of another scale, are noticed before any work."""
    with pytest.raises(SearchSpaceError, match=rf"teacher\.{key}.*{message}"):
        build_spec(_put(BASE, ("teacher", key), value), "here")


@pytest.mark.parametrize(
    ("mean", "std"), [(0, 1), (0.5, 0.5), (0, 1 / 255), (1, 0.5), (0.485, 0.229)]
)
def test_usual_statistics_are_taken(mean: float, std: float) -> None:
    """None, symmetric, pixels of 0-255 inside the network, ImageNet's."""
    tree = _put(_put(BASE, ("teacher", "mean"), [mean]), ("teacher", "std"), [std])
    assert build_spec(tree, "here").teacher.std == (std,)


DOMAINS = {
    "empty": ("lr", {"choice": []}), "none": ("lr", {}), "two forms": ("lr", {"choice": [1], "int": [1, 2]}),
    "equal ends": ("lr", {"float": [1, 1]}), "falling": ("lr", {"float": [2, 1]}),
    "one number twice": ("lr", {"choice": [1, 1.0]}), "a word twice": ("cam", {"choice": ["cam", "cam"]}),
    "log of zero": ("lr", {"float": [0, 1], "log": True}),
    "log of a choice": ("lr", {"choice": [1], "log": True}),
    "nan": ("lr", {"choice": [float("nan")]}), "infinite": ("lr", {"float": [1, float("inf")]}),
    "text": ("lr", {"choice": ["1"]}),
    "bool": ("lr", {"choice": [True]}), "outside": ("tau", {"float": [0, 2]}),
    "fractions of a count": ("batch_size", {"float": [1, 8]}),
    "numbers for a flag": ("flip", {"int": [0, 1]}),
    "numbers for a name": ("cam", {"float": [0, 1]}), "bool as log": ("lr", {"float": [1, 2], "log": 1}),
    "not a field": ("lrr", {"choice": [1]}),
    "null": ("lr", {"choice": [None]}), "bool end": ("lr", {"int": [True, 3]}),
    "nested": ("lr", {"choice": [[1]]}), "one number": ("lr", 3), "huge": ("epochs", {"int": [1, 10**30]}),
}  # fmt: skip


@pytest.mark.parametrize(("key", "domain"), DOMAINS.values(), ids=DOMAINS.keys())
def test_domains_are_checked_with_the_field(key: str, domain: Any) -> None:
    """What a trial could not take is refused before the search, by the search's key."""
    with pytest.raises(SearchSpaceError, match="search|search key") as caught:
        build_spec(_put(BASE, ("search",), {key: domain}), "here")
    assert key in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, -32, 10**6, [0, 8], [8, -1], [8, 10**6]])
def test_input_sizes_have_a_range(size: Any) -> None:
    """None, negative and beyond memory."""
    with pytest.raises(SearchSpaceError, match=r"teacher.input_size: `1 <= pixels <= 8192`"):
        build_spec(_put(BASE, ("teacher", "input_size"), size), "here")


@pytest.mark.parametrize(
    ("key", "value"),
    [("crop_scale", [0, 1]), ("crop_scale", [0.9, 0.1]), ("mix_weight", [0.9, 0.1]),
     ("milestones", [3, 2]), ("generator_milestones", [3, 2]), ("generator_band_limits", [0.9, 0.1]),
     ("milestones", [-1]), ("milestones", [1, 1]), ("milestones", [1.5])],
)  # fmt: skip
def test_pairs_and_lists_are_ordered(key: str, value: list[float]) -> None:
    """Ranges go upwards, an area is more than none, milestones rise."""
    with pytest.raises(SearchSpaceError, match=rf"finetune\.{key}"):
        build_spec(_put(BASE, ("finetune", key), value), "here")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["inundation=0.1", "weight_decay=0.1"], "`weight_decay == 0` must hold with inundation"),
        (["generator_ce=0", "generator_bns=0"], "`a loss of the generator has a weight` must hold"),
        (
            ["generator_warmup_epochs=1", "generator_freeze_epoch=2"],
            "`generator_freeze_epoch <= gen",
        ),
        (["generator_embedding=classifier", "generator_conditioning=none"], "`a class enters the"),
    ],
)
def test_settings_fit_each_other(sets: list[str], message: str) -> None:
    """What would be ignored, or could not be, is refused."""
    with pytest.raises(SearchSpaceError, match=message):
        load_space("digits_w3a3", [f"finetune.{text}" for text in sets])


@pytest.mark.parametrize("sha1", ["xyz", "dead", "0" * 41, "deadbeeg"])
def test_a_sum_is_hexadecimal(sha1: str) -> None:
    """At least 8 of 40 digits."""
    with pytest.raises(SearchSpaceError, match="teacher.weights.sha1"):
        build_spec(_put(BASE, ("teacher", "weights", "sha1"), sha1), "here")


def test_home_is_expanded_in_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` means the same in every key that is a path."""
    monkeypatch.setenv("HOME", "/home/me")
    sets = ["teacher.weights=~/w.pth", "study.val_data=cifar10:~/c", "synthesis.method=images"]
    spec = load_space("digits_w3a3", [*sets[:2], "synthesis={method: images, source: ~/i}"])
    assert spec.teacher.weights.file == "/home/me/w.pth"
    assert spec.study.val_data == "cifar10:/home/me/c"
    assert spec.synthesis.source == "/home/me/i"
    assert load_space("digits_w3a3", ["study.val_data=~/v"]).study.val_data == "/home/me/v"
