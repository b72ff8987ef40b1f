"""Work in progress on disk: one file per finished batch, so that a killed run loses one batch."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from synq_tune.store import atomic_path, sha256_file, write_json

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """One finished batch."""

    tensors: dict[str, Tensor]
    """On the CPU."""
    loss: float
    """Of the last iteration."""


def finished(folder: Path, name: str) -> Shard | None:
    """The shard of that name if it is there and has its sum."""
    file, note = folder / f"{name}.safetensors", folder / f"{name}.json"
    if not (file.is_file() and note.is_file()):
        return None
    about = _read_note(note)
    if about.get("sha256") != sha256_file(file):
        _LOG.warning("%s does not have its SHA-256 sum and is made again", file)
        return None
    return Shard(load_file(file), float(about["loss"]))


def _read_note(note: Path) -> dict[str, Any]:
    """What stands beside a shard; {} where the note itself is damaged."""
    try:
        about = json.loads(note.read_bytes())
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def load_or_make(folder: Path, name: str, make: Callable[[], Shard]) -> Shard:
    """The finished shard, or a new one, written before it is returned."""
    shard = finished(folder, name)
    return shard if shard is not None else _save(folder, name, make())


def _save(folder: Path, name: str, shard: Shard) -> Shard:
    file = folder / f"{name}.safetensors"
    with atomic_path(file) as temporary:
        save_file({k: v.contiguous() for k, v in shard.tensors.items()}, temporary)
    write_json(folder / f"{name}.json", {"sha256": sha256_file(file), "loss": shard.loss})
    return shard
