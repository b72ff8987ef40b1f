"""Bit widths."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from synq_tune.config.settings import Settings, Text

BitWidth = Annotated[int, Field(ge=2, le=8)]


class Bits(Settings):
    """Bit widths of weights and activations, 2 to 8."""

    weights: BitWidth
    """Of every layer's weights."""
    activations: BitWidth
    """Of every tensor with a grid."""
    first: BitWidth | None = None
    """Weights of the first quantized layer and the first tensor with a grid (with `deploy` the
    network's input, else the first activation); `null` = as the others."""
    last: BitWidth | None = None
    """Weights of the last quantized layer and the last tensor with a grid."""
    skip: BitWidth | None = None
    """Width of what residual sums read; layers that read it too round it to theirs. `null` = one
    grid for both, as in the paper."""
    overrides: dict[Text, BitWidth] = {}
    """Glob over layer names → bits of its weights (a layer) or of its values (an activation)."""
