"""What torch.save wrote: read by torch where it holds tensors only, else taken apart inertly."""

from __future__ import annotations

import math
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from synq_tune.errors import InputError
from synq_tune.models.inert_pickle import Content, Inert, Name, Persistent, read_inert
from synq_tune.notes import printable

SAVE_AGAIN = (
    "Where the class can be imported, save the tensors alone: "
    "torch.save(model.state_dict(), 'weights.pth')."
)
_MAX_PICKLE = 256 << 20  # names, shapes and settings; the numbers lie outside
_CODE = {
    "os", "posix", "nt", "subprocess", "commands", "sys", "shutil", "socket", "runpy", "importlib", "pty",
    "code", "ctypes", "webbrowser", "pickle", "_pickle", "marshal", "asyncio", "timeit", "pdb", "bdb",
    "cProfile", "io", "_io", "tempfile", "cloudpickle", "dill", "joblib", "pip", "requests",
}  # fmt: skip
_CODE_BUILTINS = {
    "eval",
    "exec",
    "compile",
    "open",
    "__import__",
    "execfile",
    "input",
    "breakpoint",
}
"""Modules and built-ins that run things: no training script leaves them beside weights."""


@dataclass(frozen=True, eq=False)
class _Ref:
    """A tensor whose storage is read once it is known to be wanted."""

    storage: Persistent
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Any:
    plain = isinstance(storage, Persistent) and type(offset) is int
    whole = all(type(n) is int and n >= 0 for n in (*size, *stride))
    return _Ref(storage, offset, tuple(size), tuple(stride)) if plain and whole else Inert("tensor")


_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda *pairs: {},
    "torch._utils._rebuild_tensor": _rebuild,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_parameter": lambda data, *more: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *more: data,
    "torch.nn.parameter.Parameter": lambda data=None, *more: data,
}


def read_torch_file(path: Path, stream: IO[bytes]) -> Any:
    """The content of a torch.save file: containers, tensors, and `Inert` for anything foreign.

    Nothing of the file is executed or imported.

    Args:
        path: what errors call it.
        stream: the file's bytes, from its beginning.

    Raises:
        InputError: it is damaged, or asks for something that runs code.
    """
    try:
        with warnings.catch_warnings():
            # It warns of other protocols, which the second reader knows.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return _inert(path, stream)
    except Exception as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception | str) -> InputError:
    """The error for a file whose kind is known but whose content is not whole."""
    reason = printable((str(error).strip() or type(error).__name__).splitlines()[0], 160).rstrip(
        "."
    )
    return InputError(
        f"{path}: `the checkpoint is whole` must hold, but got: {reason}. It is truncated or "
        "damaged: download or copy it again."
    )


def _inert(path: Path, stream: IO[bytes]) -> Any:
    try:
        stream.seek(0)
        return _read(path, stream)
    except InputError:
        raise
    except Exception as error:
        raise damaged(path, error) from error


def _read(path: Path, stream: IO[bytes]) -> Any:
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            pickled = next(n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl")
            if archive.getinfo(pickled).file_size > _MAX_PICKLE:
                raise ValueError(f"a pickle of more than {_MAX_PICKLE} bytes")
            with archive.open(pickled) as member:
                content = read_inert(member, _CALLS)
            _refuse_code(path, content)
            folder = pickled.removesuffix("data.pkl")
            return _materialize(content, _ZipStorages(archive, folder))
    stream.seek(0)
    header = [read_inert(stream, _CALLS) for _ in range(3)]
    content = read_inert(stream, _CALLS)
    _refuse_code(path, *header, content)
    keys = read_inert(stream, _CALLS).value
    return _materialize(content, _LegacyStorages(stream, keys, content.references))


def _refuse_code(path: Path, *contents: Content) -> None:
    for name in sorted(set().union(*(content.names for content in contents))):
        module, _, attribute = name.rpartition(".")
        is_builtin = module in ("builtins", "__builtin__") and attribute in _CODE_BUILTINS
        if name.split(".")[0] in _CODE or is_builtin:
            raise InputError(
                f"{path}: `the checkpoint holds only tensors` must hold, but it asks for "
                f"{printable(name)}, which runs code and was not executed. Do not trust this file."
            )


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str
    count: int


def _storage(reference: Persistent) -> _Storage:
    """(`storage`, type, key, location, number of elements, …) as torch writes it."""
    word, kind, key, _, count = reference.identity[:5]
    if word not in ("storage", b"storage") or not isinstance(kind, Name) or type(count) is not int:
        raise ValueError("a reference that is no storage")
    return _Storage(_dtype(kind.text), str(key), count)


def _dtype(name: str) -> torch.dtype:
    if name == "torch.storage.UntypedStorage":
        return torch.uint8
    if name not in {f"torch.{s.__name__}" for s in torch._storage_classes}:
        raise ValueError(f"a storage of type {printable(name)}")
    return getattr(torch, name.removeprefix("torch.")).dtype


class _ZipStorages:
    """One member per storage."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self.archive, self.folder = archive, folder

    def read(self, storage: _Storage) -> bytes:
        info = self.archive.getinfo(f"{self.folder}data/{storage.key}")
        if info.file_size != storage.count * storage.dtype.itemsize:
            raise ValueError(f"a storage of {info.file_size} bytes")
        return self.archive.read(info)


class _LegacyStorages:
    """All storages behind the pickles, each after its number of elements."""

    def __init__(self, stream: IO[bytes], keys: Any, references: list[Persistent]) -> None:
        self.stream, self.keys = stream, [str(key) for key in keys]
        self.start = stream.tell()
        storages = map(_storage, references)
        self.sizes = {s.key: s.count * s.dtype.itemsize for s in storages}

    def read(self, storage: _Storage) -> bytes:
        at = self.start
        for key in self.keys[: self.keys.index(storage.key)]:
            at += 8 + self.sizes[key]
        self.stream.seek(at + 8)
        content = self.stream.read(self.sizes[storage.key])
        if len(content) != self.sizes[storage.key]:
            raise ValueError("a storage that ends early")
        return content


def _materialize(content: Content, storages: _ZipStorages | _LegacyStorages) -> Any:
    """The dictionaries of a content with their tensors read; each storage and each tensor once."""
    references: dict[int, _Ref] = {}
    _find(content.value, references, set())
    loaded: dict[str, Tensor] = {}
    tensors = {key: _tensor(r, storages, loaded) for key, r in references.items()}
    return _replace(content.value, tensors, {})


def _tensor(
    reference: _Ref, storages: _ZipStorages | _LegacyStorages, loaded: dict[str, Tensor]
) -> Tensor:
    """A copy of a part of its storage; torch itself checks that the part ends inside."""
    storage = _storage(reference.storage)
    if math.prod(reference.size) == 0:
        return torch.empty(reference.size, dtype=storage.dtype)
    if storage.key not in loaded:
        raw = bytearray(storages.read(storage))
        loaded[storage.key] = torch.frombuffer(raw, dtype=storage.dtype)
    part = loaded[storage.key].as_strided(reference.size, reference.stride, reference.offset)
    return part.clone()


def _pairs_of(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, Inert):
        return value.pairs
    return value if isinstance(value, dict) else None


def _find(value: Any, found: dict[int, _Ref], seen: set[int]) -> None:
    """Every reference in nested dictionaries, by its id; a dictionary that holds itself ends."""
    if isinstance(value, _Ref):
        found[id(value)] = value
    pairs = _pairs_of(value)
    if pairs is None or id(value) in seen:
        return
    seen.add(id(value))
    for child in pairs.values():
        _find(child, found, seen)


def _replace(value: Any, tensors: dict[int, Tensor], done: dict[int, Any]) -> Any:
    if isinstance(value, _Ref):
        return tensors[id(value)]
    pairs = _pairs_of(value)
    if pairs is None:
        return value
    if id(value) not in done:
        copy = {} if isinstance(value, dict) else Inert(value.name, value.args, value.state)
        done[id(value)] = copy
        for key, child in pairs.items():
            _pairs_of(copy)[key] = _replace(child, tensors, done)
    return done[id(value)]
