"""The exported student as an MLflow model: written without running it, uploaded once."""

from __future__ import annotations

import re
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


def model_name(text: str) -> str:
    """A name that MLflow takes for a logged model."""
    return re.sub(r"[/:.%\"']", "_", text) or "model"


def upload_model(
    client: MlflowClient,
    experiment_id: str,
    description: Any,
    path: Path,
    name: str,
    tags: dict[str, str],
    params: dict[str, str],
) -> Any:
    """Log a model folder as a model of its run, unless the same file is one already.

    An upload that did not get to its end is gone on with: it leaves no second, empty model.

    Args:
        client: of a store.
        experiment_id: of the run.
        description: what `save_model` returned.
        path: the folder.
        name: of a new model.
        tags: of the model; `synq.sha256` of the model file is one of them.
        params: of a new model.

    Returns:
        MLflow's `LoggedModel`.
    """
    run_id = description.run_id
    model = _logged_model(client, experiment_id, run_id, tags["synq.sha256"])
    if model is None:
        made = name, run_id, tags, params, "onnx"
        model = client.create_logged_model(experiment_id, *made)
    if model.status != "READY":
        description.model_id = description.model_uuid = model.model_id
        description.artifact_path = model.artifact_location
        description.save(str(path / "MLmodel"))
        client.log_model_artifacts(model.model_id, str(path))
        model = client.finalize_logged_model(model.model_id, "READY")
    _link(client, run_id, model.model_id)
    return client.get_logged_model(model.model_id)


def _logged_model(client: MlflowClient, experiment_id: str, run_id: str, sha256: str) -> Any:
    """The run's model of this file, a whole one rather than one begun; None if there is neither."""
    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    same = [model for model in found if model.tags.get("synq.sha256") == sha256]
    return min(same, key=lambda model: model.status != "READY", default=None)


def _link(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Show the model with its run, once."""
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run_id).outputs
    if model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
