"""Real servers on free ports of localhost, to be started, stopped and started again by tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
BUCKET = "models"


def free_port() -> int:
    """A port of localhost that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Service:
    """A server's process, in a session of its own."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        """Nothing starts yet; `folder` is made for its log and what it keeps."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.environment = {**os.environ, **QUIET, **(environment or {})}
        # A server is started often: it may keep its bytecode.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """What starts it."""
        raise NotImplementedError

    def start(self, seconds: float = 300.0) -> None:
        """Start it and wait until it listens."""
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(
                self.command(), env=self.environment, start_new_session=True, stdout=log, stderr=log
            )
        deadline = time.time() + seconds
        while time.time() < deadline and self.process.poll() is None:
            if self.is_ready():
                return
            time.sleep(0.2)
        self.stop()
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def is_ready(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def stop(self) -> None:
        """It goes away, at once."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class MlflowServer(Service):
    """`mlflow server`; by default over one SQLite file, with artifacts in its folder."""

    def __init__(
        self,
        folder: Path,
        store: str | None = None,
        artifacts: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """Nothing starts yet.

        Args:
            folder: for the log, and for what is kept by default.
            store: the database's address.
            artifacts: options that say where artifacts go.
            environment: on top of this process's.
        """
        super().__init__(folder, environment)
        self.store = store or f"sqlite:///{folder}/server.db"
        self.artifacts = artifacts or ("--artifacts-destination", str(folder / "artifacts"))

    def command(self) -> list[str]:
        """One worker: more only take memory here."""
        return [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1",
            "--port", str(self.port), "--backend-store-uri", self.store, *self.artifacts,
        ]  # fmt: skip

    def is_ready(self) -> bool:
        """It listens before it can answer."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):
            return True
        return False


class S3(Service):
    """An S3 emulator, which keeps its objects in memory."""

    ENVIRONMENT = {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        # A bucket that is away is refused at once, for the driver to try again.
        "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    """What its users need."""

    def command(self) -> list[str]:
        """moto's own server."""
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def start(self, seconds: float = 300.0) -> None:
        """Start it and make the bucket."""
        super().start(seconds)
        self.client().create_bucket(Bucket=BUCKET)

    def client(self):
        """boto3's client of it."""
        import boto3

        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
        key, secret, region = (self.ENVIRONMENT[name] for name in keys)
        return boto3.client(
            "s3", endpoint_url=self.url, region_name=region,
            aws_access_key_id=key, aws_secret_access_key=secret,
        )  # fmt: skip

    def objects(self) -> dict[str, bytes]:
        """Every object by its key."""
        client = self.client()
        listed = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [item["Key"] for page in listed for item in page.get("Contents", ())]
        return {k: client.get_object(Bucket=BUCKET, Key=k)["Body"].read() for k in keys}


def postgres_folder() -> Path | None:
    """Where PostgreSQL's programs are."""
    found = shutil.which("initdb")
    # The link may stand alone in its folder.
    places = [Path(found).resolve().parent] if found else []
    return next(iter([*places, *sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]]), None)


class Postgres(Service):
    """A new PostgreSQL cluster with one database, `mlflow`; root runs it as the user postgres."""

    def __init__(self, folder: Path) -> None:
        """Nothing starts yet."""
        super().__init__(folder)
        found = postgres_folder()
        assert found is not None
        self.programs = found
        self.is_root = os.geteuid() == 0
        # Not in pytest's folders, which only their owner may enter; its sockets' paths are short.
        self.data = Path(tempfile.mkdtemp(prefix="synq_tune_pg_"))
        if self.is_root:
            shutil.chown(self.data, "postgres")
        self._run("initdb", "-D", str(self.data), "-U", "synq", "--auth=trust", "--no-sync")

    @property
    def uri(self) -> str:
        """Of the database; SQLAlchemy 2.1 takes psycopg 3 where no driver is named."""
        return f"postgresql+psycopg2://synq@127.0.0.1:{self.port}/mlflow"

    def _as_user(self, program: str, *arguments: str) -> list[str]:
        root = ["runuser", "-u", "postgres", "--"] if self.is_root else []
        return [*root, str(self.programs / program), *arguments]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            self._as_user(program, *arguments), capture_output=True, text=True, cwd="/"
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self) -> list[str]:
        """The postmaster."""
        return self._as_user(
            "postgres", "-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port),
            "-k", str(self.data), "-F",
        )  # fmt: skip

    def start(self, seconds: float = 300.0) -> None:
        """Start it and make the database."""
        super().start(seconds)
        self._run("createdb", *self._where, "mlflow")

    @property
    def _where(self) -> tuple[str, ...]:
        return "-h", "127.0.0.1", "-p", str(self.port), "-U", "synq"

    def is_ready(self) -> bool:
        """It listens before it can answer."""
        asked = self._as_user("pg_isready", *self._where)
        return subprocess.run(asked, capture_output=True, cwd="/").returncode == 0

    def stop(self) -> None:
        """Its processes leave their group: it has to be told."""
        if self.process is not None and self.process.poll() is None:
            self._run("pg_ctl", "-D", str(self.data), "stop", "-m", "immediate")
            self.process.wait(60)
        shutil.rmtree(self.data, ignore_errors=True)


def need_s3() -> None:
    """Skip where the emulator or its client is missing."""
    for name in ("moto.server", "boto3"):
        pytest.importorskip(name, reason=f"needs {name}: uv pip install --group team")


def need_postgres() -> None:
    """Skip where PostgreSQL or its driver is missing."""
    if postgres_folder() is None:
        pytest.skip("needs PostgreSQL's initdb and postgres on this machine")
    pytest.importorskip("psycopg2", reason="needs psycopg2: uv pip install --group team")
