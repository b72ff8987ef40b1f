"""An assignment as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from synq_tune.allocation.check import Measured, rank_correlation
from synq_tune.allocation.costs import average_bits, bit_operations, weight_bytes
from synq_tune.allocation.network import Assignment, Call, Key, Network
from synq_tune.allocation.solver import Losses, predicted
from synq_tune.export.packing import packed_size
from synq_tune.text_table import aligned


def layer_lines(network: Network, losses: Losses, bits: Assignment) -> list[str]:
    """One line per product of an image's computation, in call order."""
    heads = ("layer", "weights", "reads", "divergence", "bytes", "operations")
    total = max(bit_operations(network.calls, bits), 1)
    rows = [
        (
            call.layer,
            _bits(call.sides[0], bits),
            _bits(call.sides[1], bits),
            _loss(call.sides[0], losses, bits),
            _bytes(call, network, bits),
            f"{100 * bit_operations([call], bits) / total:.1f} %",
        )
        for call in network.calls
    ]
    return aligned([heads, *rows], right=range(1, 6))


def value_lines(network: Network, losses: Losses, bits: Assignment) -> list[str]:
    """One line per tensor with a grid, in call order."""
    heads = ("values", "bits", "divergence", "elements")
    rows = [
        (key[1], str(bits[key]), _loss(key, losses, bits), f"{network.counts[key]:,}")
        for key in network.of("activations")
    ]
    return aligned([heads, *rows], right=range(1, 4))


def total_lines(
    network: Network,
    losses: Losses,
    assignments: Mapping[str, Assignment],
    measured: Mapping[str, Measured],
) -> list[str]:
    """One line per assignment: its costs, what is predicted of it, and what was measured."""
    metrics = sorted({name for row in measured.values() for name in row.metrics})
    heads = ("", "bytes", "bits a weight", "bits a value", "bit operations", "predicted", *metrics)
    rows = [
        (
            name,
            f"{weight_bytes(network, bits):,}",
            f"{average_bits(network, bits, 'weights'):.2f}",
            f"{average_bits(network, bits, 'activations'):.2f}",
            f"{bit_operations(network.calls, bits) / 1e6:,.1f} M",
            _predicted(losses, bits),
            *(f"{measured[name].metrics[metric]:.4g}" for metric in metrics),
        )
        for name, bits in assignments.items()
    ]
    return aligned([heads, *rows], right=range(1, len(heads)))


def correlation_lines(rows: Sequence[Measured]) -> list[str]:
    """How what is predicted ranks measured assignments, by each metric."""
    metrics = sorted(rows[0].metrics)
    each = ", ".join(f"{rank_correlation(rows, metric):+.2f} with {metric}" for metric in metrics)
    return [
        f"{len(rows)} random assignments within the budget, calibrated alone: Spearman's ρ of the "
        f"predicted divergence is {each}"
    ]


def _predicted(losses: Losses, bits: Assignment) -> str:
    known = all(bits[key] in each for key, each in losses.items())
    return f"{predicted(losses, bits):.4f}" if known else "not measured"


def _bits(key: Key | None, bits: Assignment) -> str:
    return "float" if key is None else str(bits[key])


def _loss(key: Key | None, losses: Losses, bits: Assignment) -> str:
    return f"{losses[key][bits[key]]:.4f}" if key in losses else ""


def _bytes(call: Call, network: Network, bits: Assignment) -> str:
    key = call.sides[0]
    if key is None or key[0] != "weights":
        return ""
    return f"{packed_size(network.counts[key], bits[key]):,}"
