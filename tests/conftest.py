"""Shared small things: real teachers, a real dataset, the path of data beside the project."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Tests run side by side on every core: Ray's workers, which step back behind all others, would
# starve, and threads that wait for each other by spinning would keep the cores from the rest.
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from synq_tune.config import StudySpec  # noqa: E402
from synq_tune.config.load import load_space  # noqa: E402
from synq_tune.models.teacher import LoadedTeacher, load_teacher  # noqa: E402
from synq_tune.store import once  # noqa: E402
from synq_tune.study.ledger import Ledger  # noqa: E402
from tests.helpers import small_search  # noqa: E402

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test draws the same random numbers and uses one thread."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session", autouse=True)
def _hears_hangups() -> Iterator[None]:
    """Under nohup SIGHUP is ignored, which every process that a test starts would inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real images and teachers beside the project; tests that need it skip without."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no shared data beside the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def spec() -> StudySpec:
    """The bundled study of digits at 3 bits."""
    return load_space("digits_w3a3")


@pytest.fixture(scope="session")
def teacher() -> LoadedTeacher:
    """The bundled teacher, loaded once; tests leave it as it is."""
    return load_teacher(load_space("digits_w3a3").teacher)


@pytest.fixture(scope="session")
def digits(teacher: LoadedTeacher) -> LoadedTeacher:
    """The bundled teacher, where others stand beside it."""
    return teacher


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small study run to its end, once for all test processes: its folder and what it printed.

    Its store and MLflow's database lie beside it. Nobody changes it.
    """
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "finished"
    place.mkdir(exist_ok=True)
    once(place / "printed", lambda printed: _run_study(place / "first", printed))
    return place / "first", (place / "printed").read_text()


def _run_study(folder: Path, printed: Path) -> None:
    done = small_search(folder, "--max-concurrent", "1")
    assert done.returncode == 0, done.stderr
    printed.write_text(done.stdout)


@pytest.fixture
def ledger(tmp_path: Path, spec: StudySpec) -> Ledger:
    """A new study without a run."""
    return Ledger.create(tmp_path / "study", spec)
