"""Fetch a teacher's published checkpoint into the store, and only the one that was meant."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from synq_tune.config import Weights
from synq_tune.errors import InputError
from synq_tune.models.archive import MAX_BYTES, ZIP_DAMAGE, weights_member
from synq_tune.notes import say
from synq_tune.store import once

_LOCAL = ("127.0.0.1", "localhost", "::1")
_TIMEOUT = 30.0  # seconds without a byte
_PATIENCE = 8.0  # seconds until a server answers anything at all
_CHUNK = 1 << 20


def fetch_weights(weights: Weights, store: Path) -> Weights:
    """The same weights with `file` set to a local copy of `url`, downloaded if it is not there.

    The copy lies in the store's `weights` folder under the last part of the url, without `.zip`.
    It appears by rename, only after its SHA-1 was compared; several processes download it once.

    Args:
        weights: `url` is given; `sha1` is of the checkpoint, not of the archive around it.
        store: the folder that all studies share.

    Raises:
        InputError: the url is not https, the network is away, or the file is another one.
    """
    url = weights.url or ""
    _check_url(url)
    path = store / "weights" / _file_name(url)
    if not path.is_file():
        say(f"weights: fetching {path.name} from {url} …")
        once(path, lambda temporary: _download(weights, url, temporary))
    return weights.model_copy(update={"file": str(path)})


def is_reachable(url: str) -> bool:
    """Whether the server of `url` answers anything at all within eight seconds."""
    answers: list[bool] = []
    # A limit of urlopen counts each address of a server anew, and no look-up of its name.
    asking = threading.Thread(target=lambda: answers.append(_answers(url)), daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return answers == [True]


def _answers(url: str) -> bool:
    try:
        _opener(url).open(Request(url, method="HEAD"), timeout=_PATIENCE).close()
    except HTTPError:
        return True
    except (URLError, HTTPException, OSError):
        return False
    except InputError:  # it sends elsewhere than it may: the download says where
        return True
    return True


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    is_local = parts.scheme == "http" and parts.hostname in _LOCAL
    if parts.scheme != "https" and not is_local:
        raise InputError(f"`teacher.weights.url is https` must hold, but got url={url!r}.")


def _file_name(url: str) -> str:
    name = PurePosixPath(unquote(urlsplit(url).path)).name.removesuffix(".zip")
    if not name or name.startswith("."):
        raise InputError(f"`teacher.weights.url ends in a file name` must hold, but got {url!r}.")
    return name


class _SafeRedirects(HTTPRedirectHandler):
    """Follow a redirect only where a url may point to in the first place."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        _check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(url: str = "") -> Any:
    # A proxy knows nothing of a server on this machine.
    proxies = [ProxyHandler({})] if urlsplit(url).hostname in _LOCAL else []
    return build_opener(_SafeRedirects, *proxies)


def _download(weights: Weights, url: str, target: Path) -> None:
    """Write the checkpoint at `url` to `target`; an archive is read for its one `.pth` member."""
    with _explained(weights, url), open(target, "w+b") as out:
        _ask(url)
        if urlsplit(url).path.endswith(".zip"):
            with tempfile.TemporaryFile(dir=target.parent) as archive:
                _save(url, archive)
                _unpack(archive, url, out)
        else:
            _save(url, out)
        out.seek(0)
        actual = hashlib.file_digest(out, "sha1").hexdigest()
        if not actual.startswith((weights.sha1 or "").lower()):
            raise _failed(weights, url, f"a file with sha1={actual}")


def _ask(url: str) -> None:
    """Raise TimeoutError where nobody answers; what else is wrong, the download itself says."""
    before = time.monotonic()
    if not is_reachable(url) and time.monotonic() - before >= _PATIENCE:
        raise TimeoutError(f"no answer within {_PATIENCE:g} seconds")


def _unpack(archive: IO[bytes], url: str, out: IO[bytes]) -> None:
    with zipfile.ZipFile(archive) as opened, opened.open(weights_member(opened, url)) as member:
        shutil.copyfileobj(member, out, _CHUNK)


def _save(url: str, out: IO[bytes]) -> None:
    """Stream the body; raises OSError where it is cut or beyond the cap."""
    with _opener(url).open(url, timeout=_TIMEOUT) as response:
        written = 0
        while chunk := response.read(_CHUNK):
            written += len(chunk)
            if written > MAX_BYTES:
                raise OSError(f"more than {MAX_BYTES} bytes")
            out.write(chunk)
        length = response.headers.get("Content-Length")
        if length is not None and written != int(length):
            raise OSError(f"{written} of {length} bytes")


@contextlib.contextmanager
def _explained(weights: Weights, url: str) -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        raise _failed(weights, url, f"HTTP {error.code} {error.reason}") from error
    except URLError as error:
        raise _failed(weights, url, str(error.reason)) from error
    except (OSError, HTTPException, *ZIP_DAMAGE) as error:
        raise _failed(weights, url, str(error) or type(error).__name__) from error


def _failed(weights: Weights, url: str, got: str) -> InputError:
    return InputError(
        f"`the weights {_file_name(url)} can be downloaded` must hold, but got {got} from {url} "
        f"(wanted: sha1={weights.sha1}). Fetch it elsewhere and pass --weights FILE."
    )
