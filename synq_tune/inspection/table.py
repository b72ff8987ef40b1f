"""An inspection as text."""

from __future__ import annotations

from synq_tune.config import Bits
from synq_tune.graph.blocks import Unit
from synq_tune.inspection.student import Inspection
from synq_tune.notes import counted
from synq_tune.text_table import aligned


def summary_lines(inspection: Inspection, bits: Bits) -> list[str]:
    """A few lines: how much is quantized, what is found, for the head of a study."""
    quantized = [row for row in inspection.layers if row.bits is not None]
    both = inspection.share(bits.weights, bits.activations)
    weights = inspection.weight_share(bits.weights)
    maps = [row for row in inspection.tensors if row.bits is not None]
    return [
        f"quantized {len(quantized)} of {counted(len(inspection.layers), 'layer')}, "
        f"{len(maps)} of {counted(len(inspection.tensors), 'tensor')}; {weights:.1f} % of "
        f"{inspection.macs / 1e6:,.1f} M multiplications have {bits.weights}-bit weights, "
        f"{both:.1f} % also read {bits.activations}-bit values",
        f"batchnorm {counted(inspection.num_batchnorms, 'layer')}",
        f"cam       gradcam and gradcam++ at {inspection.cam_layer or 'nothing'}, cam at "
        f"{inspection.final_map or 'nothing'}",
    ]


def layer_lines(inspection: Inspection) -> list[str]:
    """One line per call of a layer: name, kind, weight, bits, share of the multiplications."""
    total = max(inspection.macs, 1)
    rows = [
        (
            row.name,
            row.kind,
            "×".join(map(str, row.shape)),
            _bits(row.bits, row.why),
            _bits(row.reads),
            f"{100 * row.macs / total:.1f} %",
        )
        for row in inspection.layers
    ]
    return aligned([("layer", "kind", "weight", "bits", "reads", "MACs"), *rows])


def tensor_lines(inspection: Inspection) -> list[str]:
    """One line per tensor: name, what makes it, shape, bits or why it is float."""
    rows = [
        (row.name, row.kind, "×".join(map(str, row.shape)), _bits(row.bits, row.why))
        for row in inspection.tensors
    ]
    return aligned([("tensor", "made by", "shape", "bits"), *rows])


def part_lines(units: list[Unit]) -> list[str]:
    """One line per part that a reconstruction fits on its own: name, its layers."""
    rows = [(unit.name, _layers(unit.layers)) for unit in units]
    return aligned([("part", "layers fitted together"), *rows])


def _layers(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]} ({len(names)})"


def _bits(bits: int | None, why: str = "") -> str:
    if bits is not None:
        return str(bits)
    return f"float, because {why}" if why else "float"
