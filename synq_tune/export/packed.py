"""Write and read `model.packed.safetensors`: every code in exactly k bits.

A few long tensors hold one kind of value for all layers, so that the header stays small: `codes`
(each layer's bit stream, starting at a byte), `scales`, `zero_points` (ONNX's sign; absent when all
are 0), `activation_scales`, `activation_zero_points` (of codes counted from 0) and `floats`. Within
each, names are in alphabetical order; the metadata list them: `layers` {name: [bits, *shape]},
`activations` {name: bits}, `floats` {name: shape}, where `NAME.*` stands for the four tensors of a
BatchNorm. Nothing in the file is code: the library that the metadata name builds the network.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, fx

from synq_tune import own_code
from synq_tune.config import Teacher
from synq_tune.errors import InputError
from synq_tune.export.metadata import from_texts, preprocessing_of, to_texts
from synq_tune.export.packing import pack, packed_size, unpack
from synq_tune.graph.nodes import insert_after
from synq_tune.models.build import build_model
from synq_tune.models.verify import trace_checked
from synq_tune.quantization.base import quantizer_family
from synq_tune.quantization.frozen import (
    FROZEN_LAYERS,
    FrozenActivation,
    FrozenWeight,
    StandaloneModel,
    frozen_activations,
    frozen_layer,
    frozen_layers,
    remove_identities,
    replace_module,
)
from synq_tune.quantization.residual_bits import restore_branches
from synq_tune.quantization.student import ACTIVATION_PREFIX
from synq_tune.store import canonical_json, write_bytes

_BATCHNORM = ("bias", "running_mean", "running_var", "weight")
_ZERO_POINT_TYPES = (torch.int8, torch.int16, torch.int32)


def write_packed(model: StandaloneModel, metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write the model as packed integers.

    Returns:
        The metadata written: `metadata` with `containers` and the order of the tensors.

    Raises:
        InputError: the user's own quantizer rewrites graphs in a way of its own.
    """
    if metadata.get("prepared_as", "") is None:
        raise InputError(
            "`a packed file's quantizer prepares graphs as a built-in one does` must hold, but got "
            f"quantizer={metadata['quantizer']}. Its reader must not need your code."
        )
    tensors = _tensors(model.frozen)
    written = {
        **metadata,
        "containers": {"weights": "packed", "activations": "float"},
        "layers": {n: [w.bits, *w.codes.shape] for n, w in frozen_layers(model.frozen).items()},
        "activations": {n: a.bits for n, a in frozen_activations(model.frozen).items()},
        "floats": _collapse({n: list(t.shape) for n, t in float_tensors(model.frozen).items()}),
    }
    written["sha256"] = _digest(written, tensors)
    write_bytes(path, _canonical(save(tensors, metadata=to_texts(written))))
    return written


def float_tensors(frozen: fx.GraphModule) -> dict[str, Tensor]:
    """What the file keeps besides codes and grids: biases, BatchNorm and the like, by name."""
    weights = tuple(f"{name}.frozen_weight." for name in frozen_layers(frozen))
    grids = tuple(f"{name}." for name in frozen_activations(frozen))
    return {
        name: tensor
        for name, tensor in sorted(frozen.state_dict().items())
        if tensor.is_floating_point() and not name.startswith(weights + grids)
    }


def _collapse(shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    """Name the four tensors of a BatchNorm once: in a small network names outweigh values."""
    short = dict(shapes)
    for name in [n for n in shapes if n.endswith(".running_mean")]:
        prefix = name.removesuffix("running_mean")
        if all(shapes.get(prefix + part) == shapes[name] for part in _BATCHNORM):
            short[prefix + "*"] = [short.pop(prefix + part) for part in _BATCHNORM][0]
    return short


def _expand(shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    """Inverse of `_collapse`, in alphabetical order."""
    full = {}
    for name, shape in shapes.items():
        parts = _BATCHNORM if name.endswith(".*") else ("",)
        full |= {name.removesuffix("*") + part: shape for part in parts}
    return dict(sorted(full.items()))


def packed_bytes(frozen: fx.GraphModule) -> int:
    """Size in theory: k-bit codes, scales, zero points of a byte, grids and float tensors."""
    weights = frozen_layers(frozen).values()
    codes = sum(packed_size(w.codes.numel(), w.bits) for w in weights)
    grids = sum(5 * len(w.scale) for w in weights) + 5 * len(frozen_activations(frozen))
    return codes + grids + 4 * sum(t.numel() for t in float_tensors(frozen).values())


def float_bytes(frozen: fx.GraphModule) -> int:
    """Size of the full-precision network in float32."""
    weights = sum(w.codes.numel() for w in frozen_layers(frozen).values())
    return 4 * (weights + sum(t.numel() for t in float_tensors(frozen).values()))


def _tensors(frozen: fx.GraphModule) -> dict[str, Tensor]:
    weights = _in_order(frozen_layers(frozen))
    grids = _in_order(frozen_activations(frozen))
    tensors = {
        "codes": _joined(pack(w.codes, w.bits) for w in weights),
        "scales": _joined(w.scale for w in weights),
        "zero_points": _smallest(-_joined(w.zero_point for w in weights)),
        "activation_scales": _joined(a.scale for a in grids),
        "activation_zero_points": _unsigned(grids),
        "floats": _joined(t.float() for t in float_tensors(frozen).values()),
    }
    return {n: t for n, t in tensors.items() if n != "zero_points" or t.any()}


def _in_order(values: Mapping[str, Any]) -> list[Any]:
    return [value for _, value in sorted(values.items())]


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    parts = [tensor.detach().cpu().reshape(-1) for tensor in tensors]
    return torch.cat(parts) if parts else torch.zeros(0)


def _smallest(values: Tensor) -> Tensor:
    """Integer-valued floats in the smallest integer type that holds them, else unchanged."""
    for dtype in _ZERO_POINT_TYPES:
        # int32's largest value is no float32; the comparison of the round trip decides.
        if torch.equal(values.clamp(-(2.0**31), 2.0**31 - 128).to(dtype).float(), values):
            return values.to(dtype)
    return values


def _unsigned(grids: list[FrozenActivation]) -> Tensor:
    values = [2 ** (a.bits - 1) - int(a.zero_point) for a in grids]
    return torch.tensor(values, dtype=torch.uint8)


def _digest(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over everything the file says."""
    digest = hashlib.sha256(canonical_json(metadata).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype};".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _canonical(data: bytes) -> bytes:
    """The same safetensors with sorted header keys: the library writes metadata in random order."""
    length = int.from_bytes(data[:8], "little")
    header = canonical_json(json.loads(data[8 : 8 + length])).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def read_packed(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and tensors of a packed file, whole and unchanged.

    Raises:
        InputError: the file is truncated, changed or not ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: `the file is whole safetensors` must hold, but got: {error}."
        ) from error
    metadata = from_texts(texts, path)
    expected = metadata.pop("sha256", None)
    if _digest(metadata, tensors) != expected:
        raise InputError(
            f"{path}: `the content has the SHA-256 it was written with` must hold, but got "
            f"sha256={expected}. The file was changed or damaged; export it again."
        )
    return metadata, tensors


def build_packed(
    metadata: dict[str, Any], tensors: dict[str, Tensor], path: Path, python_model: str | None
) -> StandaloneModel:
    """The module of a file that `read_packed` has read, on the CPU.

    Args:
        metadata: of the file.
        tensors: of the file.
        path: the file, for messages.
        python_model: the user's own network as teacher.model; such code runs only when named here.

    Raises:
        InputError: the library builds another network than the file holds.
    """
    preprocessing = preprocessing_of(metadata, path)
    config = _teacher(metadata, path, python_model)
    # The file's tensors replace the network's: only its operations count here.
    graph = trace_checked(build_model(config), preprocessing, config.model, has_weights=False).graph
    remove_identities(graph)
    quantizer_family(metadata.get("prepared_as", metadata["quantizer"])).prepare(graph)
    try:
        _insert_activations(graph, metadata, tensors)
        _insert_weights(graph, metadata, tensors)
        _load_floats(graph, metadata, tensors)
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path}: `the installed library builds the exported network` must hold, but got: "
            f"{str(error).splitlines()[0]}. Install the versions it was exported with."
        ) from error
    return StandaloneModel(graph.requires_grad_(False).eval(), preprocessing).eval()


_LOADS_WEIGHTS = (
    "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "weights",
    "weights_backbone", "cache_dir", "root",
)  # fmt: skip
"""Arguments by which a library would read or download another file; ours has all the weights."""


def _teacher(metadata: dict[str, Any], path: Path, python_model: str | None) -> Teacher:
    try:
        kwargs = {k: v for k, v in metadata["kwargs"].items() if k not in _LOADS_WEIGHTS}
        config = Teacher(
            model=_allowed(metadata["model"], path, python_model),
            kwargs=kwargs,
            channels=metadata["channels"],
            num_classes=metadata["num_classes"],
        )
    except (ValidationError, AttributeError) as error:
        raise InputError(f"{path}: `metadata name a model` must hold: {error}.") from error
    return config


def _allowed(model: str, path: Path, python_model: str | None) -> str:
    """The model to build: the user's own code only where the user named the same, wherever it
    lies."""
    if not own_code.is_own_code(model):
        return model
    label = own_code.label(model)
    if python_model is None or own_code.label(python_model) != label:
        where = "FOLDER/" if own_code.parse(model).is_file else ""
        raise InputError(
            f"{path}: `the network's own code is named by you` must hold, but got "
            f"python_model={python_model!r}. To let it run pass --python-model {where}{label}."
        )
    return python_model


def _insert_activations(
    graph: fx.GraphModule, metadata: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    bits = metadata["activations"]
    restore_branches(graph, {name.removeprefix(ACTIVATION_PREFIX) for name in bits})
    nodes = {ACTIVATION_PREFIX + node.name: node for node in graph.graph.nodes}
    if not bits.keys() <= nodes.keys():
        raise ValueError(f"no tensor {', '.join(sorted(bits.keys() - nodes.keys())[:3])}")
    scales, zero_points = tensors["activation_scales"], tensors["activation_zero_points"]
    for i, (name, width) in enumerate(sorted(bits.items())):
        zero_point = 2.0 ** (width - 1) - zero_points[i].float()
        insert_after(graph, nodes[name], name, FrozenActivation(scales[i], zero_point, width))
    graph.recompile()


def _differing(built: Iterable[str], stored: Iterable[str]) -> str:
    names = sorted(set(built) ^ set(stored))
    return f"only one of the two has {', '.join(names[:3])}" if names else "the shapes differ"


def packed_codes(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Codes of each layer as int8, of a file that `read_packed` has read."""
    codes, start = {}, 0
    for name, (bits, *shape) in sorted(metadata["layers"].items()):
        end = start + packed_size(math.prod(shape), bits)
        codes[name] = unpack(tensors["codes"][start:end], bits, tuple(shape))
        start = end
    return codes


def _insert_weights(
    graph: fx.GraphModule, metadata: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    scales = tensors["scales"]
    zero_points = -tensors.get("zero_points", torch.zeros_like(scales)).float()
    start = 0
    for name, codes in packed_codes(metadata, tensors).items():
        layer, channels = graph.get_submodule(name), slice(start, start + len(codes))
        if type(layer) not in FROZEN_LAYERS or layer.weight.shape != codes.shape:
            raise ValueError(f"layer {name} is another one")
        bits = metadata["layers"][name][0]
        weight = FrozenWeight(codes, scales[channels], zero_points[channels], bits)
        replace_module(graph, name, frozen_layer(layer, weight))
        start += len(codes)


def _load_floats(
    graph: fx.GraphModule, metadata: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    own = float_tensors(graph)
    stored = _expand(metadata["floats"])
    if {n: list(t.shape) for n, t in own.items()} != stored:
        raise ValueError(f"float tensors: {_differing(own, stored)}")
    parts = tensors["floats"].split([math.prod(shape) for shape in stored.values()])
    for name, part in zip(stored, parts, strict=True):
        own[name].copy_(part.view(own[name].shape))
