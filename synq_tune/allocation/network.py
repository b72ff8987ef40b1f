"""What of a network gets bits, and what multiplies what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import fx

from synq_tune.config import Bits
from synq_tune.errors import InputError
from synq_tune.inspection.student import inspect_student
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import (
    ACTIVATION_PREFIX,
    activation_quantizers,
    quantize_student,
    weight_layers,
)

WIDTHS = (2, 3, 4, 8)
"""What a layer may get: those that a byte holds whole, and 3."""
FLOAT = 32
"""Bits of what has no grid."""
_BATCH = 2
"""What shapes were traced for."""

Kind = Literal["weights", "activations"]
Key = tuple[Kind, str]
"""A layer's weights, or the values behind an operation, by the name that `bits.overrides` takes."""
Assignment = Mapping[Key, int]
"""Bits of each of them."""


@dataclass(frozen=True)
class Call:
    """One product of an image's computation."""

    layer: str
    macs: int
    """Multiplications per image."""
    sides: tuple[Key | None, Key | None]
    """What stands for the weight, and what it is multiplied with; None is float."""


@dataclass(frozen=True)
class Network:
    """Everything with a grid, and the products of it, in call order."""

    counts: Mapping[Key, int]
    """Elements: of a layer's weight, or of one image's values."""
    uniform: Assignment
    """The space's own widths."""
    free: tuple[Key, ...]
    """What the ends, the skips and the overrides of the space leave to be chosen."""
    calls: tuple[Call, ...]

    def of(self, kind: Kind, free: bool = False) -> list[Key]:
        """All weights or all values; those to be chosen alone where `free`."""
        return [key for key in (self.free if free else self.counts) if key[0] == kind]


def network_of(teacher: LoadedTeacher, bits: Bits, quantizer: str) -> Network:
    """Read a network off its students.

    What has the same width in a student of 2 bits and in one of 8 was fixed by the space.

    Raises:
        InputError: nothing is left to be chosen.
    """
    low, high, own = (
        quantize_student(teacher, uniform_bits(bits, width), quantizer) for width in (2, 8, None)
    )
    widths = [dict(_widths(student)) for student in (low, high, own)]
    free = tuple(key for key in widths[0] if widths[0][key] != widths[1][key])
    if not free:
        raise InputError(
            "bits: `a width is left to be chosen` must hold, but first, last, skip and overrides fix "
            "all of them. Leave some out."
        )
    return Network(dict(_counts(own)), widths[2], free, tuple(_calls(own)))


def uniform_bits(bits: Bits, width: int | None) -> Bits:
    """The space's bits with one width for all it does not fix; None: its own."""
    each = {} if width is None else {"weights": width, "activations": width}
    return bits.model_copy(update=each)


def bits_of(bits: Bits, network: Network, chosen: Assignment) -> Bits:
    """The space's bits with overrides for what was chosen otherwise than it says."""
    both = {name for _, name in network.counts if len(_kinds(network, name)) > 1}
    overrides: dict[str, int | dict[str, int]] = {}
    for key in network.free:
        if chosen[key] == network.uniform[key]:
            continue
        kind, name = key
        if name in both:
            overrides.setdefault(_pattern(name), {})[kind] = chosen[key]
        else:
            overrides[_pattern(name)] = chosen[key]
    return Bits.model_validate({**bits.model_dump(), "overrides": {**bits.overrides, **overrides}})


def _kinds(network: Network, name: str) -> list[str]:
    return [kind for kind in ("weights", "activations") if (kind, name) in network.counts]


def _pattern(name: str) -> str:
    """A glob that matches this name alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _widths(student: fx.GraphModule) -> Iterator[tuple[Key, int]]:
    for name, layer in weight_layers(student).items():
        yield ("weights", name), layer.weight_quantizer.bits
    for name, grid in activation_quantizers(student).items():
        yield _value_key(name), grid.bits


def _value_key(grid: str) -> Key:
    return "activations", grid.removeprefix(ACTIVATION_PREFIX)


def _counts(student: fx.GraphModule) -> Iterator[tuple[Key, int]]:
    for name, layer in weight_layers(student).items():
        yield ("weights", name), layer.weight.numel()
    grids = activation_quantizers(student)
    for node in student.graph.nodes:
        if str(node.target) in grids:
            # A parameter with a grid, such as positions, has no axis of images.
            images = 1 if node.args[0].op == "get_attr" else _BATCH
            yield _value_key(str(node.target)), math.prod(node.meta["shape"]) // images


def _calls(student: fx.GraphModule) -> Iterator[Call]:
    layers = weight_layers(student)
    for row in inspect_student(student).layers:
        reads = _value_key(row.grid) if row.grid else None
        weight = _value_key(row.weight_grid) if row.weight_grid else None
        if row.name in layers:
            weight = ("weights", row.name)
        yield Call(row.name, row.macs, (weight, reads))
