"""The labelled halves as one file that every process of a node maps, instead of a copy in each."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from synq_tune.config import StudySpec
from synq_tune.data.images import LabelledImages
from synq_tune.data.labelled import load_labelled
from synq_tune.data.split import split_halves
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.notes import counted
from synq_tune.store import once

Halves = tuple[LabelledImages, LabelledImages]
"""One to choose on, one to report on."""

_NAMES = ("choose", "report")


def halves_address(halves: Halves) -> str:
    """Identity of decoded images and labels: 32 hex digits of a SHA-256 of their bytes."""
    digest = hashlib.sha256()
    for half in halves:
        for tensor in (half.images, half.labels):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()[:32]


def share_halves(halves: Halves, store: Path) -> str:
    """Write the halves to `store`, unless they are there; returns their address."""
    address = halves_address(halves)
    once(halves_path(address, store), lambda temporary: _save(halves, temporary))
    return address


def shared_halves(address: str, store: Path) -> Halves | None:
    """The halves of this address, mapped from `store`; None if this node's store lacks them.

    A page is in memory once however many processes read it. Contents are what the file's writer
    hashed; a file of another size cannot be read.

    Raises:
        InputError: the file is damaged.
    """
    path = halves_path(address, store)
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        names = _class_names(path)
        halves = [
            LabelledImages(tensors[f"{n}.images"], tensors[f"{n}.labels"], names) for n in _NAMES
        ]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: `the labelled images can be read` must hold, but got: {error}. Delete the "
            "file and it will be made again."
        ) from error
    return halves[0], halves[1]


def halves_path(address: str, store: Path) -> Path:
    """Where the halves of an address lie."""
    return store / "labelled" / f"{address}.safetensors"


def _save(halves: Halves, path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for name, half in zip(_NAMES, halves, strict=True):
        tensors[f"{name}.images"] = half.images.contiguous()
        tensors[f"{name}.labels"] = half.labels.contiguous()
    save_file(tensors, path, {"class_names": json.dumps(halves[0].class_names)})


def _class_names(path: Path) -> tuple[str, ...] | None:
    with safe_open(path, "pt") as file:
        names = json.loads((file.metadata() or {}).get("class_names", "null"))
    return None if names is None else tuple(names)


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.contiguous().numpy()).cast("B")


SPLIT_SEED = 0
"""The halves of labelled data never depend on the study's seed: tables of studies compare."""


def load_halves(spec: StudySpec, teacher: LoadedTeacher) -> Halves | tuple[None, None]:
    """The labelled images, split into a choosing and a reporting half; Nones without any.

    Raises:
        InputError: there are too few images, or the data does not fit the teacher.
    """
    if spec.study.val_data is None:
        return None, None
    data = load_labelled(
        spec.study.val_data, teacher.preprocessing, teacher.num_classes, teacher.class_names
    )
    # Of a part of the classes only those that are there can be asked for.
    present = len(data.labels.unique())
    if len(data) < 2 * present:
        raise InputError(
            "val_data: `at least two images per class` must hold, but got "
            f"{counted(len(data), 'image')} for {counted(present, 'class', 'classes')} in "
            f"{spec.study.val_data}."
        )
    return split_halves(data, SPLIT_SEED)


def share_labelled(spec: StudySpec, teacher: LoadedTeacher, store: Path) -> str | None:
    """Decode the labelled images into `store`, for every process of this node to map.

    Returns:
        Their address; None without `val_data`.

    Raises:
        InputError: see `load_halves`.
    """
    choose, report = load_halves(spec, teacher)
    return None if choose is None or report is None else share_halves((choose, report), store)


def mapped_halves(
    spec: StudySpec, teacher: LoadedTeacher, store: Path, address: str | None = None
) -> Halves | tuple[None, None]:
    """The labelled halves, mapped from `store`; decoded where this node's store lacks them.

    Args:
        address: what the study's driver decoded; None where this process is the first.

    Raises:
        InputError: this node's images are not the driver's, or see `load_halves`.
    """
    found = shared_halves(address, store) if address else None
    if found is not None:
        return found
    here = share_labelled(spec, teacher, store)
    if address not in (None, here):
        raise InputError(
            "`the labelled images are the same on every machine` must hold, but those in "
            f"{spec.study.val_data} differ here from the driver's."
        )
    if here is None:
        return None, None
    halves = shared_halves(here, store)
    assert halves is not None, "it was written a moment ago"
    return halves
