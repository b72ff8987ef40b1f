"""Golden vectors: inputs with the values they must give, for whoever ports a model file."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synq_tune.errors import InputError
from synq_tune.export.compare import LogitComparison, code_mismatches
from synq_tune.export.hardware import prepared, reads_integers
from synq_tune.export.options import HARDWARE
from synq_tune.export.runtime import ModelFile
from synq_tune.quantization.frozen import StandaloneModel, activation_codes, frozen_layers
from synq_tune.store import atomic_path

NUM_IMAGES = 32
_MAX_ACTIVATION_BYTES = 16 * 2**20
_WEIGHT, _ACTIVATION = "weight/", "activation/"
_ABSORBED = "absorbed_weight/"


def write_golden(model: StandaloneModel, images: Tensor, path: Path) -> None:
    """Write the golden vectors of a model.

    Arrays: `images` (N, C, H, W) float32 as the model file takes them, `logits` (N, K),
    `weight/LAYER` int8 codes, `activation/NAME` uint8 codes counted from 0, of the first images
    only where those of all would be large. Where integer hardware can run the network, also
    `absorbed_weight/LAYER` for layers whose codes change when BatchNorm goes into them.

    Args:
        model: frozen student with its normalisation.
        images: in the model file's domain; the first `NUM_IMAGES` are taken.
        path: an `.npz` file.
    """
    images = images[:NUM_IMAGES].to(model.mean.device).float()
    with torch.no_grad():
        arrays = {"images": images, "logits": model(images)}
    arrays |= {_WEIGHT + n: w.codes for n, w in frozen_layers(model.frozen).items()}
    arrays |= {_ABSORBED + n: c for n, c in _changed_codes(model).items()}
    arrays |= {_ACTIVATION + n: c for n, c in _first_codes(model, images).items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **{name: a.cpu().numpy() for name, a in arrays.items()})


def _changed_codes(model: StandaloneModel) -> dict[str, Tensor]:
    """Codes that differ in `model.hardware.onnx`, if the network can have one."""
    if not reads_integers(model.frozen):
        return {}
    own, new = frozen_layers(model.frozen), frozen_layers(prepared(model.frozen, HARDWARE))
    return {n: w.codes for n, w in new.items() if not torch.equal(w.codes, own[n].codes)}


def _first_codes(model: StandaloneModel, images: Tensor) -> dict[str, Tensor]:
    normalised = (images - model.mean) / model.std
    one = activation_codes(model.frozen, normalised[:1])
    per_image = sum(codes.numel() for codes in one.values())
    count = max(1, math.floor(_MAX_ACTIVATION_BYTES / max(per_image, 1)))
    return activation_codes(model.frozen, normalised[:count])


def read_golden(path: Path) -> dict[str, Tensor]:
    """Arrays of a golden file by name.

    Raises:
        InputError: the file is missing, damaged, or holds no golden vectors.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: `the golden file is a whole npz of arrays` must hold, but got: {error}."
        ) from error
    missing = {"images", "logits"} - golden.keys()
    if missing:
        raise InputError(
            f"{path}: `a golden file has images and logits` must hold, but it lacks "
            f"{' and '.join(sorted(missing))}. Use the golden.npz of an export."
        )
    return golden


def check_golden(model: ModelFile, path: Path) -> dict[str, Any]:
    """Compare a model file with golden vectors.

    Returns:
        {`weight_codes`, `activation_codes`: counts of differing codes, `logits`: see
        LogitComparison}. Weight codes must be identical; an activation code may differ where a
        runtime adds floats in another order and a value lies next to a rounding edge.
    """
    golden = read_golden(path)
    comparison = LogitComparison()
    comparison.add(golden["logits"], model.logits(golden["images"]))
    codes = _named(golden, _ACTIVATION)
    count = len(next(iter(codes.values()), ()))
    weights = _named(golden, _WEIGHT)
    if model.options.absorb_batchnorm:
        weights |= _named(golden, _ABSORBED)
    weights, codes = (
        {name: tensor for name, tensor in named.items() if name not in model.left_out}
        for named in (weights, codes)
    )
    return {
        "weight_codes": code_mismatches(weights, model.weight_codes()),
        "activation_codes": code_mismatches(codes, _codes(model, golden["images"][:count])),
        "logits": comparison.report(),
    }


def _named(golden: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in golden.items() if n.startswith(prefix)}


def _codes(model: ModelFile, images: Tensor) -> dict[str, Tensor]:
    return model.activation_codes(images) if len(images) else {}
