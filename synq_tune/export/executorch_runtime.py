"""`model.pte` in ExecuTorch's runtime, and what its kernels make of the integers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synq_tune.errors import InputError
from synq_tune.export.compare import code_mismatches
from synq_tune.export.executorch_graph import Int8Network
from synq_tune.export.executorch_model import METADATA, Method, example, load_method, lowered
from synq_tune.export.metadata import from_texts
from synq_tune.export.options import HARDWARE, OnnxOptions
from synq_tune.export.runtime import ModelFile, batches_of, images_for
from synq_tune.quantization.frozen import StandaloneModel

_IMAGES, _PORTABLE_PIXELS = 32, 2**14
"""Checked by XNNPACK; pixels given to the portable kernels, which are slow."""


class PteFile(ModelFile):
    """A .pte file of ours."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        super().__init__(path, from_texts(_texts(content, path), path))
        self.method = load_method(content, path)

    @property
    def options(self) -> OnnxOptions:
        return HARDWARE

    def _logits(self, images: Tensor) -> Tensor:
        return _run(self.method, images_for(self, images), int(self.metadata["batch_size"]))

    def weight_codes(self) -> dict[str, Tensor]:
        return {}

    def activation_codes(self, images: Tensor) -> dict[str, Tensor]:
        return {}


def check_pte(path: Path, model: StandaloneModel, images: Tensor) -> dict[str, Any]:
    """Compare the codes of the logits with those of the same integers in PyTorch.

    Args:
        path: a file of `write_pte`.
        model: what it was written from.
        images: (N, C, H, W) in [0, 1]; the first few are taken.

    Returns:
        kernels (`XNNPACK`, as the file runs; `portable`, the same program without a delegate) →
        {`images`, and what `code_mismatches` counts}.
    """
    file = PteFile(path)
    scale, zero_point = file.metadata["logit_grid"]
    normalize = not file.metadata.get("normalized_input", False)
    network = Int8Network(model, (scale, zero_point), normalize).eval()
    portable = lowered(network, example(model, 1), file.metadata, on_xnnpack=False)
    few = max(1, _PORTABLE_PIXELS // (images.shape[2] * images.shape[3]))
    methods = {
        "XNNPACK": (file.method, file.metadata["batch_size"], images[:_IMAGES]),
        "portable": (load_method(portable, path), 1, images[:few]),
    }
    return {
        name: _counts(network, method, size, images_for(file, taken.cpu().float()), scale)
        for name, (method, size, taken) in methods.items()
    }


@torch.no_grad()
def _counts(
    network: Int8Network, method: Method, size: int, images: Tensor, scale: float
) -> dict[str, Any]:
    expected, actual = (
        {"logits": torch.round(logits / scale)}
        for logits in (network(images), _run(method, images, size))
    )
    return {"images": len(images), **code_mismatches(expected, actual)}


def _run(method: Method, images: Tensor, size: int) -> Tensor:
    parts = [method(batch.contiguous()) for batch in batches_of(images, size)]
    return torch.cat(parts)[: len(images)]


def _texts(content: bytes, path: Path) -> dict[str, str]:
    text = load_method(content, path, METADATA)()
    try:
        return json.loads(bytes(text.tolist()))
    except ValueError as error:
        raise InputError(f"{path}: `metadata is JSON` must hold, but got: {error}.") from error
