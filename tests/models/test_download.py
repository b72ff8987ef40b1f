"""Published weights: fetched whole and as meant, or one line that says what to do."""

from __future__ import annotations

import functools
import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from synq_tune.config import Teacher, Weights
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.models import archive, download, published
from synq_tune.models.build import build_model
from synq_tune.models.checkpoint import read_checkpoint
from synq_tune.models.download import fetch_weights
from synq_tune.models.published import pytorchcv_weights
from synq_tune.models.teacher import load_teacher
from synq_tune.store import store_folder

NET = Teacher(model="cifar_resnet20", num_classes=10)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


class _Server:
    """The files of a folder on 127.0.0.1."""

    def __init__(self, folder: Path, handler: type[BaseHTTPRequestHandler]) -> None:
        self.folder = folder
        made = functools.partial(handler, directory=folder) if handler is _Quiet else handler
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), made)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default store, in this test's own home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home/.cache/synq_tune/weights"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    """A server of an empty folder."""
    (tmp_path / "www").mkdir()
    server = _Server(tmp_path / "www", _Quiet)
    yield server
    server.close()


def _checkpoint() -> tuple[bytes, str]:
    buffer = io.BytesIO()
    torch.save(build_model(NET).state_dict(), buffer)
    return buffer.getvalue(), hashlib.sha1(buffer.getvalue()).hexdigest()


def _zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "plain"])
def test_a_teacher_is_downloaded_once(server: _Server, store: Path, is_zip: bool) -> None:
    """The second load needs no server; only the checkpoint itself stays in the store."""
    content, sha1 = _checkpoint()
    if is_zip:
        _zip(server.folder / "net.pth.zip", {"net.pth": content})
    else:
        (server.folder / "net.pth").write_bytes(content)
    url = f"{server.url}/net.pth" + (".zip" if is_zip else "")
    config = NET.model_copy(update={"weights": Weights(url=url, sha1=sha1)})
    first = load_teacher(config)
    for file in server.folder.iterdir():
        file.unlink()
    assert load_teacher(config).fingerprint == first.fingerprint
    assert (store / "net.pth").read_bytes() == content
    assert [p.name for p in store.iterdir() if p.suffix != ".lock"] == ["net.pth"]


def test_another_file_than_the_pinned_one_never_lands(server: _Server, store: Path) -> None:
    """The SHA-1 is compared before the file appears."""
    (server.folder / "net.pth").write_bytes(b"something else")
    weights = Weights(url=f"{server.url}/net.pth", sha1="0" * 40)
    with pytest.raises(InputError, match=f"a file with sha1=.*wanted: sha1={'0' * 40}"):
        fetch_weights(weights, store_folder())
    assert not (store / "net.pth").exists()


def test_a_damaged_file_in_the_store_is_refused(server: _Server, store: Path) -> None:
    """What lies in the store is compared each time it is read."""
    store.mkdir(parents=True)
    (store / "net.pth").write_bytes(b"damaged")
    weights = Weights(url=f"{server.url}/net.pth", sha1="0" * 40)
    with pytest.raises(InputError, match=r"net\.pth: `sha1 == 0"):
        load_teacher(NET.model_copy(update={"weights": weights}))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.pth": b"", "b.pth": b""}, "one .pth file is inside.*got 2"),
        ({"readme.txt": b""}, "one .pth file is inside.*got 0"),
    ],
)
def test_an_archive_holds_one_checkpoint(
    server: _Server, store: Path, members: dict[str, bytes], message: str
) -> None:
    """Which of two is meant cannot be known."""
    _zip(server.folder / "net.pth.zip", members)
    with pytest.raises(InputError, match=message):
        fetch_weights(Weights(url=f"{server.url}/net.pth.zip"), store_folder())
    assert not (store / "net.pth").exists()


def test_an_archives_paths_are_not_followed(server: _Server, store: Path, tmp_path: Path) -> None:
    """A member that would leave the folder lands under the url's name."""
    content, sha1 = _checkpoint()
    _zip(server.folder / "net.pth.zip", {"../../../evil.pth": content})
    fetched = fetch_weights(Weights(url=f"{server.url}/net.pth.zip", sha1=sha1), store_folder())
    assert Path(fetched.file) == store / "net.pth"
    assert not list(tmp_path.rglob("evil.pth"))


def test_a_body_beyond_the_cap_is_refused(
    server: _Server, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server cannot fill the disk."""
    (server.folder / "net.pth").write_bytes(bytes(2000))
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="more than 1000 bytes"):
        fetch_weights(Weights(url=f"{server.url}/net.pth"), store_folder())
    assert not (store / "net.pth").exists()


def test_an_archive_that_unpacks_beyond_the_cap_is_refused(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros compress well."""
    _zip(server.folder / "net.pth.zip", {"net.pth": bytes(100_000)})
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="size <= 1000 bytes.*100000"):
        fetch_weights(Weights(url=f"{server.url}/net.pth.zip"), store_folder())


class _Cut(BaseHTTPRequestHandler):
    """Promises more than it sends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"half")

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


class _Redirect(_Cut):
    """Sends elsewhere, without encryption."""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", "http://example.invalid/net.pth")
        self.end_headers()


@pytest.mark.parametrize(
    ("handler", "message"),
    [(_Cut, "4 of 100 bytes"), (_Redirect, "url is https.*example.invalid")],
    ids=["cut", "redirect"],
)
def test_a_server_that_misbehaves_leaves_nothing(
    tmp_path: Path, store: Path, handler: type[BaseHTTPRequestHandler], message: str
) -> None:
    """A body cut short, or a way out of https, is one line."""
    server = _Server(tmp_path, handler)
    try:
        with pytest.raises(InputError, match=message):
            fetch_weights(Weights(url=f"{server.url}/net.pth"), store_folder())
    finally:
        server.close()
    assert not (store / "net.pth").exists()


@pytest.mark.parametrize(
    "url",
    ["http://example.com/net.pth", "ftp://127.0.0.1/net.pth", "file:///etc/passwd", "net.pth"],
)
def test_only_https_is_fetched(url: str) -> None:
    """Plain http is for this machine alone."""
    with pytest.raises(InputError, match="url is https"):
        fetch_weights(Weights(url=url), store_folder())


@pytest.mark.parametrize("ending", ["", "/", "/.zip", "/..", "/%2e%2e"])
def test_a_url_names_a_file(server: _Server, ending: str) -> None:
    """The copy's name comes from the url, and stays in the store."""
    with pytest.raises(InputError, match="ends in a file name"):
        fetch_weights(Weights(url=server.url + ending), store_folder())


def test_a_missing_page_says_what_was_wanted(server: _Server) -> None:
    """File, address, sum and the way out are in one line."""
    with pytest.raises(InputError) as caught:
        fetch_weights(Weights(url=f"{server.url}/net.pth.zip", sha1="ab" * 20), store_folder())
    message = str(caught.value)
    wanted = ("net.pth", "HTTP 404", f"{server.url}/net.pth.zip", "ab" * 20, "--weights FILE")
    assert all(part in message for part in wanted) and "\n" not in message


@pytest.fixture
def closed_url() -> str:
    """An address on this machine at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_no_network_is_one_line(closed_url: str) -> None:
    """A refused connection says which file, from where, its sum, and --weights."""
    with pytest.raises(InputError, match=r"net\.pth can.*refused.*net\.pth.*abab.*--weights FILE"):
        fetch_weights(Weights(url=f"{closed_url}/net.pth", sha1="ab" * 20), store_folder())


@pytest.mark.parametrize("model", ["timm:resnet18", "torchvision:resnet18"])
def test_a_library_without_network_is_one_line(
    model: str, closed_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The model, the address of its published weights and --weights are named, without retries."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", closed_url)
    monkeypatch.setenv("https_proxy", closed_url)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError) as caught:
        load_teacher(Teacher(model=model))
    message = str(caught.value)
    origin = published.PUBLISHERS["torchvision"]("resnet18") if "vision" in model else closed_url
    assert all(part in message for part in (model, origin, "--weights FILE"))
    assert "\n" not in message


def test_published_weights_for_another_number_of_classes_are_refused() -> None:
    """torchvision's own message comes through as one line, before any connection."""
    with pytest.raises(InputError, match="fit its settings.*1000 but got 10.*--weights FILE"):
        load_teacher(Teacher(model="torchvision:resnet18", num_classes=10))


def test_a_wrong_tag_needs_no_network() -> None:
    """timm's own message comes through as one line."""
    with pytest.raises(InputError, match="resnet18.nonsense"):
        load_teacher(Teacher(model="timm:resnet18.nonsense"))


def test_pytorchcv_publishes_url_and_sum() -> None:
    """The table of the installed package gives what our own download needs."""
    weights = pytorchcv_weights("resnet20_cifar10")
    assert weights.sha1 == "9b0024ac4c2f374cde2c5052e0d0344a75871cdb"
    assert weights.url.endswith("/v0.0.163/resnet20_cifar10-0597-9b0024ac.pth.zip")


def test_pytorchcv_never_downloads_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own loader would run a pickle; without url the weights come through ours."""
    asked: list[Weights] = []

    def fetch(weights: Weights, store: Path) -> Weights:
        asked.append(weights)
        raise InputError("stopped here")

    monkeypatch.setattr("synq_tune.models.teacher.fetch_weights", fetch)
    with pytest.raises(InputError, match="stopped here"):
        load_teacher(Teacher(model="pytorchcv:resnet20_cifar10"))
    assert asked == [pytorchcv_weights("resnet20_cifar10")]


def test_a_pytorchcv_model_without_weights_says_so() -> None:
    """Some entries of the table hold none."""
    with pytest.raises(InputError, match="teacher.weights.url and sha1, or pass --weights"):
        pytorchcv_weights("resnet20_nowhere")


def test_a_zip_may_be_passed_as_a_file(tmp_path: Path) -> None:
    """`--weights net.pth.zip` is read for its member, whose SHA-1 is the pinned one."""
    content, sha1 = _checkpoint()
    path = tmp_path / "net.pth.zip"
    _zip(path, {"__MACOSX/._net.pth": b"", "net.pth": content})
    (nest,) = read_checkpoint(Weights(file=str(path), sha1=sha1)).nests
    assert nest.tensors.keys() == build_model(NET).state_dict().keys()
    with pytest.raises(InputError, match="sha1 == deadbeef"):
        read_checkpoint(Weights(file=str(path), sha1="deadbeef"))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="zip file is whole"):
        read_checkpoint(Weights(file=str(path)))


def test_a_pin_holds_for_a_file_unless_it_is_taken_off(tmp_path: Path) -> None:
    """`--weights` keeps url and SHA-1 of the space; `--set …sha1=null` means another file."""
    path = tmp_path / "own.pth"
    torch.save(build_model(load_space("resnet20_cifar10_w4a4").teacher).state_dict(), path)
    flags = {"teacher": {"weights": {"file": str(path)}}}
    pinned = load_space("resnet20_cifar10_w4a4", [], flags).teacher
    with pytest.raises(InputError, match=r"sha1 == 9b0024ac.*teacher\.weights\.sha1=null"):
        load_teacher(pinned)
    free = load_space("resnet20_cifar10_w4a4", ["teacher.weights.sha1=null"], flags).teacher
    assert load_teacher(free).num_classes == 10
