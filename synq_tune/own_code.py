"""The user's own code by name: `path/net.py:function` or `python:package.module:function`.

It runs because the user named it, in the user's process and with the user's rights. A file is read
once per process: what was read first stays, so that an edit in the middle of a study changes
nothing in it. A driver can hand the text of a file to workers that do not have it (`provide`).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.abc import ExecutionLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from synq_tune.errors import ForeignError, InputError, full_text

PREFIX = "python:"
_TEXTS: dict[str, str] = {}
"""Absolute path → the text this process uses, whatever the disk says later."""


@dataclass(frozen=True)
class OwnCode:
    """The two parts of a name."""

    place: str
    """A file ending in `.py`, or a module `package.module`."""
    function: str

    @property
    def is_file(self) -> bool:
        """Whether the place is a file."""
        return self.place.endswith(".py")

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return Path(self.place).expanduser().absolute()


def is_own_code(name: str) -> bool:
    """Whether a name asks for the user's own code."""
    return name.startswith(PREFIX) or name.rpartition(":")[0].endswith(".py")


def parse(name: str) -> OwnCode:
    """Take a name apart.

    Raises:
        InputError: it is not `place:function`.
    """
    place, _, function = name.removeprefix(PREFIX).rpartition(":")
    if not is_own_code(name) or not place or not function.isidentifier():
        raise InputError(
            "`own code is FILE.py:FUNCTION or python:PACKAGE.MODULE:FUNCTION` must hold, "
            f"but got {name!r}."
        )
    return OwnCode(place, function)


def label(name: str) -> str:
    """The name without its folder: equal wherever the file lies. Other names stay as they are."""
    if not is_own_code(name) or not parse(name).is_file:
        return name
    return f"{parse(name).path.name}:{parse(name).function}"


def identity(name: str) -> dict[str, str]:
    """What a result made by this code is filed under: its label and its source."""
    return {"name": label(name), "source_sha256": source_sha256(name)}


def load(name: str) -> Callable[..., Any]:
    """The function of that name.

    Raises:
        InputError: file or module is missing, raises while it is imported, or lacks the function.
    """
    function = _found(name)
    if not callable(function):
        code = parse(name)
        raise InputError(f"`{code.place} defines {code.function}()` must hold, but got {name!r}.")
    return function


def find_object(name: str) -> Any:
    """What has that name: a function, a class or an object.

    Raises:
        InputError: file or module is missing, raises while it is imported, or has no such name.
    """
    found = _found(name)
    if found is None:
        code = parse(name)
        raise InputError(f"`{code.place} defines {code.function}` must hold, but got {name!r}.")
    return found


def _found(name: str) -> Any:
    code = parse(name)
    module = _file_module(code.path) if code.is_file else _import(code.place)
    return getattr(module, code.function, None)


def source_path(name: str) -> Path:
    """The file in which the function is looked up."""
    code = parse(name)
    if code.is_file:
        return code.path
    try:
        spec = importlib.util.find_spec(code.place)
    except ModuleNotFoundError as error:
        raise InputError(_not_found(code.place, error)) from error
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise InputError(_not_found(code.place, f"No module with a source file {code.place!r}"))
    return Path(spec.origin).absolute()


def source_sha256(name: str) -> str:
    """SHA-256 of the source file's text."""
    return sha256_text(source_text(source_path(name)))


def sha256_text(text: str) -> str:
    """SHA-256 of a text; of a UTF-8 file's text it is the file's own sum."""
    return hashlib.sha256(text.encode()).hexdigest()


def source_text(path: Path) -> str:
    """The text this process uses for a file."""
    if str(path) not in _TEXTS:
        _TEXTS[str(path)] = read_source(path)
    return _TEXTS[str(path)]


def read_source(path: Path) -> str:
    """The text of a file as it is on disk now.

    Raises:
        InputError: it is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"`the file of the own code can be read` must hold, but got {path}: {error}."
        ) from error


def provide(texts: Mapping[str, str]) -> None:
    """Use these texts (by absolute path) instead of what is on this machine's disk."""
    for path, text in texts.items():
        if _TEXTS.get(path) != text:
            sys.modules.pop(_module_name(Path(path)), None)
        _TEXTS[path] = text


def _module_name(path: Path) -> str:
    """One per file: two files called net.py are two modules."""
    return f"synq_tune_own_{path.stem}_{sha256_text(str(path))[:12]}"


class _TextLoader(ExecutionLoader):
    """Runs a text as if it were read from its path, with source lines in tracebacks."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.text = path, text

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_source(self, fullname: str) -> str:
        return self.text


def _file_module(path: Path) -> ModuleType:
    name = _module_name(path)
    if name not in sys.modules:
        loader = _TextLoader(path, source_text(path))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
        sys.modules[name] = module
        try:
            loader.exec_module(module)
        except BaseException as error:
            sys.modules.pop(name, None)
            if isinstance(error, KeyboardInterrupt):
                raise
            raise _not_imported(str(path), error) from error
    return sys.modules[name]


def _import(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise InputError(_not_found(place, error)) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _not_imported(place, error) from error


def _not_found(place: str, error: object) -> str:
    return (
        f"`module {place} can be imported` must hold, but got: {error}. Install it, or put its "
        "folder on PYTHONPATH."
    )


def _not_imported(place: str, error: BaseException) -> ForeignError:
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = " A file stands alone: for code in several files use python:PACKAGE.MODULE:FUNCTION."
    line = f"{type(error).__name__}: {error}".rstrip(".")
    message = f"`{place} can be imported` must hold, but it raised {line}.{hint}"
    return ForeignError(message.removesuffix("."), full_text(error))
