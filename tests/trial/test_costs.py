"""What a student takes is what `allocate` and the exported file say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.allocation.costs import bit_operations, weight_bytes
from synq_tune.allocation.network import network_of
from synq_tune.config import Bits
from synq_tune.config.load import load_space
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import quantize_student
from synq_tune.trial.costs import costs_of
from tests.helpers import digits_trial

SETS = [
    "search.bits.weights={choice: [2, 8]}", "finetune.epochs=2", "finetune.batch_size=16",
    "finetune.num_views=1", "finetune.calibration_batches=1", "study.eval_every=1",
    "study.val_data=null",
]  # fmt: skip


@pytest.mark.parametrize("quantizer", ["minmax", "deploy"])
def test_the_same_numbers_as_allocate(digits: LoadedTeacher, quantizer: str) -> None:
    """Bytes and bit operations of mixed widths, value grids and float layers included."""
    bits = Bits(weights=3, activations=4, first=8, overrides={"*.conv2": 2})
    network = network_of(digits, bits, quantizer)
    found = costs_of(quantize_student(digits, bits, quantizer))
    assert found["size"] == weight_bytes(network, network.uniform)
    assert found["bops"] == bit_operations(network.calls, network.uniform)


def test_wider_costs_more(digits: LoadedTeacher) -> None:
    """8 bits take four times the bytes of 2, and with equal values four times the operations."""
    small, large = (
        costs_of(quantize_student(digits, Bits(weights=w, activations=4), "minmax")) for w in (2, 8)
    )
    assert large["size"] == pytest.approx(4 * small["size"], rel=1e-3)
    assert large["bops"] == 4 * small["bops"]


def test_a_trial_says_its_costs_once(digits: LoadedTeacher, tmp_path: Path) -> None:
    """With the last evaluation, of the widths it drew; a study of one width says none."""
    spec = load_space("digits_w3a3", SETS)
    trial = digits_trial(spec, digits, tmp_path)
    trial.bits = spec.of_trial({"bits.weights": 8}).bits
    rows = list(trial.run())
    assert [("size" in row.metrics, row.is_last) for row in rows] == [(False, False), (True, True)]
    expected = costs_of(quantize_student(digits, Bits(weights=8, activations=3), "minmax"))
    assert {name: rows[-1].metrics[name] for name in expected} == expected
    plain = digits_trial(load_space("digits_w3a3", SETS[1:]), digits, tmp_path)
    assert all("size" not in row.metrics for row in plain.run())
