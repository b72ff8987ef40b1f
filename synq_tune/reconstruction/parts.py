"""The parts of a student that are fitted one after the other, and the same parts in float."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from synq_tune.config import Reconstruct
from synq_tune.errors import InputError
from synq_tune.graph.blocks import Unit, cut, unit_module
from synq_tune.quantization.base import ActivationQuantizer
from synq_tune.quantization.frozen import replace_module
from synq_tune.quantization.student import (
    activation_quantizers,
    weight_layers,
    weight_quantizers,
)

Blocks = Literal["auto"] | tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """A stretch of the student, and of the teacher."""

    name: str
    student: fx.GraphModule
    """Tensor → tensor, on the student's own modules."""
    teacher: fx.GraphModule
    """The same in float."""
    channels_last: bool
    """Whether values of one place lie along the last axis of what it gives, as Linear has it."""


def units_of(student: fx.GraphModule, blocks: Blocks) -> list[Unit]:
    """How a student, or its teacher, is cut; grids belong to what reads them.

    Raises:
        InputError: a glob of `blocks` matches nothing.
    """
    merged = () if blocks == "auto" else blocks
    return cut(student, merged, lambda module: isinstance(module, ActivationQuantizer))


def parts_of(student: fx.GraphModule, teacher: fx.GraphModule, blocks: Blocks) -> list[Part]:
    """The student's parts in call order, each beside the teacher's."""
    twin = _float_twin(student, teacher)
    return [
        Part(u.name, unit_module(student, u), unit_module(twin, u), _is_last(student, u))
        for u in units_of(student, blocks)
    ]


def _float_twin(student: fx.GraphModule, teacher: fx.GraphModule) -> fx.GraphModule:
    """The student's graph without grids, with the teacher's own weights and statistics."""
    twin = copy.deepcopy(student).requires_grad_(False)
    twin.load_state_dict(teacher.state_dict(), strict=False)
    for name in activation_quantizers(twin):
        replace_module(twin, name, nn.Identity())
    for layer in weight_layers(twin).values():
        layer.weight_quantizer = nn.Identity()
    return twin


def _is_last(student: fx.GraphModule, unit: Unit) -> bool:
    shape = unit.output.meta["shape"]
    last = student.get_submodule(unit.layers[-1]) if unit.layers else None
    return len(shape) != 4 or isinstance(last, nn.Linear)


def check_parts(student: fx.GraphModule, config: Reconstruct) -> None:
    """Raise InputError unless every grid of a weight can have its rounding learned."""
    grids = weight_quantizers(student)
    odd = next((grid for grid in grids if not grid.learns_rounding), None)
    if odd is not None:
        raise InputError(
            f"reconstruct.method {config.method}: `the quantizer learns its rounding` must hold, but "
            f"got {type(odd).__name__}. Use quantizer=genie, or genie_deploy for integer hardware."
        )
    units_of(student, config.blocks)
