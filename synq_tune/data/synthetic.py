"""The synthetic dataset on disk: a folder with a safetensors file and a manifest of sums."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from synq_tune.errors import InputError
from synq_tune.store import atomic_path, content_address, sha256_file, write_json

FORMAT = 1
IMAGES_FILE = "images.safetensors"
MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class SyntheticDataset:
    """Images made from the teacher alone: a training part, then a hold-out part."""

    images: Tensor
    """(N, C, H, W) float16, normalised as the teacher's inputs."""
    labels: Tensor
    """(N,) int64."""
    num_holdout: int
    """The last images, on which no trial trains."""
    method: str
    address: str
    """What the dataset was made from: 32 hex digits."""
    sha256: str
    """Sum of the images' file."""
    path: Path
    """The dataset's folder."""
    provenance: dict[str, Any]
    """The manifest: teacher, settings, seed, losses, versions."""

    @property
    def train_images(self) -> Tensor:
        """Images trials train on."""
        return self.images[: len(self.images) - self.num_holdout]

    @property
    def train_labels(self) -> Tensor:
        """Labels of `train_images`."""
        return self.labels[: len(self.labels) - self.num_holdout]

    @property
    def holdout_images(self) -> Tensor:
        """Images student and teacher are compared on."""
        return self.images[len(self.images) - self.num_holdout :]


def is_complete(folder: Path) -> bool:
    """Whether a dataset was written to its end; the manifest comes last."""
    return (folder / MANIFEST_FILE).is_file()


def dataset_files(folder: Path) -> tuple[Path, ...]:
    """The files of a dataset, in the order in which they appear."""
    return folder / IMAGES_FILE, folder / MANIFEST_FILE


def save_dataset(
    folder: Path, images: Tensor, labels: Tensor, num_holdout: int, about: dict[str, Any]
) -> None:
    """Write images, then the manifest; each appears by rename only.

    Args:
        folder: made if need be; an unfinished dataset in it is replaced.
        images: (N, C, H, W), stored as float16.
        labels: (N,).
        num_holdout: number of images at the end that form the hold-out.
        about: further entries of the manifest; must hold `method` and `address`.
    """
    with atomic_path(folder / IMAGES_FILE) as temporary:
        tensors = {"images": images.half().contiguous(), "labels": labels.to(torch.int64)}
        save_file(tensors, temporary)
    sums = {"format": FORMAT, "num_holdout": num_holdout, "num_images": len(images) - num_holdout}
    manifest = {**about, **sums, "sha256": sha256_file(folder / IMAGES_FILE)}
    write_json(folder / MANIFEST_FILE, {**manifest, "manifest_sum": content_address(manifest)})


def load_dataset(path: Path) -> SyntheticDataset:
    """Read a dataset's folder and check every sum.

    Raises:
        InputError: a file is missing, or a byte of it has changed; says which to delete.
    """
    manifest = _read_manifest(path / MANIFEST_FILE)
    file = path / IMAGES_FILE
    if not file.is_file() or sha256_file(file) != manifest["sha256"]:
        raise _damaged(file, path)
    tensors = load_file(file)
    return SyntheticDataset(
        tensors["images"],
        tensors["labels"],
        manifest["num_holdout"],
        manifest["method"],
        manifest["address"],
        manifest["sha256"],
        path,
        manifest,
    )


def _read_manifest(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise InputError(f"{file}: `the dataset is finished` must hold, but got no manifest.")
    try:
        manifest = json.loads(file.read_bytes())
        is_whole = manifest.pop("manifest_sum") == content_address(manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, file.parent) from error
    if not is_whole:
        raise _damaged(file, file.parent)
    return manifest


def _damaged(file: Path, folder: Path) -> InputError:
    return InputError(
        f"{file}: `the file has its SHA-256 sum` must hold, but got another one: it is damaged. "
        f"Delete {folder} and it will be made again."
    )
