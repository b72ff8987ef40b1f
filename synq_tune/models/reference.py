"""What a network says about a few random images, before anything is done to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synq_tune.errors import InputError
from synq_tune.graph.hooks import watched
from synq_tune.graph.trace import first_line
from synq_tune.models.blame import TOLERANCE, distance, first_difference, first_non_finite
from synq_tune.models.outputs import Path, described, find_logits, read
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.notes import counted

FEW, MORE = 2, 3
"""Two batch sizes: what counts the images while it is traced shows at the second."""
_SEED = 0


@dataclass(frozen=True)
class Reference:
    """Images and the logits of the network as it was given."""

    images: Tensor
    """(MORE, C, H, W), normalised; the network saw the first `FEW`."""
    logits: Tensor
    """(FEW, K)"""
    path: Path
    """The way from the network's output to its logits."""
    notes: tuple[str, ...]
    speaking: frozenset[int]
    """Ids of the hooks that returned a value."""
    writes_images: bool
    """Whether the network changes the images it is given."""


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Inside, random numbers are drawn from a seed of their own and no graph is kept."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(_SEED)
        yield


def device_of(model: nn.Module) -> torch.device:
    """Where the network's tensors lie."""
    tensor = next(model.parameters(), next(model.buffers(), torch.zeros(())))
    return tensor.device


def random_images(preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """Noise (MORE, C, H, W) over the range of real images, normalised."""
    generator = torch.Generator().manual_seed(_SEED)
    pixels = torch.rand(MORE, *preprocessing.shape, generator=generator)
    return preprocessing.normalize(pixels).to(device)


def ask(model: nn.Module, images: Tensor, name: str) -> Reference:
    """Run the network on the first `FEW` images.

    Args:
        model: in evaluation mode.
        images: (MORE, C, H, W).
        name: what errors call the network.

    Raises:
        InputError: it does not run on such images, or gives no logits (N, K).
    """
    few = images[:FEW]
    with watched(model) as speaking:
        given = few.clone()
        output = run(model, given)
    path = find_logits(output)
    if path is None:
        raise InputError(
            f"`the network gives logits (N, K)` must hold, but got {type(output).__name__} from "
            f"{name!r}."
        )
    logits = read(output, path)
    _check_shape(logits, len(few), name)
    notes = (described(output, path),) if path else ()
    return Reference(images, logits, path, notes, frozenset(speaking), given._version > 0)


def run(model: nn.Module, images: Tensor) -> Any:
    """The network's output.

    Raises:
        InputError: whatever the network's own code raises, as one line.
    """
    try:
        return model(images)
    except Exception as error:  # whatever the network's own code raises
        raise InputError(
            f"`the network takes inputs {list(images.shape[1:])}` must hold for a batch of "
            f"{len(images)}, but {type(model).__name__} raised {type(error).__name__}: "
            f"{first_line(error)}. teacher.input_size and teacher.channels say what it is given."
        ) from error


def _check_shape(logits: Tensor, count: int, name: str) -> None:
    shape = tuple(logits.shape)
    if len(shape) < 3 and shape[1:] in ((), (1,)) and shape[:1] == (count,):
        raise InputError(
            f"`num_classes >= 2` must hold, but got one logit per image from {name!r}, whose softmax "
            "is 1 for every image. For a network with a sigmoid z, return two logits: "
            "torch.cat([torch.zeros_like(z), z], 1)."
        )
    if len(shape) != 2 or shape[0] != count or not logits.is_floating_point():
        kind = "" if logits.is_floating_point() else f" of {logits.dtype}"
        raise InputError(
            f"`the network gives logits (N, K)` must hold, but got {shape}{kind} for "
            f"{counted(count, 'image')} from {name!r}."
        )


def check_repeats(model: nn.Module, reference: Reference, name: str) -> None:
    """Run the network a second time on the same images.

    Raises:
        InputError: it gives something else, or values that are not finite.
    """
    images, first = reference.images[:FEW], reference.logits
    _check_finite(model, images, first, name)
    if distance(read(run(model, images.clone()), reference.path), first) <= TOLERANCE:
        return
    where = first_difference(model, images, images)
    raise InputError(
        f"`the network gives the same logits for the same images` must hold, but got others the "
        f"second time from {name!r}{where}. In evaluation, dropout, random numbers and whatever "
        "forward remembers must be off."
    )


def _check_finite(model: nn.Module, images: Tensor, logits: Tensor, name: str) -> None:
    if not logits.isfinite().all():
        raise InputError(
            f"`the logits are finite` must hold, but got {_bad(logits)} from {name!r}"
            f"{first_non_finite(model, images)}."
        )


def _bad(values: Tensor) -> str:
    return "NaN" if values.isnan().any() else "infinity"


def check_tensors(model: nn.Module, name: str) -> None:
    """Refuse NaN in any tensor, and infinity in parameters and statistics; a mask may hold -inf.

    Raises:
        InputError: names every one.
    """
    parameters = [(path, tensor, True) for path, tensor in model.named_parameters()]
    buffers = [
        (p, t, p.endswith(("running_mean", "running_var"))) for p, t in model.named_buffers()
    ]
    bad = [
        f"{path} ({int((~tensor.isfinite()).sum())} of {tensor.numel()} values)"
        for path, tensor, is_strict in parameters + buffers
        if tensor.is_floating_point()
        and (tensor.isnan() if not is_strict else ~tensor.isfinite()).any()
    ]
    if bad:
        raise InputError(
            f"`parameters and buffers are finite` must hold, but got NaN or infinity in "
            f"{', '.join(bad)} of {name!r}. The checkpoint is damaged, or its training diverged."
        )
