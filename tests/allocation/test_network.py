"""What gets bits is read off the network; what is written into a space is read back as it was."""

from __future__ import annotations

import fnmatch

import pytest

from synq_tune.allocation.costs import average_bits, bit_operations, weight_bytes
from synq_tune.allocation.network import WIDTHS, Key, Network, bits_of, network_of
from synq_tune.config import Bits
from synq_tune.errors import InputError
from synq_tune.export.packing import packed_size
from synq_tune.inspection.student import inspect_student
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import quantize_student
from tests.export import networks


def _chosen(network: Network) -> dict[Key, int]:
    """Each width in turn."""
    widths = {key: WIDTHS[number % 4] for number, key in enumerate(network.free)}
    return {**network.uniform, **widths}


def test_what_the_space_fixes_is_not_chosen(digits: LoadedTeacher) -> None:
    """Ends, skips and overridden layers keep their widths; all else is free."""
    bits = Bits(weights=3, activations=3, first=8, skip=6, overrides={"linear": 5})
    network = network_of(digits, bits, "minmax")
    fixed = {key: network.uniform[key] for key in network.counts if key not in network.free}
    assert fixed[("weights", "conv1")] == 8 and fixed[("weights", "linear")] == 5
    assert set(fixed.values()) == {5, 6, 8}
    assert {network.uniform[key] for key in network.free} == {3}
    assert network.of("weights", free=True) and network.of("activations", free=True)


def test_nothing_to_choose_is_an_error(digits: LoadedTeacher) -> None:
    """A space that fixes every width is told so."""
    with pytest.raises(InputError, match="left to be chosen"):
        network_of(digits, Bits(weights=3, activations=3, overrides={"*": 4}), "minmax")


@pytest.mark.parametrize(
    ("name", "quantizer", "size"),
    [("digits_resnet26", "minmax", 8), ("residual_net", "deploy", 8), ("plain_net", "deploy", 8),
     ("tiny_deit", "vit_lsq", 8)],
)  # fmt: skip
def test_a_student_has_the_chosen_widths(name: str, quantizer: str, size: int) -> None:
    """Through overrides too where a layer and the values behind it have one name."""
    teacher, bits = networks.teacher(name, (3, size, size)), Bits(weights=3, activations=3)
    network = network_of(teacher, bits, quantizer)
    chosen = _chosen(network)
    again = network_of(teacher, Bits(weights=3, activations=3), quantizer)
    assert again == network
    written = bits_of(bits, network, chosen)
    student = quantize_student(teacher, written, quantizer)
    found = {row.name: row.bits for row in inspect_student(student).layers}
    assert all(found[n] == w for (kind, n), w in chosen.items() if kind == "weights")
    # All is fixed now but what was chosen as wide as the space has it.
    left = {key for key in network.free if chosen[key] == 3}
    assert set(network_of(teacher, written, quantizer).free) == left
    assert network_of(teacher, written, quantizer).uniform == chosen


def test_one_name_of_both_kinds_gets_a_mapping() -> None:
    """`fc1` of a transformer is a layer, and the values behind it have a grid of that name."""
    keys: list[Key] = [("weights", "fc1"), ("activations", "fc1"), ("weights", "a[0]")]
    counts, uniform = dict.fromkeys(keys, 4), dict.fromkeys(keys, 3)
    network = Network(counts, uniform, tuple(keys), ())
    chosen = dict(zip(keys, (2, 8, 4), strict=True))
    bits = bits_of(Bits(weights=3, activations=3, overrides={"b": 2}), network, chosen)
    assert bits.overrides == {"b": 2, "fc1": {"weights": 2, "activations": 8}, "a[[]0]": 4}
    assert fnmatch.filter(["a[0]", "a0"], "a[[]0]") == ["a[0]"]


def test_costs_are_those_of_the_inspection(digits: LoadedTeacher) -> None:
    """Bytes, averages and operations of one width, from what a uniform student says."""
    network = network_of(digits, Bits(weights=3, activations=3), "minmax")
    student = quantize_student(digits, Bits(weights=3, activations=3), "minmax")
    rows = inspect_student(student).layers
    assert [call.macs for call in network.calls] == [row.macs for row in rows]
    operations = sum(row.macs * (row.bits or 32) * (row.reads or 32) for row in rows)
    assert bit_operations(network.calls, network.uniform) == operations
    weights = [digits.graph.get_submodule(n).weight.numel() for _, n in network.of("weights")]
    assert weight_bytes(network, network.uniform) == sum(packed_size(n, 3) for n in weights)
    for kind in ("weights", "activations"):
        assert average_bits(network, network.uniform, kind) == 3.0
    assert network.counts[("activations", "relu")] == 8 * 8 * 8


def test_patterns_match_their_name_alone(digits: LoadedTeacher) -> None:
    """`layer1.0.conv1` leaves `layer1.0.conv2` as it was, and every name stands for itself."""
    network = network_of(digits, Bits(weights=3, activations=3), "minmax")
    chosen = {**network.uniform, ("weights", "layer1.0.conv1"): 8}
    assert bits_of(Bits(weights=3, activations=3), network, chosen).overrides == {
        "layer1.0.conv1": 8
    }
