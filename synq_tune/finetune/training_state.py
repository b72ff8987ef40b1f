"""A run's training at the end of an epoch, as bytes: what it takes to continue as if never stopped.

One safetensors blob holds the student, the optimizer's moments, the sizes its rates are relative to
and torch's generators; its metadata, as JSON, the epoch and the optimizer's groups. The schedule
and the order of images follow from the epoch alone. Nothing in it is a pickle.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

FORMAT = 2
"""1, of versions whose learned scales were parameters themselves, is not read: such a trial starts
again."""
_META = "synq_tune"


def tensor_bytes(tensors: dict[str, Tensor], about: dict[str, Any] | None = None) -> bytes:
    """Tensors of any device as a safetensors file, with `about` (JSON values) in its metadata."""
    # A copy of each: safetensors refuses tensors that share memory, as tied weights do.
    plain = {name: value.detach().cpu().clone() for name, value in tensors.items()}
    return save(plain, {_META: json.dumps(about)} if about is not None else None)


def about(data: bytes) -> dict[str, Any]:
    """What `pack` was told, without reading the tensors: {format, epoch, groups, …}.

    Raises:
        ValueError: these are not the bytes of a training state of this format.
    """
    length = int.from_bytes(data[:8], "little")
    try:
        found = json.loads(json.loads(bytes(data[8 : 8 + length]))["__metadata__"][_META])
    except (ValueError, KeyError) as error:
        raise ValueError(f"`the bytes are a training state` must hold, but got {error}.") from error
    if found["format"] != FORMAT:
        raise ValueError(
            f"`format == {FORMAT}` must hold, but got format={found['format']}, of another version."
        )
    return found


def pack_stage(
    student: nn.Module,
    stage: str,
    position: int,
    parts: dict[str, Tensor],
    source: dict[str, Tensor] | None = None,
    **more: Any,
) -> bytes:
    """The state of a stage before fine-tuning, behind its part number `position`.

    Args:
        parts: the stage's own tensors, to be found again by `own_tensors(data, stage)`.
        source: as in `pack`.
        more: JSON values to find again in `about`.
    """
    info = {"format": FORMAT, "epoch": 0, "stage": stage, "position": position, **more}
    own = {**_prefixed(stage, parts), **_prefixed("source", source or {})}
    return tensor_bytes({**_of_student(student), **own}, info)


def own_tensors(data: bytes, owner: str) -> dict[str, Tensor]:
    """What `pack` or `pack_stage` was given for `owner`, by name; on the CPU."""
    return _of(load(bytes(data)), f"{owner}/")


def restore_student(data: bytes, student: nn.Module) -> None:
    """Bring a fresh student and torch's generators to the state in `data`, of any stage."""
    tensors = load(bytes(data))
    student.load_state_dict(_of(tensors, "student/"))
    _set_generators(_of(tensors, "generator/"), student)


def _of_student(student: nn.Module) -> dict[str, Tensor]:
    return {
        **_prefixed("student", student.state_dict()),
        **_prefixed("generator", _generators(student)),
    }


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in tensors.items()}


def pack(
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    source: dict[str, Tensor] | None = None,
    **more: Any,
) -> bytes:
    """The state of a training that has finished `epoch` epochs.

    Args:
        source: state of the batches' source, to be found again by `own_tensors(data, "source")`.
        more: JSON values to find again in `about`.
    """
    names = {parameter: name for name, parameter in student.named_parameters()}
    tensors = {**_of_student(student), **_prefixed("source", source or {})}
    for parameter, slots in optimizer.state.items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{slot}/{names[parameter]}"] = value
    for group in optimizer.param_groups:
        for parameter, size in zip(group["params"], group["sizes"], strict=False):
            tensors[f"sizes/{names[parameter]}"] = size
    groups = [
        {
            "params": [names[p] for p in group["params"]],
            "lr_factor": group["lr_factor"],
            "weight_decay": group["weight_decay"],
        }
        for group in optimizer.param_groups
    ]
    return tensor_bytes(tensors, {"format": FORMAT, "epoch": epoch, "groups": groups, **more})


def restore(data: bytes, student: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bring a fresh student and its optimizer to the state in `data`; returns the epochs done.

    Args:
        data: of `pack`, for the same teacher, bits, quantizer and settings.
        student: quantized; it need not be calibrated.
        optimizer: of the student; its groups are replaced, because a relative learning rate follows
            from the weights as they were at the start.

    Raises:
        ValueError: see `about`.
        RuntimeError: the student is of another shape.
    """
    info = about(data)
    tensors = load(bytes(data))
    student.load_state_dict(_of(tensors, "student/"))
    parameters = dict(student.named_parameters())
    optimizer.param_groups.clear()
    optimizer.state.clear()
    sizes = _of(tensors, "sizes/")
    for group in info["groups"]:
        members = [parameters[name] for name in group["params"]]
        of = [sizes[n].to(parameters[n].device) for n in group["params"] if n in sizes]
        optimizer.add_param_group({**group, "params": members, "sizes": of})
    for key, value in _of(tensors, "optimizer/").items():
        slot, _, name = key.partition("/")
        optimizer.state[parameters[name]][slot] = value.to(parameters[name].device)
    _set_generators(_of(tensors, "generator/"), student)
    return info["epoch"]


def _of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _device(student: nn.Module) -> torch.device:
    return next(student.parameters()).device


def _generators(student: nn.Module) -> dict[str, Tensor]:
    """States of torch's global generators; only code of the user's own draws from them."""
    states = {"cpu": torch.get_rng_state()}
    if _device(student).type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(_device(student))
    return states


def _set_generators(states: dict[str, Tensor], student: nn.Module) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and _device(student).type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], _device(student))
