"""Bit widths."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from synq_tune.config.settings import Settings, Text

BitWidth = Annotated[int, Field(ge=2, le=8)]
Widths = Annotated[dict[Literal["weights", "activations"], BitWidth], Field(min_length=1)]
"""One width for a layer's weights, another for the values of the same name."""


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
    overrides: dict[Text, BitWidth | Widths] = {}
    """Glob over `inspect.py`'s names → bits; the last one counts."""

    @property
    def is_mixed(self) -> bool:
        """Whether layers have widths of their own, beside the ends' and the skips'."""
        return bool(self.overrides)
