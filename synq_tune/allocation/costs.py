"""What an assignment of bits costs: bytes, average bits, and bit operations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from synq_tune.allocation.network import FLOAT, Assignment, Call, Key, Kind, Network
from synq_tune.errors import InputError
from synq_tune.export.packing import packed_size


@dataclass(frozen=True)
class Budget:
    """The most that an assignment may cost; None is no limit."""

    max_size: float | None = None
    """Bytes of all weights' codes, packed; scales, biases and BatchNorms come on top."""
    max_bits: float | None = None
    """Average over the weights' elements, and apart over the values', of what is free."""
    max_bops: float | None = None
    """Σ multiplications · weight bits · value bits of one image; float counts 32."""

    @property
    def chooses_values(self) -> bool:
        """Whether it says anything of values; else they keep the space's widths."""
        return self.max_bits is not None or self.max_bops is not None


def weight_bytes(network: Network, bits: Assignment) -> int:
    """Bytes of the packed codes of every layer."""
    return sum(packed_size(network.counts[key], bits[key]) for key in network.of("weights"))


def average_bits(network: Network, bits: Assignment, kind: Kind) -> float:
    """Bits per element of what is free of a kind; 0 where nothing is."""
    keys = network.of(kind, free=True)
    total = sum(network.counts[key] for key in keys)
    return sum(network.counts[key] * bits[key] for key in keys) / max(total, 1)


def bit_operations(calls: Iterable[Call], bits: Assignment) -> int:
    """Σ multiplications · bits · bits of one image, as HAWQ-V3 counts."""
    return sum(
        call.macs * _width(call.sides[0], bits) * _width(call.sides[1], bits) for call in calls
    )


def _width(side: Key | None, bits: Assignment) -> int:
    return FLOAT if side is None else bits[side]


def keeps(network: Network, bits: Assignment, budget: Budget) -> bool:
    """Whether an assignment is within a budget."""
    return all(cost <= most for cost, most, _ in _costs(network, bits, budget))


def check_feasible(network: Network, least: Assignment, budget: Budget) -> None:
    """Raise InputError unless the narrowest assignment keeps the budget; says what would."""
    for cost, most, name in _costs(network, least, budget):
        if cost > most:
            raise InputError(
                f"--{name}: `the budget is at least {cost:,.10g}` (every free width at its least) must "
                f"hold, but got {most:,.10g}. Allow more."
            )


def _costs(
    network: Network, bits: Assignment, budget: Budget
) -> Iterable[tuple[float, float, str]]:
    """(cost, most, option) of each limit."""
    if budget.max_size is not None:
        yield weight_bytes(network, bits), budget.max_size, "max-size"
    if budget.max_bits is not None:
        for kind in ("weights", "activations"):
            yield average_bits(network, bits, kind), budget.max_bits, "max-bits"
    if budget.max_bops is not None:
        yield bit_operations(network.calls, bits), budget.max_bops, "max-bops"
