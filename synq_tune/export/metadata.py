"""What a model file says about itself, so that it stands alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synq_tune import __version__, own_code
from synq_tune.config import Bits
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.process.invocation import as_called
from synq_tune.quantization.base import prepared_as
from synq_tune.store import canonical_json

METADATA_KEYS = (
    "model", "kwargs", "input_size", "channels", "mean", "std", "crop_pct", "interpolation",
    "class_names", "num_classes", "bits", "quantizer", "teacher_fingerprint", "containers",
    "synq_tune_version",
)  # fmt: skip


def describe(teacher: LoadedTeacher, bits: Bits, quantizer: str) -> dict[str, Any]:
    """Metadata of the teacher's student; each exporter adds its own `containers`."""
    about = teacher.preprocessing
    own = {"prepared_as": prepared_as(quantizer)} if own_code.is_own_code(quantizer) else {}
    return {
        "model": own_code.label(teacher.config.model),
        "kwargs": teacher.config.kwargs,
        "input_size": [about.height, about.width],
        "channels": about.channels,
        "mean": list(about.mean),
        "std": list(about.std),
        "crop_pct": about.crop_pct,
        "interpolation": about.interpolation,
        "class_names": list(teacher.class_names) if teacher.class_names else None,
        "num_classes": teacher.num_classes,
        "bits": bits.model_dump(mode="json"),
        "quantizer": own_code.label(quantizer),
        "teacher_fingerprint": teacher.fingerprint,
        "synq_tune_version": __version__,
        **own,
    }


def to_texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Each value as JSON, since both formats store texts; keys sorted."""
    return {key: canonical_json(value) for key, value in sorted(metadata.items())}


def from_texts(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Inverse of `to_texts`.

    Raises:
        InputError: a key is missing or its value is no JSON; the file is not ours.
    """
    missing = [key for key in METADATA_KEYS if key not in texts]
    if missing:
        raise InputError(
            f"{path}: `the file was exported by synq-tune` must hold, but got no metadata "
            f"{missing[0]!r}. {as_called('Export it with scripts/export.py.')}"
        )
    try:
        return {key: json.loads(value) for key, value in texts.items()}
    except ValueError as error:
        raise InputError(f"{path}: `metadata is JSON` must hold, but got: {error}.") from error


def preprocessing_of(metadata: Mapping[str, Any], path: Path) -> Preprocessing:
    """The input contract the metadata state."""
    try:
        height, width = (int(size) for size in metadata["input_size"])
        mean, std = (tuple(float(v) for v in metadata[key]) for key in ("mean", "std"))
        return Preprocessing(
            height,
            width,
            int(metadata["channels"]),
            mean,
            std,
            float(metadata["crop_pct"]),
            str(metadata["interpolation"]),
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: `metadata describe the input` must hold, but got: {error}."
        ) from error
