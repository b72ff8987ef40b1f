"""Our own families keep the promises that others can test theirs by, and broken ones are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from synq_tune.config import Synthesis, Teacher
from synq_tune.config.load import RECIPES_DIR, names_in
from synq_tune.models.build import build_model
from synq_tune.names import known
from synq_tune.synthesis import synthesizer
from synq_tune.testing import check_cam, check_network, check_recipe, check_synthesizer
from synq_tune.testing.synthesizers import SMALL
from synq_tune.views.cam import technique_weights

# The deeper ones of a family repeat the same blocks.
NETWORKS = sorted(set(known("model")) - {"cifar_resnet32", "cifar_resnet44", "cifar_resnet56"})


class _Sine(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x)


def _small(*tail: nn.Module) -> nn.Sequential:
    head = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*head, nn.Flatten(), *tail)


@pytest.mark.parametrize("name", NETWORKS)
def test_our_networks_pass(name: str) -> None:
    """Traced, quantized, one finite step."""
    check_network(build_model(Teacher(model=name, channels=1)), (1, 8, 8))


@pytest.mark.parametrize("quantizer", known("quantizer"))
def test_a_small_network_passes_with_every_quantizer(quantizer: str) -> None:
    """The contract is not one quantizer's."""
    check_network(_small(nn.Linear(4, 3)), (1, 6, 6), quantizer)


def test_the_network_stays_as_it_is() -> None:
    """Neither mode nor weights nor gradients of the user's network change."""
    model = _small(nn.Linear(4, 3)).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    check_network(model, (1, 6, 6))
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class _Branches(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_Branches(), "is traced"),
        (nn.Conv2d(1, 3, 3), r"logits \(N, K\)"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)), "BatchNorm"),
        (_small(_Sine(), nn.Linear(4, 3)), "quantized.*sin"),
    ],
    ids=["branches", "maps", "no-batchnorm", "unknown-activation"],
)
def test_a_network_that_does_not_fit_is_found(model: nn.Module, message: str) -> None:
    """The text names the promise."""
    with pytest.raises(AssertionError, match=message):
        check_network(model, (1, 6, 6))


@pytest.mark.parametrize("method", known("synthesis method"))
def test_our_synthesis_methods_pass(method: str, array: Path) -> None:
    """Counts, types, seed, an unchanged teacher."""
    settings = {**SMALL.model_dump(), "method": method}
    source = {"source": str(array)} if method == "images" else {}
    network = "digits_vit" if "attention" in synthesizer(method).needs else "digits_resnet26"
    check_synthesizer(synthesizer(method), Synthesis(**{**settings, **source}), network)


def _images(config: Synthesis) -> tuple[torch.Tensor, torch.Tensor]:
    count = config.num_images + config.num_holdout
    return torch.zeros(count, 1, 8, 8), torch.zeros(count, dtype=torch.int64)


def _too_few(teacher, config, folder, show):
    images, labels = _images(config)
    return images[1:], labels


def _unseeded(teacher, config, folder, show):
    images, labels = _images(config)
    return images + torch.rand((), generator=_GENERATOR), labels


_GENERATOR = torch.Generator().manual_seed(0)


def _trains_the_teacher(teacher, config, folder, show):
    next(m for m in teacher.graph.modules() if isinstance(m, nn.BatchNorm2d)).running_mean += 1
    return _images(config)


def _leaves_a_hook(teacher, config, folder, show):
    teacher.graph.register_forward_hook(lambda *_: None)
    return _images(config)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_too_few, "images.shape"),
        (_unseeded, "same seed"),
        (_trains_the_teacher, "stays unchanged"),
        (_leaves_a_hook, "hooks are removed"),
    ],
)
def test_a_synthesis_method_that_does_not_fit_is_found(
    function: Callable[..., object], message: str
) -> None:
    """The text names the promise."""
    with pytest.raises(AssertionError, match=message):
        check_synthesizer(function)


@pytest.mark.parametrize("name", known("CAM technique"))
def test_our_cam_techniques_pass(name: str) -> None:
    """Shape, finiteness, independence within the batch."""
    check_cam(technique_weights(name))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda a, g: g.sum((0, 2, 3)), r"weights.shape == \(N, C\)"),
        (lambda a, g: g.mean((2, 3)) / g.abs().sum((2, 3)), "finite.*gradients are zero"),
        (lambda a, g: g.mean((2, 3)) / a.sum((2, 3)), "finite.*activations are zero"),
        (lambda a, g: g.mean((2, 3)) - g.mean((0, 2, 3)), "do not depend on the other images"),
        (lambda a, g: g.abs_().mean((2, 3)), "stay unchanged"),
        (lambda a, g: None, "float tensor"),
    ],
    ids=["shape", "zero-gradients", "zero-activations", "batch", "in-place", "nothing"],
)
def test_a_cam_technique_that_does_not_fit_is_found(
    function: Callable[..., object], message: str
) -> None:
    """The text names the promise."""
    with pytest.raises(AssertionError, match=message):
        check_cam(function)


@pytest.mark.parametrize("name", names_in(RECIPES_DIR))
def test_our_recipes_pass(name: str) -> None:
    """Each makes a valid trial."""
    check_recipe(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: {lr: {choice: [1]}}", "its ranges hold its own values"),
        ("finetune: {learning_rate: 1}", "valid study.*learning_rate"),
        ("finetune: {nesterov: true, momentum: 0}", "valid study.*momentum"),
    ],
)
def test_a_recipe_that_does_not_fit_is_found(tmp_path: Path, text: str, message: str) -> None:
    """The text names the promise."""
    (tmp_path / "mine.yaml").write_text(text + "\n")
    with pytest.raises(AssertionError, match=message):
        check_recipe(tmp_path / "mine.yaml")
