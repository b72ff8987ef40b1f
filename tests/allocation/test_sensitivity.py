"""Each layer is measured alone, on a network that is otherwise the teacher."""

from __future__ import annotations

import pytest
import torch

from synq_tune.allocation.check import Measured, measure, random_assignments, rank_correlation
from synq_tune.allocation.costs import Budget, keeps
from synq_tune.allocation.network import bits_of, network_of, uniform_bits
from synq_tune.allocation.sensitivity import (
    _OneByOne,
    calibrated,
    first_probes,
    sensitivities,
)
from synq_tune.allocation.solver import predicted, solve
from synq_tune.config.load import load_space
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import activation_quantizers, weight_layers
from synq_tune.trial.assets import Assets
from tests.helpers import digits_trial

# Clipping and corrected norms change every layer of a calibrated student.
SETS = ["finetune.batch_size=16", "finetune.num_views=1", "finetune.calibration_batches=1",
        "finetune.correct_norms=true"]  # fmt: skip


@pytest.fixture(scope="module")
def assets(teacher: LoadedTeacher, tmp_path_factory: pytest.TempPathFactory) -> Assets:
    spec = load_space("digits_w3a3", SETS)
    assert spec.finetune.clip_weights
    return digits_trial(spec, teacher, tmp_path_factory.mktemp("store")).assets


def test_one_rounded_key_leaves_the_rest_the_teacher(assets: Assets) -> None:
    """Inside a block one grid works; the others' weights, values and norms are the teacher's."""
    bits = uniform_bits(assets.spec.bits, 2)
    alone = _OneByOne(assets.teacher, "minmax", calibrated(assets, bits), bits)
    images = assets.probes.images[:8].float()
    expected = assets.teacher(images)
    with alone.rounded(("activations", "relu")) as student:
        grid = activation_quantizers(student)["quantize_relu"]
        assert not torch.equal(grid(images), images)
        assert not torch.allclose(student(images), expected, atol=1e-3)
        grid.forward = lambda x: x
        torch.testing.assert_close(student(images), expected, rtol=1e-4, atol=1e-4)
        del grid.forward
    with alone.rounded(("weights", "layer1.0.conv1")) as student:
        layers = weight_layers(student)
        own, other = layers["layer1.0.conv1"], layers["layer1.0.conv2"]
        assert len(own.quantized_weight().unique()) < own.weight.numel()
        plain = assets.teacher.graph.get_submodule("layer1.0.conv2").weight
        assert torch.equal(other.quantized_weight(), plain)
        assert not torch.allclose(student(images), expected, atol=1e-3)


@pytest.mark.long
def test_divergence_falls_with_the_width(assets: Assets) -> None:
    """Two bits cost more than eight, whose cost is next to nothing; the same call gives the same."""
    keys = [("weights", "layer1.0.conv1"), ("weights", "linear"), ("activations", "relu")]
    probes = first_probes(assets, 256)
    found = sensitivities(assets, keys, probes)
    for each in found.values():
        assert each[2] > each[4] > each[8] >= 0
        assert each[8] < 0.05 * each[2]
    assert sensitivities(assets, keys[:1], probes)[keys[0]] == found[keys[0]]


def test_random_assignments_keep_the_budget_and_differ(teacher: LoadedTeacher) -> None:
    """They reach for all of it, are the same for one seed and others for another."""
    network = network_of(teacher, load_space("digits_w3a3").bits, "minmax")
    budget = Budget(max_bits=3.0)
    drawn = list(random_assignments(network, network.free, budget, 5, seed=0))
    assert all(keeps(network, bits, budget) for bits in drawn)
    assert len({tuple(bits.values()) for bits in drawn}) == 5
    assert list(random_assignments(network, network.free, budget, 5, seed=0)) == drawn
    assert list(random_assignments(network, network.free, budget, 5, seed=1)) != drawn


@pytest.mark.slow
def test_the_chosen_assignment_beats_random_ones(assets: Assets) -> None:
    """On the teacher's own network, calibrated alone: its measured divergence is below their median."""
    network = network_of(assets.teacher, assets.spec.bits, "minmax")
    losses = sensitivities(assets, network.free, first_probes(assets, 256))
    budget = Budget(max_bits=3.0)
    chosen = solve(network, losses, budget)
    drawn = list(random_assignments(network, network.free, budget, 9, seed=0))
    assert all(predicted(losses, chosen) <= predicted(losses, bits) for bits in drawn)
    first, *others = measure(assets, network, losses, [chosen, *drawn])
    assert first.predicted == predicted(losses, chosen)
    assert first.metrics["holdout_kl"] < sorted(r.metrics["holdout_kl"] for r in others)[4]
    assert -1 <= rank_correlation(others, "holdout_kl") <= 1


def test_what_is_measured_is_the_assignment(assets: Assets) -> None:
    """Its metrics are those of a student of these bits, calibrated and not trained."""
    network = network_of(assets.teacher, assets.spec.bits, "minmax")
    losses = {key: {3: 0.25, 8: 0.0} for key in network.free[:2]}
    bits = {**network.uniform, network.free[0]: 8}
    (row,) = measure(assets, network, losses, [bits])
    assert row.predicted == 0.25
    student = calibrated(assets, bits_of(assets.spec.bits, network, bits))
    assert row.metrics == assets.evaluate(student, is_last=False)


def test_the_rank_correlation_is_spearmans() -> None:
    """1 where both rise together however unevenly, -1 where one falls."""
    rows = [Measured(float(n), {"up": 2.0**n, "down": -float(n)}) for n in range(4)]
    assert rank_correlation(rows, "up") == pytest.approx(1.0)
    assert rank_correlation(rows, "down") == pytest.approx(-1.0)
    swapped = [*rows[:2], rows[3], rows[2]]
    mixed = [Measured(float(n), row.metrics) for n, row in enumerate(swapped)]
    assert rank_correlation(mixed, "up") == pytest.approx(0.8)
