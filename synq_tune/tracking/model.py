"""The exported student as an MLflow model: written without running it, uploaded once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient


def save_model(
    model: Any,
    path: Path,
    run_id: str,
    input_example: np.ndarray,
    keep_example: bool,
    extra_files: Sequence[Path],
) -> Any:
    """Write an MLflow model folder; nothing is inferred from a run of it or downloaded.

    Args:
        model: `onnx.ModelProto`.
        path: of the new folder.
        run_id: the run it comes from.
        input_example: (n, C, H, W) float32.
        keep_example: whether the folder holds it, too.
        extra_files: copied next to the model.

    Returns:
        MLflow's description of it, `mlflow.models.Model`.
    """
    import mlflow.onnx
    from mlflow.models import Model

    description = Model(run_id=run_id)
    mlflow.onnx.save_model(
        model,
        path,
        mlflow_model=description,
        signature=_signature(model, input_example),
        input_example=input_example if keep_example else None,
        pip_requirements=_requirements(),
        # MLflow's default names CUDA first, which warns on every load without a GPU.
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
        extra_files=[str(file) for file in extra_files] or None,
    )
    return description


def _requirements() -> list[str]:
    """What a server of the model installs; written out, because MLflow would infer it by a run."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("mlflow", "onnx", "onnxruntime", "numpy")]


def _signature(model: Any, input_example: np.ndarray) -> Any:
    """Any number of images in, logits by the graph's own output name out."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    output = next(islice(model.graph.output, 1))
    classes = [d.dim_value or -1 for d in output.type.tensor_type.shape.dim][1:]
    images = TensorSpec(np.dtype(np.float32), (-1, *input_example.shape[1:]))
    logits = TensorSpec(np.dtype(np.float32), (-1, *classes), output.name)
    return ModelSignature(Schema([images]), Schema([logits]))


def logged_model(client: MlflowClient, experiment_id: str, run_id: str, sha256: str) -> str | None:
    """Id of the run's model whose file is `sha256`, if it is uploaded whole."""
    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    same = (m for m in found if m.tags.get("synq.sha256") == sha256 and m.status == "READY")
    return next((m.model_id for m in same), None)


def upload_model(
    client: MlflowClient, experiment_id: str, description: Any, path: Path, tags: dict[str, str]
) -> str:
    """Log a model folder, see `save_model`; returns the model's id."""
    from mlflow.entities import LoggedModelOutput

    run_id = description.run_id
    logged = client.create_logged_model(experiment_id, "best", run_id, tags, model_type="onnx")
    description.model_id = description.model_uuid = logged.model_id
    description.artifact_path = logged.artifact_location
    description.save(str(path / "MLmodel"))
    client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_id
