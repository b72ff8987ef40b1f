"""The stage between calibration and fine-tuning that fits a student to its teacher block by
block."""

from __future__ import annotations

from pydantic import Field, model_validator

from synq_tune.config.settings import MOST_COUNT, Count, ReconstructionMethod, Settings


class Reconstruct(Settings):
    """Reconstruction of a calibrated student; off unless a method and iterations are given."""

    method: ReconstructionMethod = None
    """Name of a reconstruction, such as one in a file of your own; `null` = off."""
    iterations: int = Field(0, ge=0, le=MOST_COUNT)
    """Updates of each part that is reconstructed; 0 = off."""
    batch_size: Count = 32
    """Images of an update."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate."""

    @property
    def is_on(self) -> bool:
        """Whether the stage runs."""
        return self.method is not None and self.iterations > 0

    @model_validator(mode="after")
    def _iterations_have_a_method(self) -> Reconstruct:
        if self.iterations > 0 and self.method is None:
            raise ValueError(
                "`method is set` must hold with iterations, but got method=None. "
                "Set reconstruct.method, such as my.py:reconstruct."
            )
        return self
