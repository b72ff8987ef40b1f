"""Read a teacher's checkpoint without ever executing it, and fit it into its network."""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from synq_tune.config import Weights
from synq_tune.errors import InputError

_NESTS = ("state_dict", "model", "model_state_dict", "ema", "state_dict_ema", "net")

MAX_BYTES = 2 << 30
"""Largest checkpoint that is unpacked or downloaded."""
# RuntimeError: the member is encrypted, or packed in a way zipfile does not know.
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


def read_checkpoint(weights: Weights) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name, unnested and without a `module.` prefix.

    A `.zip` file is read for its one `.pth` member, in memory; the SHA-1 is the member's.

    Raises:
        InputError: the file is missing, truncated, of another SHA-1, or a pickle that holds more
            than tensors (which is never executed).
    """
    path = Path(weights.file or "")
    if not path.is_file():
        raise InputError(f"`the weights file exists` must hold, but got weights={weights.file!r}.")
    if path.suffix == ".zip":
        file = _member(path)
        _check_sha1(path, file, weights.sha1)
        return _unnest(_read_pickle(path, file), path)
    with open(path, "rb") as opened:
        _check_sha1(path, opened, weights.sha1)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path, path)
    return _unnest(content, path)


def weights_member(archive: zipfile.ZipFile, where: str) -> zipfile.ZipInfo:
    """The one `.pth` file in an archive.

    Args:
        archive: as it is published; other files in it are passed over.
        where: what errors call it.

    Raises:
        InputError: there is none or more than one, or it is larger than `MAX_BYTES`.
    """
    names = {info: PurePosixPath(info.filename) for info in archive.infolist()}
    found = [i for i, n in names.items() if n.suffix == ".pth" and not n.name.startswith(".")]
    if len(found) != 1:
        raise InputError(f"{where}: `one .pth file is inside` must hold, but got {len(found)}.")
    if found[0].file_size > MAX_BYTES:
        raise InputError(
            f"{where}: `size <= {MAX_BYTES} bytes` must hold, but got {found[0].file_size}."
        )
    return found[0]


def _member(path: Path) -> IO[bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            return io.BytesIO(archive.read(weights_member(archive, str(path))))
    except ZIP_DAMAGE as error:
        raise InputError(f"{path}: `the zip file is whole` must hold, but got: {error}.") from error


def _check_sha1(path: Path, file: IO[bytes], expected: str | None) -> None:
    if expected is None:
        return
    actual = hashlib.file_digest(file, "sha1").hexdigest()
    file.seek(0)
    if not actual.startswith(expected.lower()):
        raise InputError(
            f"{path}: `sha1 == {expected}` must hold, but got sha1={actual}. Download it again; "
            "if you mean this file, pass --set teacher.weights.sha1=null."
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"{path}: `the file is whole safetensors` must hold, but got: {error}. "
            "It is truncated or not safetensors."
        ) from error


def _read_pickle(path: Path, source: Path | IO[bytes]) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0].split("Please")[0].strip()
        raise InputError(
            f"{path}: `the checkpoint holds only tensors` must hold; it was not executed "
            f"({reason[:200]}). Save the state_dict alone, or convert it to safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        raise InputError(
            f"{path}: `the checkpoint is whole` must hold, but got: {str(error).splitlines()[0]}."
        ) from error


def _unnest(content: Any, path: Path) -> dict[str, Tensor]:
    for _ in range(3):
        if not isinstance(content, dict):
            break
        inner = next((content[k] for k in _NESTS if isinstance(content.get(k), dict)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict) or not any(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{path}: `the checkpoint is a state_dict` must hold.")
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    while all(k.startswith("module.") for k in tensors):
        tensors = {k.removeprefix("module."): v for k, v in tensors.items()}
    return tensors


def fit_checkpoint(model: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load `tensors` into `model`; every key and shape must fit.

    Raises:
        InputError: names the first keys that are missing, left over or of another shape.
    """
    own = model.state_dict()
    # Counters of old BatchNorm versions are not weights.
    missing = [k for k in own if k not in tensors and not k.endswith("num_batches_tracked")]
    extra = [k for k in tensors if k not in own]
    wrong = [k for k in own if k in tensors and own[k].shape != tensors[k].shape]
    if missing or extra or wrong:
        raise InputError(
            f"{where}: `the weights fit the model` must hold, but got "
            + "; ".join(
                part
                for part in (
                    _some("missing", missing),
                    _some("left over", extra),
                    _some("wrong shape", [_shapes(k, own, tensors) for k in wrong]),
                )
                if part
            )
            + "."
        )
    # Old layouts are told by a version that safetensors drops; the keys fit, so it is the model's.
    versioned = OrderedDict(tensors)
    versioned._metadata = own._metadata
    model.load_state_dict(versioned, strict=False)


def _shapes(key: str, own: dict[str, Tensor], tensors: dict[str, Tensor]) -> str:
    return f"{key} {list(tensors[key].shape)} (the model's: {list(own[key].shape)})"


def _some(what: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
    return f"{len(keys)} {what} ({shown})" if keys else ""
