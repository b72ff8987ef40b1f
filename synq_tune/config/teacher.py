"""The pre-trained network: which, whose weights, what input."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from synq_tune import own_code
from synq_tune.config.settings import ModelName, PathText, Settings, Text
from synq_tune.errors import lookup
from synq_tune.names import known
from synq_tune.redact import redact_uri

MOST_PIXELS = 8192
MOST_STATISTIC = 3.0
"""Means of pixels in [0, 1] lie there too; some networks shift or scale them a little further."""
LEAST_STD = 1e-4
"""1/255 is 0.0039: what networks divide by that want pixels of the 0-255 scale."""


def _file_to_weights(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


_PINNED = r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*$"
MODEL_PREFIXES = ("timm", "torchvision", "pytorchcv", "python")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


class Weights(Settings):
    """Where the teacher's checkpoint comes from; all `null` means the library's own download."""

    file: PathText | None = None
    """safetensors, or what torch.save writes; of the latter only tensors are read. With `package`,
    its path inside the wheel."""
    package: str | None = Field(None, pattern=_PINNED)
    """`NAME==VERSION` of a wheel on your package index that holds the file."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$")
    """Hex digest of the file; a package needs it."""
    url: Text | None = None
    """Of the checkpoint, or of a zip file around it; https only."""
    sha1: str | None = Field(None, pattern=r"^[0-9a-fA-F]{8,40}$")
    """Hex digest (or its first 8 digits or more) of the file."""
    key: Text | None = None
    """Which state dict of a file with several, such as `state_dict_ema`. `null` = the one that
    fits, an average over training first."""
    match: Literal["names", "order"] | None = None
    """`order`: where no names fit, tensors go by place, if all shapes and ends of names agree.
    `null` = `order` for a package, else `names`."""

    @property
    def is_given(self) -> bool:
        """Whether a file, a package or a url is named."""
        return any((self.file, self.package, self.url))

    @property
    def by_order(self) -> bool:
        """Whether tensors may be matched by their order."""
        return self.match == "order" or (self.match is None and self.package is not None)

    @model_validator(mode="after")
    def _package_is_whole(self) -> Weights:
        if self.package is None:
            return self
        missing = [key for key in ("file", "sha256") if getattr(self, key) is None]
        if missing or self.url is not None:
            got = f"no {missing[0]}" if missing else "url too"
            raise ValueError(
                "`teacher.weights has package, file and sha256, and no url` must hold, but got "
                f"{got}. Give the file's path inside the wheel and its SHA-256 sum."
            )
        parts = PurePosixPath(str(self.file)).parts
        if PurePosixPath(str(self.file)).is_absolute() or ".." in parts:
            raise ValueError(
                "`teacher.weights.file is a path inside the package` must hold, but got "
                f"file={self.file!r}. Write it as the wheel lists it, such as NAME/weights.pth."
            )
        return self

    @field_validator("url")
    @classmethod
    def _no_secret(cls, url: str | None) -> str | None:
        """It is written into the ledger, the exported settings and MLflow."""
        if url is not None and redact_uri(url) != url:
            raise ValueError(
                "`teacher.weights.url holds no password or token` must hold, but it does. Fetch the file "
                "yourself and pass --weights FILE"
            )
        return url


class Teacher(Settings):
    """The pre-trained network and the input it expects; `null` is taken from its library."""

    model: ModelName
    """`timm:NAME`, `torchvision:NAME`, `pytorchcv:NAME` and `python:MODULE:FUNCTION` too."""
    weights: Annotated[Weights, BeforeValidator(_file_to_weights)] = Weights()
    """Where the checkpoint is; a text is its `file`."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments of the model's constructor."""
    input_size: int | tuple[int, int] | None = None
    """Pixels, or [height, width]."""
    channels: int = Field(3, ge=1, le=4096)
    """Of the input: 3 = RGB."""
    num_classes: int | None = Field(None, ge=2, le=10_000_000)
    """Checked against the network."""
    mean: tuple[float, ...] | None = None
    """Of each channel, of pixels in [0, 1]."""
    std: tuple[float, ...] | None = None
    """Of each channel, of pixels in [0, 1]."""
    crop_pct: float | None = Field(None, gt=0, le=1)
    """Share of the resized side that the central crop keeps."""
    interpolation: str | None = None
    """`nearest`, `bilinear`, `bicubic` or `lanczos`, of resizing."""
    class_names: tuple[Text, ...] | None = Field(None, min_length=2)
    """In the order of the labels."""

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        if own_code.is_own_code(model):
            own_code.parse(model)
            return model
        prefix, colon, name = model.partition(":")
        if colon and name and prefix in MODEL_PREFIXES:
            return model
        return lookup("model", model, (*known("model"), *(f"{p}:NAME" for p in MODEL_PREFIXES)))

    @field_validator("interpolation")
    @classmethod
    def _known_interpolation(cls, name: str | None) -> str | None:
        return name if name is None else lookup("interpolation", name, INTERPOLATIONS)

    @field_validator("input_size")
    @classmethod
    def _size_in_range(cls, size: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
        sides = size if isinstance(size, tuple) else () if size is None else (size,)
        if not all(1 <= side <= MOST_PIXELS for side in sides):
            shown = list(sides) if len(sides) > 1 else size
            raise ValueError(f"`1 <= pixels <= {MOST_PIXELS}` must hold, but got {shown}.")
        return size

    @field_validator("mean", "std")
    @classmethod
    def _of_unit_scale(
        cls, values: tuple[float, ...] | None, info: ValidationInfo
    ) -> tuple[float, ...] | None:
        _check_statistics(str(info.field_name), values or ())
        return values

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


def _check_statistics(key: str, values: tuple[float, ...]) -> None:
    """Pixels lie in [0, 1] before they are normalised."""
    if any(abs(value) > MOST_STATISTIC for value in values):
        smaller = [round(value / 255, 4) for value in values]
        raise ValueError(
            f"`|{key}| <= {MOST_STATISTIC:g}` must hold, as pixels are scaled to [0, 1] first, but got "
            f"{key}={list(values)}. If it is of the 0-255 scale, divide by 255: {smaller}."
        )
    if key == "std" and any(value < LEAST_STD for value in values):
        raise ValueError(
            f"`std >= {LEAST_STD:g}` must hold, as images are divided by it, but got std={list(values)}."
        )
