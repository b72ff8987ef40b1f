"""Bit widths."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from synq_tune.config.settings import Settings

BitWidth = Annotated[int, Field(ge=2, le=8)]


class Bits(Settings):
    """Bit widths of weights and activations, 2 to 8."""

    weights: BitWidth
    activations: BitWidth
    first: BitWidth | None = None
    """Weights of the first quantized layer and the first tensor with a grid (with `deploy` the
    network's input, else the first activation); `null` = as the others."""
    last: BitWidth | None = None
    """Weights of the last quantized layer and the last tensor with a grid."""
    overrides: dict[str, BitWidth] = {}
    """Glob over layer names → bits of its weights (a layer) or of its values (an activation)."""
