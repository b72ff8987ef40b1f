"""The user's own code of a study: a copy stays in its folder, and the text goes to the workers."""

from __future__ import annotations

import importlib.util
import site
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synq_tune import own_code
from synq_tune.config import StudySpec
from synq_tune.config.paths import own_names
from synq_tune.errors import InputError
from synq_tune.store import write_bytes

FOLDER = "sources"
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Sources:
    """The source files of a study as they were when it started."""

    texts: dict[str, str]
    """Absolute path → text."""
    modules: tuple[str, ...]
    """Names of the modules named as `python:package.module:function`."""

    def keep(self, folder: Path) -> None:
        """Write a copy of each file and its SHA-256 into the study's folder, once."""
        copies = _copy_names(self.texts)
        if not copies or (folder / FOLDER / SUMS).exists():
            return
        for path, text in self.texts.items():
            write_bytes(folder / FOLDER / copies[path], text.encode())
        lines = [f"{own_code.sha256_text(t)}  {copies[p]}\n" for p, t in self.texts.items()]
        write_bytes(folder / FOLDER / SUMS, "".join(lines).encode())

    def for_workers(self) -> dict[str, Any]:
        """Plain values that `receive` takes in another process."""
        return {"texts": self.texts, "import_paths": [str(p.parent) for p in self._packages()]}

    def py_modules(self) -> list[str]:
        """What Ray ships to another machine: top-level packages or modules of the user."""
        return [str(path) for path in self._packages()]

    def _packages(self) -> list[Path]:
        """Where each module's top-level package lies; installed packages are left to their node."""
        tops = {_top_level(name) for name in self.modules}
        return sorted(top for top in tops if not _is_installed(top))


def receive(sources: dict[str, Any]) -> None:
    """Use the driver's sources in this process, whatever lies on this machine's disk."""
    own_code.provide(sources["texts"])
    sys.path += [path for path in sources["import_paths"] if path not in sys.path]


def open_sources(spec: StudySpec, folder: Path) -> Sources:
    """Read a study's source files, compare them with the copies in its folder, and use them.

    A file that is gone is replaced by its copy.

    Raises:
        InputError: a file changed since the study started, or is missing.
    """
    names = own_names(spec)
    paths = sorted({str(own_code.source_path(name)) for name in names})
    copies = _copy_names(paths)
    sums = _read_sums(folder / FOLDER / SUMS)
    texts = {p: _text(Path(p), folder / FOLDER / copies[p], sums.get(copies[p])) for p in paths}
    own_code.provide(texts)
    modules = (own_code.parse(name) for name in names)
    return Sources(texts, tuple(code.place for code in modules if not code.is_file))


def _text(path: Path, copy: Path, started_with: str | None) -> str:
    """The file's text, checked against the sum the study started with, if it has started."""
    if started_with is None:
        return own_code.read_source(path)
    text = own_code.read_source(path if path.exists() else copy)
    if own_code.sha256_text(text) != started_with:
        raise InputError(
            f"`{path} is the same as when the study started` must hold, but it changed. "
            f"Restore it from {copy}, or start a new study."
        )
    return text


def _copy_names(paths: Any) -> dict[str, str]:
    """File name of each copy; two files of one name get a part of their paths' sums."""
    count = Counter(Path(path).name for path in paths)
    return {p: Path(p).name if count[Path(p).name] == 1 else _long_name(Path(p)) for p in paths}


def _long_name(path: Path) -> str:
    return f"{path.stem}_{own_code.sha256_text(str(path))[:8]}.py"


def _read_sums(path: Path) -> dict[str, str]:
    """Copy's name → SHA-256; empty before the study started."""
    if not path.exists():
        return {}
    rows = (line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in rows}


def _top_level(module: str) -> Path:
    """The folder of a module's top-level package, or the file of a top-level module."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0] if folders else spec.origin).absolute()


def _is_installed(path: Path) -> bool:
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    folders += [sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")]
    return any(path.is_relative_to(folder) for folder in folders)
