"""A real browser draws the page, says nothing against it, and is asked to fetch nothing."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from synq_tune.experiments.compare_page import write_compare_page
from synq_tune.report.material import Material
from synq_tune.report.page import REPORT_NAME, write_page
from synq_tune.search.importances import parameter_importances
from tests.experiments.test_compare_page import CHOSEN
from tests.report.studies import add_trials, begun, end, repeat

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
]


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A proxy that refuses everything: its address, and the hosts that it was asked for."""
    server, hosts = socket.create_server(("127.0.0.1", 0)), []

    def listen() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                hosts.append(client.recv(4096).split(b"\r\n")[0].decode("latin-1"))

    threading.Thread(target=listen, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", hosts
    server.close()


def _open(page: Path, proxy: str, profile: Path, width: int) -> tuple[str, str]:
    """The page as the browser has it after a while, and all that it said."""
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-default-apps", "--disable-extensions", f"--proxy-server={proxy}",
        "--enable-logging=stderr", f"--user-data-dir={profile}", f"--window-size={width},2000",
        "--virtual-time-budget=15000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


OF_THE_BROWSER = ("google", "gvt1.com", "chromium.org", "gstatic")
"""Hosts that Chromium itself asks for its own updates and lists, whatever is opened."""


@pytest.mark.parametrize(("count", "width", "has_labels"), [(1, 500, False), (40, 1400, True)])
def test_it_is_drawn_without_a_word_or_a_request(
    count: int, width: int, has_labels: bool, asked: tuple[str, list[str]], tmp_path: Path
) -> None:
    """Every figure in sight becomes one; no error on the console; nothing is asked of the network."""
    ledger = begun(tmp_path / "study", f"study.num_trials={count}", has_labels=has_labels)
    add_trials(ledger, count)
    repeat(ledger, 0, 96.0)
    end(ledger)
    path = ledger.folder / REPORT_NAME
    write_page(Material(ledger.state, ledger.folder, parameter_importances(ledger.state)), path)
    proxy, hosts = asked
    drawn, said = _open(path, proxy, tmp_path / "profile", width)
    assert [line for line in said.splitlines() if ":CONSOLE" in line] == []
    assert [host for host in hosts if not any(own in host for own in OF_THE_BROWSER)] == []
    assert len(re.findall(r'<div class="canvas[^"]*js-plotly-plot', drawn)) >= 7
    assert '<script type="application/json">' not in drawn


def test_a_comparisons_page_is_drawn_as_quietly(
    asked: tuple[str, list[str]], tmp_path: Path
) -> None:
    """Its forest plot becomes a figure; nothing is said, nothing is asked for."""
    path = tmp_path / "table.html"
    write_compare_page("base", CHOSEN, [], path)
    proxy, hosts = asked
    drawn, said = _open(path, proxy, tmp_path / "profile", 500)
    assert [line for line in said.splitlines() if ":CONSOLE" in line] == []
    assert [host for host in hosts if not any(own in host for own in OF_THE_BROWSER)] == []
    assert len(re.findall(r'<div class="canvas[^"]*js-plotly-plot', drawn)) == 1


def test_requests_and_errors_are_seen(asked: tuple[str, list[str]], tmp_path: Path) -> None:
    """The check itself can fail: a page that fetches and throws is heard."""
    page = tmp_path / "page.html"
    page.write_text("<img src=http://a.example/x><script>throw Error('no such luck')</script>")
    proxy, hosts = asked
    _, said = _open(page, proxy, tmp_path / "profile", 500)
    assert any("a.example" in host for host in hosts)
    assert any(":CONSOLE" in line and "no such luck" in line for line in said.splitlines())
