"""The stage between calibration and fine-tuning that fits a student to its teacher block by
block."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from synq_tune.config.settings import (
    MOST_COUNT,
    Count,
    Fraction,
    ReconstructionMethod,
    Settings,
    Text,
)


def _falling(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] >= pair[1] > 0:
        raise ValueError(f"`start >= end > 0` must hold, but got {list(pair)}.")
    return pair


class Reconstruct(Settings):
    """Reconstruction of a calibrated student; off unless a method and iterations are given."""

    method: ReconstructionMethod = None
    """Name of a reconstruction, such as one in a file of your own; `null` = off."""
    iterations: int = Field(0, ge=0, le=MOST_COUNT)
    """Updates of each part that is reconstructed; 0 = off."""
    batch_size: Count = 32
    """Images of an update."""
    num_images: Count | None = None
    """Images that parts are fitted on, in the views of training; `null` = one epoch of them."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of reconstructions of your own; `genie` has three rates."""
    lr_rounding: float = Field(1e-3, gt=0)
    """Adam's rate of the soft bits; they have about 5 to go from one end to the other."""
    lr_weight_step: float = Field(1e-4, ge=0)
    """Adam's rate of the weights' steps, falling to 0 as a cosine."""
    lr_step: float = Field(4e-5, ge=0)
    """Adam's rate of the values' steps, falling to 0 as a cosine."""
    drop_probability: Fraction = 0.5
    """Share of single values that stay exact in each update (QDrop): the teacher's in what a part
    reads, unrounded ones inside it."""
    rounding_weight: float = Field(1.0, ge=0)
    """Weight of the term that drives soft bits to 0 and 1."""
    warmup: float = Field(0.2, ge=0, lt=1)
    """Share of the updates before that term counts."""
    beta: Annotated[tuple[float, float], AfterValidator(_falling)] = (20.0, 2.0)
    """That term's exponent after the warm-up and at the end; between them it falls evenly."""
    blocks: Literal["auto"] | Annotated[tuple[Text, ...], Field(min_length=1)] = "auto"
    """`auto` = cut where residual sums end. Or globs such as `[layer1, layer2]`: each module is one
    part. `scripts/inspect.py` prints them."""
    free_weights: bool = False
    """Let fine-tuning move weights, from the values that were chosen; else their codes stay."""
    memory_budget: float = Field(4.0, gt=0)
    """GB of what parts read and give, for all images; what is more lies on the disk."""

    @property
    def is_on(self) -> bool:
        """Whether the stage runs."""
        return self.method is not None and self.iterations > 0

    @model_validator(mode="after")
    def _iterations_have_a_method(self) -> Reconstruct:
        if self.iterations > 0 and self.method is None:
            raise ValueError(
                "`method is set` must hold with iterations, but got method=None. "
                "Set reconstruct.method, such as genie."
            )
        return self
