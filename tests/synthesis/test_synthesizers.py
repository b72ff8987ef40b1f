"""What every synthesis method promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from synq_tune.config import Synthesis
from synq_tune.config.load import load_space
from synq_tune.config.synthesis import METHOD_SETTINGS, ImportSettings
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.names import known
from synq_tune.synthesis import synthesizer
from synq_tune.synthesis.dataset import synthesize
from synq_tune.trial.requirements import prepare
from tests.helpers import teacher_of
from tests.synthesis.conftest import MakeSpec

Teachers = Callable[[str], LoadedTeacher]


@pytest.fixture
def teacher_for(teacher: LoadedTeacher, vit: LoadedTeacher) -> Teachers:
    """A bundled teacher that has what a method asks."""
    return lambda method: vit if "attention" in synthesizer(method).needs else teacher


def _hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("method", known("synthesis method"))
def test_dataset_has_its_shape(
    teacher_for: Teachers, make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    """Training part and hold-out of the asked sizes, finite, labels in range."""
    teacher = teacher_for(method)
    dataset, reused = synthesize(teacher, make_spec(method=method), tmp_path, progress=False)
    assert not reused
    assert dataset.train_images.shape == (12, 1, 8, 8) and dataset.holdout_images.shape[0] == 4
    assert dataset.images.dtype == torch.float16 and dataset.images.isfinite().all()
    assert dataset.labels.shape == (16,) and dataset.labels.dtype == torch.int64
    assert dataset.labels.min() >= 0 and dataset.labels.max() < 10
    assert dataset.method == method and dataset.path == tmp_path / "datasets" / dataset.address


@pytest.mark.parametrize("method", known("synthesis method"))
def test_dataset_is_seeded(
    teacher_for: Teachers, make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    """The same settings give the same bits, whatever else drew random numbers before."""
    teacher = teacher_for(method)
    first, _ = synthesize(teacher, make_spec(method=method), tmp_path / "a", progress=False)
    torch.randn(7)
    again, _ = synthesize(teacher, make_spec(method=method), tmp_path / "b", progress=False)
    assert (first.address, first.sha256) == (again.address, again.sha256)


@pytest.mark.parametrize("method", ["synq", "noise", "genie", "zeroq"])
def test_another_seed_is_another_dataset(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    """Address and images follow the seed."""
    first, _ = synthesize(teacher, make_spec(method=method), tmp_path, progress=False)
    other, reused = synthesize(teacher, make_spec(method=method, seed=1), tmp_path, progress=False)
    assert not reused and first.address != other.address and first.sha256 != other.sha256


@pytest.mark.parametrize("method", known("synthesis method"))
def test_teacher_stays_unchanged(
    teacher_for: Teachers, make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    """No tensor of the teacher changes, no gradient stays in it, and every hook is gone."""
    teacher = teacher_for(method)
    before = {k: v.clone() for k, v in teacher.graph.state_dict().items()}
    hooks = _hooks(teacher.graph)
    synthesize(teacher, make_spec(method=method), tmp_path, progress=False)
    after = teacher.graph.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(p.grad is None and not p.requires_grad for p in teacher.graph.parameters())
    assert _hooks(teacher.graph) == hooks and not teacher.graph.training


@pytest.mark.parametrize("method", known("synthesis method"))
def test_nothing_is_shown_without_progress(
    teacher_for: Teachers,
    make_spec: MakeSpec,
    tmp_path: Path,
    method: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """`progress=False` is silent on both streams."""
    teacher = teacher_for(method)
    synthesize(teacher, make_spec(method=method), tmp_path, progress=False)
    assert capfd.readouterr() == ("", "")


def test_progress_shows_the_loss(
    teacher: LoadedTeacher,
    make_spec: MakeSpec,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The bar on standard error counts every iteration and shows the loss."""
    synthesize(teacher, make_spec(method="noise"), tmp_path, progress=True)
    out, err = capfd.readouterr()
    assert not out and "loss" in err and "9/9" in err


@pytest.mark.parametrize("method", ["synq", "noise", "genie", "zeroq"])
def test_a_teacher_without_batchnorm_is_an_error(
    make_spec: MakeSpec, tmp_path: Path, method: str
) -> None:
    """Without remembered statistics there is nothing to ask; the message says what works."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    spec = make_spec(method=method)
    with pytest.raises(InputError, match="BatchNorm layers.*method=images"):
        synthesize(teacher_of(model, (1, 8, 8)), spec, tmp_path, progress=False)


def test_an_unknown_method_is_an_error(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Also where the settings were never validated, a method is looked up."""
    spec = make_spec()
    wrong = spec.model_copy(update={"synthesis": spec.synthesis.model_copy(update={"method": "x"})})
    with pytest.raises(
        InputError, match="Unknown synthesis method 'x'. Available: genie, images, noise"
    ):
        synthesize(teacher, wrong, tmp_path, progress=False)


@pytest.mark.parametrize("space, sets, lacks", [
    ("digits_w3a3", ["synthesis.method=psaq"], "attention"),
    ("digits_vit_w4a8", ["synthesis.method=noise"], "BatchNorm"),
])  # fmt: skip
def test_a_study_asks_first_what_its_method_needs(space: str, sets: list[str], lacks: str) -> None:
    """A teacher that a method cannot ask is refused before a store or a tracking run exists."""
    spec = load_space(space, [*sets, "study.val_data=null"])
    with pytest.raises(InputError, match=lacks):
        prepare(spec, torch.device("cpu"))


def test_every_setting_counts_for_some_method() -> None:
    """A new field is in the settings of a method, and with them in the address of its datasets."""
    read = {key for settings in METHOD_SETTINGS.values() for key in settings.model_fields}
    assert read == Synthesis.model_fields.keys() - {"method", "perturbation"}


@pytest.mark.parametrize("method", known("synthesis method"))
def test_what_is_refused_follows_from_a_methods_settings(method: str) -> None:
    """The settings that validation knows without torch are those that the method is given."""
    settings = METHOD_SETTINGS[method]
    assert getattr(synthesizer(method), "settings", ImportSettings) is settings
    source = "x.npy" if method == "images" else None
    for key, value in (("start", "shapes"), ("precision", "bfloat16")):
        if key in settings.model_fields:
            assert getattr(Synthesis(method=method, **{key: value}), key) == value
        else:
            with pytest.raises(ValidationError, match=f"`{key} is .*must hold.*method '{method}'"):
                Synthesis(method=method, source=source, **{key: value})


@pytest.mark.parametrize("method", ["synq", "noise", "psaq", "genie", "zeroq"])
def test_a_new_setting_leaves_stored_datasets_where_they_are(method: str) -> None:
    """Settings that are none of a method's are no part of its datasets' address."""

    class Newer(Synthesis):
        another: int = 1

    assert synthesizer(method).address(Newer()) == synthesizer(method).address(Synthesis())


@pytest.mark.parametrize("method, steps", [
    ("synq", 3 * 3 + 2 * 2), ("noise", 3 * 3), ("psaq", 3 * 3), ("genie", 3 * 3), ("images", 0),
    ("zeroq", 3 * 3),
])  # fmt: skip
def test_a_method_says_how_many_batches_it_takes(
    make_spec: MakeSpec, method: str, steps: int
) -> None:
    """Sixteen images in three batches of three iterations, and two iterations for each of the
    centres' two batches."""
    assert synthesizer(method).steps(make_spec(method=method).synthesis, 10) == steps


def test_a_band_asks_about_finished_batches_once_more(make_spec: MakeSpec) -> None:
    """All but the last of three."""
    plain, band = (make_spec(alpha_band=weight).synthesis for weight in (0, 1))
    assert synthesizer("synq").steps(band, 10) == synthesizer("synq").steps(plain, 10) + 2
