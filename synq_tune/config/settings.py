"""What every part of a study's settings has in common."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from synq_tune import names

FORMAT = 1
MOST_NUMBER = 1e38
"""Largest number of a setting: beyond it float32, in which all is computed, overflows."""

MOST_COUNT = 1_000_000_000


def ordered(pair: tuple[float, float]) -> tuple[float, float]:
    """The pair, whose first is not above its second; ValueError where it is."""
    if pair[0] > pair[1]:
        raise ValueError(f"`low <= high` must hold, but got {list(pair)}.")
    return pair


def _positive(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] <= 0:
        raise ValueError(f"`low > 0` must hold for an area, but got {list(pair)}.")
    return pair


def _plain(text: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError(f"`the text has no control characters` must hold, but got {text!r}.")
    return text


def expand_home(path: str) -> str:
    """`~/x` → the file in the user's home; everything else stays as it is."""
    return os.path.expanduser(path)


Count = Annotated[int, Field(ge=1, le=MOST_COUNT)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What NumPy, and with it the sampler, takes."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Range01 = Annotated[tuple[Fraction, Fraction], AfterValidator(ordered)]
AreaRange = Annotated[Range01, AfterValidator(_positive)]
"""Share of an image's area; none of it would be an empty crop."""
Text = Annotated[str, Field(min_length=1), AfterValidator(_plain)]
PathText = Annotated[Text, AfterValidator(expand_home)]


@dataclass(frozen=True)
class NameOf:
    """Marks a setting that names a member of a family, or the user's own code."""

    family: str


@dataclass(frozen=True)
class AddedLater:
    """Marks a setting whose default is what was done before it existed: it changes no address."""


def _name_of(family: str) -> Any:
    return Annotated[str, NameOf(family), AfterValidator(partial(names.check, family))]


def _reconstruction_or_none(name: str | None) -> str | None:
    return None if name is None else names.check("reconstruction", name)


SynthesisMethodName = _name_of("synthesis method")
CamTechnique = _name_of("CAM technique")
QuantizerName = _name_of("quantizer")
SourceName = _name_of("source")
ReconstructionMethod = Annotated[
    str | None,
    NameOf("reconstruction"),
    AfterValidator(_reconstruction_or_none),
]
ModelName = Annotated[str, NameOf("model")]
"""Checked where libraries' prefixes are known."""


Part = TypeVar("Part", bound="Settings")


class Settings(BaseModel):
    """Frozen; unknown keys, NaN, infinity and values of a type that only looks like it are
    errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def part(self, shape: type[Part]) -> Part:
        """These values as settings of `shape`, such as a mixin of this class.

        A cache is filed under the dump of such a part, and code that makes what it holds is given
        the part alone: it cannot read a setting that is not in the cache's key.

        Args:
            shape: fields that this class lacks keep their defaults.
        """
        shared = shape.model_fields.keys() & type(self).model_fields.keys()
        return shape.model_validate({name: getattr(self, name) for name in shared})

    def address(self) -> dict[str, Any]:
        """Plain values for a content address; a setting added later counts where it is not the
        default."""
        unchanged = {
            key
            for key, field in type(self).model_fields.items()
            if any(isinstance(m, AddedLater) for m in field.metadata)
            and getattr(self, key) == field.default
        }
        return self.model_dump(mode="json", exclude=unchanged)

    @classmethod
    def name_fields(cls) -> list[str]:
        """The fields whose value names something that can be the user's own code."""
        fields = cls.model_fields.items()
        return [key for key, f in fields if any(isinstance(m, NameOf) for m in f.metadata)]

    @field_validator("*", mode="before")
    @classmethod
    def _no_lookalike(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` as the number 1, text as a number, and numbers that float32 cannot hold."""
        check_scalars(value, _kinds_of(cls, str(info.field_name)))
        return value


@cache
def _kinds_of(settings: type[Settings], field: str) -> frozenset[Any]:
    """A study validates its settings once for each value that its search may try."""
    return scalar_kinds(settings.model_fields[field].annotation)


def scalar_kinds(annotation: Any) -> frozenset[Any]:
    """Types of the values a field may hold, alone or inside tuples and dictionaries."""
    if get_origin(annotation) is Literal:
        return frozenset(map(type, get_args(annotation)))
    if get_origin(annotation) is dict:
        return scalar_kinds(get_args(annotation)[1])
    inner = [scalar_kinds(argument) for argument in get_args(annotation)]
    known = annotation is Any or isinstance(annotation, type)
    return frozenset().union(*inner) if inner else frozenset([annotation] if known else [])


def check_scalars(value: Any, kinds: frozenset[Any]) -> None:
    """Raise ValueError where `value`, or one inside it, is of none of `kinds`."""
    if Any in kinds:
        return
    if isinstance(value, (list, tuple)):
        for item in value:
            check_scalars(item, kinds)
    elif isinstance(value, dict) and not any(hasattr(k, "model_fields") for k in kinds):
        for item in value.values():
            check_scalars(item, kinds)
    elif isinstance(value, (bool, str, int, float)):
        _check_scalar(value, kinds)


def _check_scalar(value: bool | str | int | float, kinds: frozenset[Any]) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    numbers = kinds & {int, float}
    if isinstance(value, bool) and bool not in kinds and numbers:
        raise ValueError(f"`the value is a number` must hold, but got {_yaml(value)}.")
    if not isinstance(value, bool) and bool in kinds and not numbers and str not in kinds:
        raise ValueError(f"`the value is true or false` must hold, but got {value!r}.")
    if isinstance(value, str) and str not in kinds and numbers:
        raise ValueError(f"`the value is a number` must hold, but got the text {value!r}.")
    if is_number and numbers and abs(value) > MOST_NUMBER and value == value:
        raise ValueError(f"`|value| <= {MOST_NUMBER:g}` must hold, but got {value!r:.60}.")


def _yaml(value: bool) -> str:
    return "true" if value else "false"
