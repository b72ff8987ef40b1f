"""What MLflow serves is what was exported: a real server process answers real digits."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from synq_tune.data.digits import digits_half
from synq_tune.search.checkpoints import load_student
from synq_tune.store import sha256_file
from synq_tune.study.ledger import Ledger
from synq_tune.study.summary import best_run
from synq_tune.trial.assets import load_assets
from tests.crash.services import Service
from tests.crash.study import TinyStudy

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]


class ModelServer(Service):
    """`mlflow models serve` in the environment it is started from."""

    def __init__(self, folder: Path, model: str, store: str) -> None:
        """Nothing starts yet."""
        environment = {
            "MLFLOW_TRACKING_URI": store, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            # As where the environment is activated: it starts `uvicorn` by name.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip
        super().__init__(folder, environment)
        self.model = model

    def command(self) -> list[str]:
        """One worker."""
        return [
            sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", self.model,
            "--env-manager", "local", "--host", "127.0.0.1", "--port", str(self.port),
        ]  # fmt: skip

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Its answer to (N, C, H, W) images in [0, 1]."""
        body = json.dumps({"inputs": images.tolist()}).encode()
        request = urllib.request.Request(
            f"{self.url}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return np.array(json.load(answer)["predictions"]["logits"])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    """A finished study of the bundled digits network."""
    folder = tmp_path_factory.mktemp("serving") / "studies" / "digits"
    study = TinyStudy(folder, ["study.confirm=null"], num_trials=1)
    study.finish()
    return study


def _store(study: TinyStudy) -> str:
    return Ledger.open(study.folder, read_only=True).state.stages.tracking.uri


def _student_classes(study: TinyStudy, images: torch.Tensor) -> torch.Tensor:
    """What the PyTorch student says of images in [0, 1]."""
    state = Ledger.open(study.folder, read_only=True).state
    dataset = Path(state.stages.dataset.path)
    assets = load_assets(state.spec, dataset, dataset.parents[1], torch.device("cpu"))
    best = best_run(state)
    assert best is not None
    student = load_student(assets, best, study.folder).eval()
    with torch.no_grad():
        return student(assets.teacher.preprocessing.normalize(images)).argmax(1)


def test_a_served_model_names_the_class_of_a_digit(study: TinyStudy, tmp_path: Path) -> None:
    """`mlflow models serve` on the registered best: the student's classes, with pickle forbidden."""
    images = digits_half("test").images[:64].float() / 255
    server = ModelServer(tmp_path, "models:/synq-tune-digits_w3a3@best", _store(study))
    server.start()
    try:
        one = server.logits(images[:1].numpy())
        many = server.logits(images.numpy())
    finally:
        server.stop()
    assert one.shape == (1, 10) and many.shape == (64, 10)
    assert one.argmax() == many[0].argmax()
    assert many.argmax(1).tolist() == _student_classes(study, images).tolist()


def test_a_registered_model_is_the_exported_file(
    study: TinyStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version holds the ONNX file of `best/`, no pickle, and pinned requirements without torch."""
    import mlflow

    state = Ledger.open(study.folder, read_only=True).state
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _store(study))
    folder = Path(mlflow.artifacts.download_artifacts(
        "models:/synq-tune-digits_w3a3@best", dst_path=str(tmp_path)
    ))  # fmt: skip
    assert sha256_file(folder / "model.onnx") == state.stages.best.files["model.onnx"]
    assert not [*folder.rglob("*.pkl"), *folder.rglob("*.pt"), *folder.rglob("*.pth")]
    pinned = (folder / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in pinned] == [
        "mlflow", "onnx", "onnxruntime", "numpy",
    ]  # fmt: skip
    assert mlflow.models.Model.load(str(folder)).flavors["python_function"]["loader_module"] == (
        "mlflow.onnx"
    )


class Pickled:
    """Stands for any model that MLflow would have to unpickle."""

    def predict(self, context, model_input, params=None):
        """Nothing of interest."""
        return model_input


def test_the_switch_that_forbids_pickle_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable that the served model gets by with refuses a pickled one in this MLflow."""
    import mlflow.pyfunc

    class Model(Pickled, mlflow.pyfunc.PythonModel):
        pass

    mlflow.pyfunc.save_model(tmp_path / "model", python_model=Model(), pip_requirements=[])
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    with pytest.raises(mlflow.exceptions.MlflowException, match="pickle is disallowed"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))
