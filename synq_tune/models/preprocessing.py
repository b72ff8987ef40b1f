"""The input contract of a teacher: size, channels, normalisation, crop."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synq_tune.config import Teacher
from synq_tune.errors import InputError

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_SMALL = {**_IMAGENET, "crop_pct": 1.0, "interpolation": "bilinear"}
_OWN = {
    "cifar_resnet": {**_SMALL, "input_size": 32},
    "digits_": {**_SMALL, "input_size": 8, "mean": (0.3049,), "std": (0.3759,)},
}


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes an input: RGB (or grey) in [0, 1], NCHW, minus mean, over std."""

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one input."""
        return (self.channels, self.height, self.width)

    def _stat(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=like.device).view(1, -1, 1, 1)

    def normalize(self, pixels: Tensor) -> Tensor:
        """uint8 (N, C, H, W), or float in [0, 1] → normalised float32."""
        scaled = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        return (scaled - self._stat(self.mean, pixels)) / self._stat(self.std, pixels)

    def denormalize(self, images: Tensor) -> Tensor:
        """Normalised (N, C, H, W) → the scale in which real images lie in [0, 1]."""
        return images * self._stat(self.std, images) + self._stat(self.mean, images)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for addresses and file metadata."""
        return asdict(self)


def resolve_preprocessing(config: Teacher, model: nn.Module) -> Preprocessing:
    """The settings given, filled up from the library's own data config.

    Raises:
        InputError: a value is neither given nor known.
    """
    known = _library_defaults(config, model)
    given = {k: getattr(config, k) for k in known if getattr(config, k) is not None}
    merged = {**known, **given}
    size = merged["input_size"]
    height, width = (size, size) if isinstance(size, int) else size
    for key in ("mean", "std"):
        if len(merged[key]) != config.channels:
            raise InputError(
                f"teacher.{key}: `len({key}) == channels` must hold, but got "
                f"{key}={list(merged[key])}, channels={config.channels}. Give teacher.{key}."
            )
    return Preprocessing(
        height,
        width,
        config.channels,
        tuple(merged["mean"]),
        tuple(merged["std"]),
        float(merged["crop_pct"]),
        str(merged["interpolation"]),
    )


def _library_defaults(config: Teacher, model: nn.Module) -> dict[str, Any]:
    for prefix, values in _OWN.items():
        if config.model.startswith(prefix):
            return dict(values)
    generic = {**_IMAGENET, "input_size": 224, "crop_pct": 0.875, "interpolation": "bilinear"}
    if not config.model.startswith("timm:"):
        return generic
    from timm.data import resolve_model_data_config

    data = resolve_model_data_config(model)
    image_size = config.kwargs.get("img_size", data["input_size"][-2:])
    return {
        "input_size": image_size,
        "mean": data["mean"],
        "std": data["std"],
        "crop_pct": data["crop_pct"],
        "interpolation": data["interpolation"],
    }
