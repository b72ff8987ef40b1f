"""What a searched field may be."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from synq_tune.config.settings import Settings


class Domain(Settings):
    """The values one searched field may take: a choice, or a continuous or integer interval."""

    choice: tuple[Any, ...] | None = None
    """Some values; the order of numbers is used."""
    float_: tuple[float, float] | None = Field(None, alias="float")
    """[low, high] of real numbers."""
    int_: tuple[int, int] | None = Field(None, alias="int")
    """[low, high] of whole numbers."""
    log: bool = False
    """Whether an interval is even in the logarithm."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="after")
    def _one_form(self) -> Domain:
        forms = [f for f in (self.choice, self.float_, self.int_) if f is not None]
        if len(forms) != 1 or not forms[0]:
            raise ValueError(
                f"`one of choice, float and int has values` must hold, but got {_given(forms)}. "
                "Write one, such as {choice: [1e-3, 1e-2]}."
            )
        if self.choice is None and forms[0][0] >= forms[0][1]:
            raise ValueError(
                f"`low < high` must hold, but got {list(forms[0])}. A single "
                "value is set with --set finetune.KEY=VALUE."
            )
        if self.choice is not None and _has_equals(self.choice):
            raise ValueError(
                f"`choices differ` must hold, but got {list(self.choice)}. Name each value once."
            )
        if self.log and (self.choice is not None or forms[0][0] <= 0):
            raise ValueError(
                "`log comes with a positive interval` must hold, but got "
                f"{'choices' if self.choice is not None else list(forms[0])}. Leave log out, or give "
                "an interval above 0."
            )
        return self

    @property
    def values(self) -> tuple[Any, ...]:
        """All choices, numbers in increasing order; the two ends of an interval."""
        if self.choice is None:
            return self.float_ or self.int_ or ()
        return tuple(sorted(self.choice)) if self.is_ordered else self.choice

    @property
    def between(self) -> tuple[Any, ...]:
        """A value inside an interval of floats: a field of whole numbers cannot take it."""
        if self.float_ is None:
            return ()
        low, high = self.float_
        return (low + (high - low) * (math.sqrt(5) - 1) / 2,)

    @property
    def is_ordered(self) -> bool:
        """Whether the choices are numbers, whose order a sampler can use."""
        return self.choice is not None and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) for v in self.choice
        )

    @property
    def size(self) -> float:
        """Number of distinct values; infinite for an interval of floats."""
        if self.choice is not None:
            return len(self.choice)
        return math.inf if self.float_ else self.int_[1] - self.int_[0] + 1

    def contains(self, value: Any) -> bool:
        """Whether a configuration may hold `value`."""
        if self.choice is not None:
            return value in self.choice
        low, high = self.values
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (
            is_number and low <= value <= high and (self.float_ is not None or value == int(value))
        )


def _given(forms: list[Any]) -> str:
    return f"{len(forms)} of them" if len(forms) != 1 else "an empty one"


def _has_equals(choice: tuple[Any, ...]) -> bool:
    """Whether a value comes twice; 1 and 1.0 are one value, true is another."""
    return any(
        a == b and isinstance(a, bool) == isinstance(b, bool)
        for number, a in enumerate(choice)
        for b in choice[:number]
    )
