"""Every bundled space is valid, and the paper's networks are the ones the paper quantized."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from synq_tune.config import StudySpec, Weights
from synq_tune.config.load import SPACES_DIR, load_space
from synq_tune.models.build import build_model
from synq_tune.models.preprocessing import resolve_preprocessing
from synq_tune.models.published import pytorchcv_weights

NETWORKS = ("resnet20_cifar10", "resnet20_cifar100", "resnet18", "resnet50", "mobilenetv2")
BITS = (3, 4)
PAPER = [f"{network}_w{bits}a{bits}" for network in NETWORKS for bits in BITS]
TABLE_10 = {
    "tau": {0.5, 0.55, 0.6, 0.65, 0.7},
    "d0": {20, 40, 60, 80, 100},
    "lambda_ce": {5, 0.5, 0.05, 0.005},
    "lambda_cam": {20, 50, 100, 200, 300, 500, 2000},
    "cam": {"cam", "gradcam", "gradcam++"},
}
PARAMETERS = {
    "resnet20_cifar10": 272_474,
    "resnet20_cifar100": 278_324,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenetv2": 3_504_960,
}


def _model_name(spec: StudySpec) -> str:
    return spec.teacher.model.removeprefix("pytorchcv:")


@pytest.mark.parametrize("path", sorted(SPACES_DIR.glob("*.yaml")), ids=lambda p: p.stem)
def test_a_space_is_named_like_its_file_and_pins_whole_sums(path: Path) -> None:
    """A study's folder is named like its space; a sum has all of its 40 digits."""
    spec = load_space(path.stem)
    assert spec.name == path.stem
    sha1 = spec.teacher.weights.sha1
    assert sha1 is None or re.fullmatch("[0-9a-f]{40}", sha1)


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_space_has_the_papers_settings(name: str) -> None:
    """Table 10 is searched, with the paper's images, epochs, batch size and pinned weights."""
    spec = load_space(name)
    searched = {key: set(domain.values) for key, domain in spec.search.items()}
    # The default recipe's rates are shares of a tensor's size, not Table 10's absolute ones.
    assert searched == {**TABLE_10, "lr": {1e-3, 3e-3, 1e-2}}
    assert (spec.bits.weights, spec.bits.activations) == (int(name[-3]), int(name[-1]))
    assert (spec.synthesis.num_images, spec.synthesis.iterations) == (5120, 1000)
    batch_size = 256 if "cifar" in name else 16
    assert (spec.finetune.epochs, spec.finetune.batch_size) == (100, batch_size)
    for key, domain in spec.search.items():
        assert domain.contains(getattr(spec.finetune, key))


@pytest.mark.parametrize("name", PAPER)
def test_a_paper_space_says_its_whole_input_contract(name: str) -> None:
    """Nothing about the input is left to a library's default, and the url names the sum."""
    teacher = load_space(name).teacher
    for key in ("input_size", "num_classes", "mean", "std", "crop_pct", "interpolation"):
        assert getattr(teacher, key) is not None, key
    assert teacher.weights.sha1 is not None
    assert teacher.weights.url.endswith(f"-{teacher.weights.sha1[:8]}.pth.zip")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_paper_network_has_the_spaces_shapes(network: str) -> None:
    """pytorchcv's network of that name takes the space's input, and gives its classes."""
    teacher = load_space(f"{network}_w4a4").teacher
    model = build_model(teacher)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[network]
    images = torch.zeros(1, *resolve_preprocessing(teacher, model).shape)
    with torch.no_grad():
        assert model(images).shape == (1, teacher.num_classes)
    assert images.shape[2:] == tuple(model.in_size)


@pytest.mark.parametrize("network", NETWORKS)
def test_pins_agree_with_pytorchcv_except_for_resnet18(network: str) -> None:
    """The installed package publishes the paper's checkpoints, but a stronger ResNet-18."""
    spec = load_space(f"{network}_w4a4")
    published = pytorchcv_weights(_model_name(spec))
    pinned = Weights(url=spec.teacher.weights.url, sha1=spec.teacher.weights.sha1)
    assert (published == pinned) == (network != "resnet18")
    assert (published.sha1 == pinned.sha1) == (network != "resnet18")


@pytest.mark.parametrize("network", NETWORKS)
def test_bit_widths_of_a_network_share_one_dataset(network: str) -> None:
    """Teacher and synthesis are the same at three and at four bits."""
    three, four = (load_space(f"{network}_w{b}a{b}") for b in BITS)
    assert (three.teacher, three.synthesis) == (four.teacher, four.synthesis)


@pytest.mark.parametrize("file", ["x.pth", "{file: x.pth}"])
def test_a_file_keeps_the_pin(file: str) -> None:
    """A local file, by flag or by `--set`, stands beside the space's url and SHA-1."""
    space = load_space("resnet18_w4a4").teacher.weights
    by_set = load_space("resnet18_w4a4", [f"teacher.weights={file}"]).teacher.weights
    flags = {"teacher": {"weights": {"file": "x.pth"}}}
    by_flag = load_space("resnet18_w4a4", [], flags).teacher.weights
    assert by_set == by_flag == space.model_copy(update={"file": "x.pth"})


def test_a_pin_can_be_taken_off() -> None:
    """`--set teacher.weights.sha1=null` leaves the rest as it is."""
    space = load_space("resnet18_w4a4").teacher.weights
    free = load_space("resnet18_w4a4", ["teacher.weights.sha1=null"]).teacher.weights
    assert free == space.model_copy(update={"sha1": None})
