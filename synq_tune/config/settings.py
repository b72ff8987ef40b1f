"""What every part of a study's settings has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FORMAT = 1

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Range01 = tuple[Fraction, Fraction]


class Settings(BaseModel):
    """Frozen; unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
