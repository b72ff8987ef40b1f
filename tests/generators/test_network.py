"""One generator for all methods: every size, every way in which classes enter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from synq_tune.config import FineTune
from synq_tune.errors import InputError
from synq_tune.generators.build import build_generator
from synq_tune.generators.classifier import classifier_rows, first_vectors, latent_length
from synq_tune.generators.draws import Draw, draws
from synq_tune.generators.found import Cell, FoundGenerator
from synq_tune.generators.network import Generator
from synq_tune.models.teacher import LoadedTeacher
from tests.helpers import teacher_of


def _draw(count: int, mixing: int = 1, latent: int = 6, classes: int = 4, seed: int = 0) -> Draw:
    generator = torch.Generator().manual_seed(seed)
    config = FineTune(generator_mixing=mixing, generator_mixing_probability=1.0)
    return next(draws(config, count, latent, classes, generator))


def _generator(
    conditioning: str = "multiply", norm: bool = False, shape: tuple[int, int, int] = (3, 8, 8)
) -> Generator:
    torch.manual_seed(0)
    config = FineTune(generator_conditioning=conditioning, generator_conditional_norm=norm)
    return Generator(config, 6, 4, shape)


@pytest.mark.parametrize("shape", [(3, 8, 12), (1, 5, 5), (4, 30, 33), (3, 2, 3)], ids=str)
def test_images_have_the_teachers_shape(shape: tuple[int, int, int]) -> None:
    """Any number of channels; sides that four does not divide are the middle of the next size."""
    assert _generator(shape=shape)(_draw(3)).shape == (3, *shape)


def test_a_batch_comes_out_normalised() -> None:
    """Each channel has mean 0 and deviation 1 over the batch, in evaluation as in training."""
    images = _generator().eval()(_draw(5))
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-2, rtol=0
    )


@pytest.mark.parametrize("mixing", [1, 3])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("conditioning", ["none", "multiply", "add_norm"])
def test_every_weight_learns(conditioning: str, norm: bool, mixing: int) -> None:
    """Whatever is made is read: no parameter is without a gradient."""
    network = _generator(conditioning, norm)
    network(_draw(5, mixing)).square().mul(torch.rand(5, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(
    ("conditioning", "norm", "differs"),
    [("none", False, False), ("multiply", False, True), ("add_norm", False, True)],
)
def test_classes_enter_as_asked(conditioning: str, norm: bool, differs: bool) -> None:
    """The same latents for another class give another image, but where no class enters."""
    network, draw = _generator(conditioning, norm), _draw(5)
    other = Draw(draw.latents, (draw.classes + 1) % 4, draw.shares)
    assert torch.equal(network(draw), network(other)) is not differs


def test_a_class_has_factors_of_its_own() -> None:
    """They start as 1 and 0, as if there were none; one class's are of its images alone."""
    plain, conditional = _generator("none"), _generator("none", norm=True)
    weights = {k: v for k, v in plain.state_dict().items() if not k.startswith("norms")}
    conditional.load_state_dict(weights, strict=False)
    draw = _draw(6)
    before = conditional.norms[2](torch.ones(6, 64, 2, 2), draw)
    torch.testing.assert_close(plain(draw), conditional(draw))
    conditional.norms[2].shifts.weight.data[draw.classes[0, 0]] += 1
    moved = (conditional.norms[2](torch.ones(6, 64, 2, 2), draw) - before).amax((1, 2, 3)) > 0
    assert torch.equal(moved, draw.classes[:, 0] == draw.classes[0, 0])


def test_a_mixture_of_one_class_is_that_class() -> None:
    """Factors and latents are added by share: Qimera's code divides factors by M once more."""
    network, one = _generator("add_norm", norm=True), _draw(5)
    shares = torch.rand(5, 3).softmax(1)
    three = Draw(one.latents.expand(5, 3, 6), one.classes.expand(5, 3), shares)
    torch.testing.assert_close(network(one), network(three), atol=1e-5, rtol=1e-5)


FOUND = {
    "CIFAR-10": "000010|606546635666245|002001111222",
    "CIFAR-100": "100000|666046425665446|021001021122",
    "ResNet-18": "111111|666666666566455|121221221121",
    "ResNet-50": "111111|666666632256645|222112111122",
    "MobileNetV2": "111101|664664622236465|221222212221",
}  # fmt: skip


def _found(code: str, shape: tuple[int, int, int] = (3, 8, 8)) -> FoundGenerator:
    torch.manual_seed(0)
    return FoundGenerator(FineTune(generator_code=code, generator_conditioning="none"), 6, 4, shape)


@pytest.mark.parametrize("code", FOUND.values(), ids=FOUND.keys())
def test_found_generators_make_images(code: str) -> None:
    """Of any size, normalised; every weight that is made learns."""
    for shape in ((3, 8, 8), (1, 5, 9)):
        network = _found(code, shape)
        images = network(_draw(3))
        assert images.shape == (3, *shape)
    network = _found(code)
    network(_draw(3)).square().mul(torch.rand(3, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_cell_is_what_its_code_says() -> None:
    """Operations 0 and 1 lead into the third node, 2 to 4 into the fourth; crossings into both."""
    draw, x = _draw(2), torch.randn(2, 64, 2, 2)
    cell = Cell([0, 1], [1, 0, 0, 1, 1], [0] * 6, 4)
    out, (first, second, third) = cell(x, [], draw)
    torch.testing.assert_close(third, first)
    torch.testing.assert_close(out, second + third)
    before = [torch.randn(2, 64, 2, 2) for _ in range(3)]
    crossed = Cell([0, 1], [0] * 5, [0, 2, 0, 0, 0, 1], 4)
    out, (_, _, third) = crossed(x, before, draw)
    torch.testing.assert_close(third, crossed.crosses[1](before[1], draw))
    torch.testing.assert_close(out, crossed.crosses[5](before[2], draw))
    assert crossed.crosses[1].mode == "bilinear" and crossed.crosses[5].mode == "nearest"


def test_the_code_decides_which_generator() -> None:
    """Without one it is the common trunk."""
    asked = FineTune(generator_code=FOUND["CIFAR-10"])
    assert isinstance(build_generator(asked, 6, 4, (3, 8, 8)), FoundGenerator)
    assert isinstance(build_generator(FineTune(), 6, 4, (3, 8, 8)), Generator)


def test_draws_are_uniform_and_shares_add_up() -> None:
    """A class that comes twice has both shares; the label is the largest share of one slot."""
    draw = _draw(400, mixing=5, classes=3)
    targets = draw.mixture(3)
    torch.testing.assert_close(targets.sum(1), torch.ones(400))
    torch.testing.assert_close(targets[0, 0], draw.shares[0][draw.classes[0] == 0].sum())
    assert torch.equal(draw.labels, draw.classes[range(400), draw.shares.argmax(1)])
    counts = draw.classes.flatten().bincount(minlength=3)
    assert counts.min() > 550 and _draw(4).mixture(3) is None


def test_mixed_batches_come_as_often_as_asked() -> None:
    """A batch is mixed as a whole."""
    config = FineTune(generator_mixing=2, generator_mixing_probability=0.3)
    drawn = draws(config, 1, 1, 3, torch.Generator().manual_seed(0))
    mixed = sum(next(drawn).classes.shape[1] == 2 for _ in range(500))
    assert 110 < mixed < 190


def _teacher(last: nn.Module) -> LoadedTeacher:
    layers = [nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return teacher_of(nn.Sequential(*layers, *last), (3, 8, 8))


def test_rows_of_a_classifier_are_found() -> None:
    """Of a linear layer, or of the convolution that stands for one."""
    linear, convolution = nn.Linear(5, 4), nn.Conv2d(5, 4, 1)
    for layers, layer in (
        ([nn.Flatten(), linear], linear),
        ([convolution, nn.Flatten()], convolution),
    ):
        teacher = _teacher(layers)
        torch.testing.assert_close(classifier_rows(teacher), layer.weight.detach().flatten(1))
        config = FineTune(
            generator_latent="features",
            generator_embedding="classifier",
            generator_conditioning="add_norm",
        )
        assert latent_length(teacher, config) == 5
        rows = first_vectors(teacher, config)
        assert torch.equal(Generator(config, 5, 4, (3, 8, 8), rows).latents.vectors.weight, rows)


def test_rows_of_another_length_are_refused() -> None:
    """A latent is as long as what its classes start from."""
    config = FineTune(generator_embedding="classifier")
    with pytest.raises(InputError, match="`it is 5, a row of the classifier` must hold"):
        first_vectors(_teacher([nn.Flatten(), nn.Linear(5, 4)]), config)
