"""No password, token or key is in any file, log, parameter or tag; where one is needed, it is used."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from synq_tune.config.load import load_space
from synq_tune.errors import InputError, SearchSpaceError
from synq_tune.tracking import download_exported
from tests.crash.services import MlflowServer
from tests.crash.study import SETS
from tests.security.conftest import ROOT, SECRETS, Watched

USER, PASSWORD = "ann", "hunter2canary"
ALLOWED = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.mark.ray
@pytest.mark.long
def test_the_shells_keys_are_nowhere(study: Watched) -> None:
    """Of S3, MLflow and Hugging Face, in console, ledger, summary, MLflow and exported files."""
    for secret in SECRETS.values():
        assert secret not in study.said
        assert [p for p in study.files() if secret.encode() in p.read_bytes()] == []


@pytest.mark.parametrize(
    "url",
    [
        f"https://{USER}:{PASSWORD}@host/net.pth",
        f"https://host/net.pth?token={PASSWORD}",
        f"https://host/net.pth?X-Amz-Credential={PASSWORD}&X-Amz-Signature=a",
    ],
)
def test_a_secret_in_a_teachers_address_is_refused(url: str) -> None:
    """It would stand in the ledger and in exported settings; the message does not repeat it."""
    with pytest.raises(SearchSpaceError, match="holds no password or token") as caught:
        load_space("digits_w3a3", [f"teacher.weights.url={url}"])
    assert PASSWORD not in str(caught.value)


def test_a_server_that_is_away_is_named_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own message quotes the whole address."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="127.0.0.1:9") as caught:
        download_exported(f"http://{USER}:{PASSWORD}@127.0.0.1:9", "0" * 32, "onnx", tmp_path)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))


class _Gate(BaseHTTPRequestHandler):
    """Lets through to the server behind it who has the password."""

    protocol_version = "HTTP/1.1"
    behind = ""
    refused: list[str] = []
    let_in: list[str] = []

    def handle_request(self) -> None:
        """Any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != ALLOWED:
            self.refused.append(self.path)
            self._answer(401, b"{}", "application/json")
            return
        self.let_in.append(self.path)
        kept = {k: v for k, v in self.headers.items() if k.lower() == "content-type"}
        request = urllib.request.Request(
            self.behind + self.path, body or None, kept, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self._answer(answer.status, answer.read(), answer.headers.get_content_type())
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read(), error.headers.get_content_type())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815

    def _answer(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server behind a password: the address of the gate, without user."""
    server = MlflowServer(tmp_path / "server")
    server.start()
    _Gate.behind, _Gate.refused, _Gate.let_in = server.url, [], []
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Gate)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{http.server_port}"
    http.shutdown()
    server.stop()


def _search(folder: Path, uri: str) -> subprocess.CompletedProcess[str]:
    values = [part for text in [*SETS, "study.num_trials=1", "study.confirm=null"]
              for part in ("--set", text)]  # fmt: skip
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts/search.py"), "--space", "digits_w3a3", *values,
         "--output-dir", str(folder), "--store", str(folder.parent / "store"),
         "--max-concurrent", "1", "--tracking-uri", uri],
        capture_output=True, text=True, cwd=folder.parent, check=False,
    )  # fmt: skip


def _holding(folder: Path) -> list[Path]:
    """Files with the password in them, plain or as it is sent."""
    marks = (PASSWORD.encode(), ALLOWED.removeprefix("Basic ").encode())
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(mark in path.read_bytes() for mark in marks)]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_password_of_the_server_is_used_and_nowhere_to_be_found(
    tmp_path: Path, gate: str
) -> None:
    """The study is on the server; console, ledger, summary, exported files, params, tags are clean."""
    done = _search(tmp_path / "study", f"http://{USER}:{PASSWORD}@{gate}")
    assert done.returncode == 0, done.stderr
    assert any("log-batch" in path for path in _Gate.let_in)
    assert _Gate.refused == []
    assert PASSWORD not in done.stdout + done.stderr
    assert f"http://{gate}" in (tmp_path / "study/ledger.jsonl").read_text()
    assert f"http://{gate}" in (tmp_path / "study/summary.json").read_text()
    assert (tmp_path / "server/server.db").is_file()
    assert _holding(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wrong_password_is_not_repeated(tmp_path: Path, gate: str) -> None:
    """One line without it, exit code 2, and no study is left behind."""
    (tmp_path / "studies").mkdir()
    done = _search(tmp_path / "studies/study", f"http://{USER}:{PASSWORD}x@{gate}")
    assert done.returncode == 2
    assert f"MLflow at http://{gate}" in done.stderr.splitlines()[-1]
    assert PASSWORD not in done.stdout + done.stderr
    assert not (tmp_path / "studies/study").exists()
    assert _holding(tmp_path) == []
