"""Random networks of all parts pass the whole chain, or are refused in one line; nothing else happens.

A failure names its seed: `python -m synq_tune.testing.random_journey SEED` repeats it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from synq_tune.names import known
from synq_tune.testing.random_journey import Journey, draw_spec, summary, take
from synq_tune.testing.random_networks import NUM_CLASSES, input_shape, random_network

QUICK = range(12)
EXPORTED = (2, 8)
MANY = range(300)


@pytest.mark.parametrize("seed", [s for s in QUICK if s not in EXPORTED])
def test_a_random_network_is_trained_or_refused(seed: int) -> None:
    """Trace equals network, every grid is read, two steps are taken; the export is left out."""
    take(seed, None)


@pytest.mark.parametrize("seed", [2, *(pytest.param(s, marks=pytest.mark.long) for s in (8, 84))])
def test_a_random_network_is_exported_or_refused(seed: int, tmp_path: Path) -> None:
    """The whole chain: codes and classes of every file are the student's (84 pools by a divisor)."""
    take(seed, tmp_path)


def test_a_number_names_one_network() -> None:
    """The same weights and logits each time, and the caller's random state stays."""
    state = torch.get_rng_state()
    first, second = random_network(5), random_network(5)
    assert torch.equal(state, torch.get_rng_state())
    images = torch.randn(2, *input_shape(5))
    with torch.no_grad():
        assert torch.equal(first(images.clone()), second(images.clone()))
        assert first(images).shape == (2, NUM_CLASSES)


def test_the_numbers_cover_all_families_and_parts() -> None:
    """What is drawn: every quantizer, every width, first, last and skip, and every kind of layer."""
    specs = [draw_spec(seed) for seed in MANY]
    assert {spec.quantizer for spec in specs} == set(known("quantizer"))
    for key in ("weights", "activations"):
        assert {getattr(spec.bits, key) for spec in specs} == {2, 3, 4, 8}
    for key in ("first", "last", "skip"):
        assert any(getattr(spec.bits, key) for spec in specs)
    kinds = {type(m).__name__ for s in range(60) for m in random_network(s).modules()}
    parts = {
        "Residual",
        "Split",
        "Concat",
        "Gate",
        "Shared",
        "Unused",
        "Where",
        "Channelwise",
        "Keywords",
    }
    layers = {"Conv2d", "BatchNorm2d", "GroupNorm", "LayerNorm", "Linear", "PReLU", "LeakyReLU"}
    assert parts | layers <= kinds


def test_attention_is_drawn_for_the_vit_families() -> None:
    """Each of their networks has one block of a transformer."""
    spec = next(s for s in map(draw_spec, MANY) if s.quantizer == "vit_lsq")
    network = random_network(**spec.teacher.kwargs)
    assert any(type(m).__name__ == "Attention" for m in network.modules())
    assert isinstance(network, nn.Module)


@pytest.fixture(scope="module")
def journeys() -> list[Journey]:
    return []


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_many_random_networks(seed: int, tmp_path: Path, journeys: list[Journey]) -> None:
    """Hundreds take the whole chain or are refused by name."""
    journeys.append(take(seed, tmp_path))


@pytest.mark.slow
def test_most_are_whole(journeys: list[Journey], capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is the exception; the counts are printed."""
    with capsys.disabled():
        print("", *summary(journeys), sep="\n")
    assert sum(j.refusal is None for j in journeys) >= 0.7 * len(journeys)
