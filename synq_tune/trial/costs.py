"""What a student takes of a device, read off the student itself."""

from __future__ import annotations

from torch import fx

from synq_tune.export.packing import packed_size
from synq_tune.inspection.student import inspect_student
from synq_tune.quantization.student import weight_layers

FLOAT = 32
"""Bits of what has no grid."""


def costs_of(student: fx.GraphModule) -> dict[str, float]:
    """A student's value of each of `config.metrics.COSTS`; it need not be calibrated.

    `size` is what its weights' codes take, packed, in bytes; `bops` is the sum of multiplications ·
    weight bits · value bits of one image, as HAWQ-V3 counts (Yao et al., 2021).
    """
    layers = weight_layers(student).values()
    size = sum(packed_size(n.weight.numel(), n.weight_quantizer.bits) for n in layers)
    rows = inspect_student(student).layers
    bops = sum(row.macs * (row.bits or FLOAT) * (row.reads or FLOAT) for row in rows)
    return {"size": float(size), "bops": float(bops)}
