"""Write `model.tflite`: integers from the input's grid to the logits', for LiteRT's kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from synq_tune.errors import InputError
from synq_tune.export.hardware import prepared
from synq_tune.export.logit_range import logit_range
from synq_tune.export.metadata import to_texts
from synq_tune.export.options import HARDWARE
from synq_tune.export.tflite_arithmetic import FAMILIES
from synq_tune.export.tflite_interpreter import KERNELS, in_int8, opened
from synq_tune.export.tflite_layers import container_of
from synq_tune.export.tflite_schema import is_installed, schema, to_bytes
from synq_tune.export.tflite_translate import Translation
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.quantization.frozen import StandaloneModel, frozen_activations, frozen_layers
from synq_tune.store import canonical_json, write_bytes

METADATA = "synq_tune"


def write_tflite(
    model: StandaloneModel, metadata: dict[str, Any], path: Path, images: Tensor | None = None
) -> dict[str, Any]:
    """Write the model as one .tflite file.

    Args:
        model: frozen student of `quantizer: deploy`, or of another whose grids integer hardware can
            run.
        metadata: of `describe`.
        path: the file.
        images: (N, C, H, W) in [0, 1], synthetic; the grid of the logits is found on them. None
            takes noise.

    Returns:
        The metadata written: `metadata` with the `containers`, `layers` and `activations`.

    Raises:
        InputError: the extra `litert` is missing, a weight or an operation reads no grid, or the
            runtime has no operator; the message names the layer.
    """
    schema()  # a missing extra is said first
    frozen = prepared(model.frozen, HARDWARE)
    written = Translation(frozen.cpu(), model.preprocessing, logit_range(model, images))
    build = written.builder
    tensors = {n: build.graph.tensors[v.index].name for n, v in written.activations.items()}
    build.drop_unread()
    build.model.description = "synq-tune"
    grids = {name: tensors.get(name) for name in frozen_activations(model.frozen)}
    about = _described(metadata, written, frozen, grids)
    build.describe(METADATA, canonical_json(to_texts(about)))
    write_bytes(path, to_bytes(build.model))
    return about


def fits_tflite(frozen: fx.GraphModule) -> bool:
    """Whether the extra is there, and both families of kernels take the network."""
    if not is_installed():
        return False
    try:
        written = Translation(prepared(frozen, HARDWARE).cpu(), _unscaled(frozen), (0.0, 1.0))
        written.builder.drop_unread()
        content = to_bytes(written.builder.model)
        for family in FAMILIES:
            opened(content if family == "fixed" else in_int8(content), KERNELS[family])
    except (InputError, RuntimeError, ValueError):
        return False
    return True


def _unscaled(frozen: fx.GraphModule) -> Preprocessing:
    """An input of the network's shape, taken as it is."""
    node = next(node for node in frozen.graph.nodes if node.op == "placeholder")
    _, channels, height, width = node.meta["shape"]
    plain = (0.0,) * channels, (1.0,) * channels
    return Preprocessing(height, width, channels, *plain, 1.0, "bilinear")


def _described(
    metadata: dict[str, Any],
    written: Translation,
    frozen: torch.nn.Module,
    grids: dict[str, str | None],
) -> dict[str, Any]:
    weights = frozen_layers(frozen)
    there = {tensor.name for tensor in written.builder.graph.tensors}
    layers = {name: flat for name, flat in written.layers.items() if f"{name}.weight" in there}
    values = {n: written.activations[n] for n, tensor in grids.items() if tensor in there}
    left_out = (weights.keys() | grids.keys()) - layers.keys() - values.keys()
    return {
        **metadata,
        "containers": {
            "weights": {name: container_of(weights[name]) for name in layers},
            "activations": "INT8",
        },
        "layout": "NHWC",
        "layers": layers,
        "activations": {
            name: {"tensor": grids[name], "lowest": value.grid.low, "flat": value.flat}
            for name, value in values.items()
        },
        **({"left_out": sorted(left_out)} if left_out else {}),
    }
