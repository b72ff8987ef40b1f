"""The pre-trained network: which, whose weights, what input."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from synq_tune import own_code
from synq_tune.config.names import BUNDLED_MODELS, INTERPOLATIONS, MODEL_PREFIXES
from synq_tune.config.settings import Settings
from synq_tune.errors import lookup
from synq_tune.redact import redact_uri


def _file_to_weights(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


class Weights(Settings):
    """Where the teacher's checkpoint comes from; all `null` means the library's own download."""

    file: str | None = None
    """safetensors, or what torch.save writes; of the latter only tensors are read."""
    url: str | None = None
    sha1: str | None = None
    """Hex digest (or its first 8 digits or more) of the file."""
    key: str | None = Field(None, min_length=1)
    """Which state dict of a file that holds several, such as `state_dict_ema` or `model.student`; `null` =
    the one that fits, an average over training before the raw one."""

    @field_validator("url")
    @classmethod
    def _no_secret(cls, url: str | None) -> str | None:
        """It is written into the ledger, the exported settings and MLflow."""
        if url is not None and redact_uri(url) != url:
            raise ValueError(
                "`teacher.weights.url holds no password or token` must hold. Fetch the file "
                "yourself and pass --weights FILE"
            )
        return url


class Teacher(Settings):
    """The pre-trained network and the input it expects; `null` is taken from its library."""

    model: str
    weights: Annotated[Weights, BeforeValidator(_file_to_weights)] = Weights()
    kwargs: dict[str, Any] = {}
    """Keyword arguments of the model's constructor."""
    input_size: int | tuple[int, int] | None = None
    """Pixels, or [height, width]."""
    channels: int = Field(3, ge=1)
    num_classes: int | None = Field(None, ge=2)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_pct: float | None = Field(None, gt=0, le=1)
    interpolation: str | None = None
    class_names: tuple[str, ...] | None = None

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        if own_code.is_own_code(model):
            own_code.parse(model)
            return model
        prefix, colon, name = model.partition(":")
        if colon and name and prefix in MODEL_PREFIXES:
            return model
        return lookup("model", model, (*BUNDLED_MODELS, *(f"{p}:NAME" for p in MODEL_PREFIXES)))

    @field_validator("interpolation")
    @classmethod
    def _known_interpolation(cls, name: str | None) -> str | None:
        return name if name is None else lookup("interpolation", name, INTERPOLATIONS)

    @model_validator(mode="after")
    def _normalisation_fits_channels(self) -> Teacher:
        for key in ("mean", "std"):
            values = getattr(self, key)
            if values is not None and len(values) != self.channels:
                raise ValueError(
                    f"`len({key}) == channels` must hold, but got {key}={list(values)}, "
                    f"channels={self.channels}."
                )
        return self
