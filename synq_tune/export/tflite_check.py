"""Whether the interpreter computes a .tflite file as the reference of its kernels does, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synq_tune.export.compare import code_mismatches
from synq_tune.export.tflite_arithmetic import FAMILIES, Family
from synq_tune.export.tflite_reference import reference_codes
from synq_tune.export.tflite_runtime import TfliteFile
from synq_tune.export.tflite_schema import operators, parsed, schema

_PIXELS = 2**18
"""Of the images checked: every value of every layer is kept."""


def check_kernels(path: Path, images: Tensor) -> dict[str, Any]:
    """Compare every int8 tensor with the reference's, by family of kernels.

    Args:
        path: a file of `write_tflite`.
        images: (N, C, H, W) in [0, 1]; as many of the first as `_PIXELS` allow.

    Returns:
        family → {`images`, and what `code_mismatches` counts, tensors by name}.
    """
    count = max(1, _PIXELS // (images.shape[2] * images.shape[3]))
    return {family: _check(path, images[:count].cpu(), family) for family in FAMILIES}


@torch.no_grad()
def _check(path: Path, images: Tensor, family: Family) -> dict[str, Any]:
    file = TfliteFile(path, family)
    model = parsed(file.content, path)
    run, reference = file.run(images, keeps=True), reference_codes(model, images, family)
    tensors, int8 = model.subgraphs[0].tensors, schema().TensorType.INT8
    made = [int(node.outputs[0]) for _, node in operators(model)]
    named = {tensors[i].name.decode(): i for i in made if tensors[i].type == int8}
    actual = {n: torch.from_numpy(np.array(run.get_tensor(i))).long() for n, i in named.items()}
    counts = code_mismatches({n: reference[i] for n, i in named.items()}, actual)
    return {"images": len(images), **counts}
