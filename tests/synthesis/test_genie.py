"""GENIE-D: its loss, its two rates, and datasets made with it."""

from __future__ import annotations

import gc
import re
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from synq_tune import notes
from synq_tune.config import Synthesis
from synq_tune.config.load import load_space
from synq_tune.config.synthesis import GenieSettings
from synq_tune.graph.batchnorm import batchnorm_layers
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis.dataset import synthesize
from synq_tune.synthesis.generator import Generated
from synq_tune.synthesis.genie import METHOD, descent, objective
from synq_tune.synthesis.image_statistics import image_prior
from synq_tune.synthesis.method import Batch, Work
from synq_tune.trial.memory import synthesis_bytes
from tests.helpers import teacher_of
from tests.synthesis.conftest import MakeSpec

TINY = {"method": "genie", "latent_dim": 8, "generator_width": 8}


def _loss(teacher: LoadedTeacher, images: Tensor, **settings: Any) -> float:
    work = Work(teacher, GenieSettings(swing=False, **settings), Path(), show=False)
    batch = Batch(len(images), None, torch.Generator())
    with objective(work).loss(batch) as loss, torch.no_grad():
        return loss(images, teacher(images)).item()


def _by_hand(teacher: LoadedTeacher, images: Tensor) -> float:
    """The released code's sums, of what each BatchNorm reads."""
    read: list[Tensor] = []
    layers = batchnorm_layers(teacher.graph)
    hooks = [m.register_forward_pre_hook(lambda m, x: read.append(x[0].double())) for m in layers]
    teacher(images)
    for hook in hooks:
        hook.remove()
    total = 0.0
    for layer, x in zip(layers, read, strict=True):
        deviation, mean = torch.std_mean(x, (0, 2, 3))
        wanted = (layer.running_var.double() + 1e-6).sqrt()
        gap = (mean - layer.running_mean).square().sum() + (deviation - wanted).square().sum()
        total += (gap / x.shape[1]).item()
    return total


def test_the_loss_is_the_papers(teacher: LoadedTeacher) -> None:
    """Layers added up, means over channels, deviations with Bessel's correction, one prior an image."""
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    gaps = _by_hand(teacher, images)
    assert _loss(teacher, images, alpha_prior=0.0) == pytest.approx(gaps, rel=1e-4)
    deviation, mean = torch.std_mean(images, (2, 3))
    prior = ((mean**2).sum() + ((deviation - 1) ** 2).sum()).item() / 6
    assert image_prior(images).item() == pytest.approx(prior, rel=1e-4)
    assert _loss(teacher, images, alpha_prior=3.0) == pytest.approx(gaps + 3 * prior, rel=1e-4)


def test_the_prior_adds_channels_up() -> None:
    """Two images of two channels, one of them off by 2 in its mean and by 3 in its deviation."""
    checks = torch.tensor([[-1.0, 1.0], [1.0, -1.0]]) * 0.75**0.5
    images = checks.expand(2, 2, 2, 2).clone()
    assert image_prior(images).item() == pytest.approx(0, abs=1e-5)
    images[0, 1] = 4 * images[0, 1] + 2
    assert image_prior(images).item() == pytest.approx((4 + 9) / 2, abs=1e-4)


def test_the_generators_rate_falls_steadily_and_the_latents_when_they_wait() -> None:
    """0.95 every 100 iterations; tenfold after 100 without a lower loss, down to 0.0001."""
    own = descent(GenieSettings())
    leaves = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.01)]
    optimizer = own.optimizer(leaves)
    schedule, rates, loss = own.schedule(optimizer), [], None
    for iteration in range(420):
        schedule(iteration, loss)
        loss = max(100.0 - iteration, 90.0)
        rates.append(tuple(group["lr"] for group in optimizer.param_groups))
    assert rates[0] == (0.1, 0.01) and rates[99] == (0.1, 0.01)
    assert rates[100] == (0.1, pytest.approx(0.0095))
    assert rates[-1] == (pytest.approx(1e-4), pytest.approx(0.01 * 0.95**4))
    drops = [i for i in range(1, 420) if rates[i][0] != rates[i - 1][0]]
    assert drops == [112, 213, 314]
    assert own.iterations == 4000 and own.lr == 0.1


def test_images_come_nearer_to_the_statistics(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The teacher's arg-max labels them; later iterations have lower losses."""
    losses = []
    for iterations in (1, 25):
        spec = make_spec(**TINY, iterations=iterations, batch_size=16)
        made, _ = synthesize(teacher, spec, tmp_path, progress=False)
        losses.append(sum(made.provenance["losses"]))
        assert torch.equal(made.labels, teacher(made.images.float()).argmax(1))
    assert losses[1] < 0.7 * losses[0]
    assert made.provenance["made_at"] == [8, 8]


def test_swing_and_precision_change_the_images(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Each is filed apart, finite, and drawn anew by the seed alone."""
    changes: list[dict[str, Any]] = [{}, {"swing": False}, {"precision": "bfloat16"}, {"seed": 1}]
    made = [
        synthesize(teacher, make_spec(**TINY, **change), tmp_path, progress=False)[0]
        for change in changes
    ]
    assert len({dataset.address for dataset in made}) == len({d.sha256 for d in made}) == 4


class Killed(Exception):
    """In place of a signal."""


def test_a_killed_run_repeats_only_the_batch_it_was_at(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The rest stays, and the images are bit for bit those of a run that went through."""
    config = make_spec(**TINY).synthesis
    whole = METHOD.synthesize(teacher, config, tmp_path / "a", False)
    started = []

    def canvas(*given: Any) -> Generated:
        started.append(given[2])
        if len(started) == 2:
            torch.rand(5)
            raise Killed
        return Generated(*given)

    watched = replace(METHOD, canvas=canvas)
    with pytest.raises(Killed):
        watched.synthesize(teacher, config, tmp_path / "b", False)
    assert [file.stem for file in (tmp_path / "b").glob("*.safetensors")] == ["images-00000"]
    again = watched.synthesize(teacher, config, tmp_path / "b", False)
    assert len(started) == 4  # one was made, one was killed, two were missing
    assert torch.equal(whole.images, again.images) and torch.equal(whole.labels, again.labels)


def test_memory_is_flat_over_batches(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """When a batch begins nothing is left of the one before, without waiting for Python's collector."""
    alive, networks = [], []

    def canvas(*given: Any) -> Generated:
        alive.append(sum(network() is not None for network in networks))
        made = Generated(*given)
        networks.extend((weakref.ref(made.network), weakref.ref(made.latents)))
        return made

    config = make_spec(**TINY, batch_size=4).synthesis
    gc.collect()
    gc.disable()
    try:
        replace(METHOD, canvas=canvas).synthesize(teacher, config, tmp_path, False)
    finally:
        gc.enable()
    assert alive == [0, 0, 0, 0]
    assert not any(network() is not None for network in networks)


def test_a_size_that_four_does_not_divide_is_cropped_and_said(
    make_spec: MakeSpec,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a line before it starts, and in the dataset's manifest."""
    monkeypatch.setattr(notes, "_SAID", set())
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 10),
    )  # fmt: skip
    made, _ = synthesize(teacher_of(net, (2, 7, 10)), make_spec(**TINY), tmp_path, progress=False)
    assert made.images.shape == (16, 2, 7, 10) and made.provenance["made_at"] == [8, 12]
    said = capsys.readouterr().err
    assert re.search(r"note: synthesis: images are made at 8×12.*cropped to 7×10\.", said)


REFUSED = {
    "a rate of pixels": ({"method": "genie", "lr": 0.1}, "lr is 0.5.*lr_latent and lr_generator"),
    "a start of pixels": ({"method": "genie", "start": "shapes"}, "start is noise"),
    "labels": ({"method": "genie", "labels": "even"}, "labels is random"),
    "a rate that would rise": ({"method": "genie", "min_lr": 0.2}, "min_lr <= lr_latent"),
    "a generator of pixels": ({"method": "synq", "latent_dim": 3}, "latent_dim is 256.*generator"),
    "a swing of pixels": ({"method": "noise", "swing": False}, "swing is True"),
    "a prior of pixels": ({"method": "psaq", "alpha_prior": 0}, "alpha_prior is 1.0"),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_settings_that_make_no_sense_together_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    """By name, rather than ignored."""
    with pytest.raises(ValidationError, match=message):
        Synthesis(**settings)


def test_where_nothing_is_asked_the_paper_holds() -> None:
    """A method's own counts; what is asked wins, a dump reads as itself, other methods keep theirs."""
    genie = Synthesis(method="genie")
    counts = (genie.num_images, genie.batch_size, genie.iterations, genie.lr_patience)
    assert counts == (1024, 128, 4000, 100)
    assert Synthesis(method="genie", iterations=7).iterations == 7
    assert Synthesis.model_validate(genie.model_dump()) == genie
    synq = Synthesis(method="synq")
    assert synq == Synthesis() and (synq.num_images, synq.iterations) == (5120, 1000)
    space = load_space("digits_w3a3", ["synthesis.method=genie", "synthesis.iterations=null"])
    assert (space.synthesis.iterations, space.synthesis.num_images) == (4000, 512)


def test_memory_counts_the_generator(teacher: LoadedTeacher) -> None:
    """What `inspect.py` says beforehand grows with the generator's width alone."""
    said = [
        synthesis_bytes(load_space("digits_w3a3", sets), teacher)
        for sets in (
            [],
            ["synthesis.method=genie"],
            ["synthesis.method=genie", "synthesis.generator_width=256"],
        )
    ]
    assert said[0] < said[1] < said[2]
