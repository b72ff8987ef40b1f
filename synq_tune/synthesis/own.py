"""A synthesis method of the user's own: called by name, its answer checked before it is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synq_tune import own_code
from synq_tune.config import Synthesis
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.notes import counted
from synq_tune.synthesis.method import GeneratedImages, Synthesizer
from synq_tune.synthesis.optimize import device_of, seeded_torch


def own_synthesizer(name: str) -> Synthesizer:
    """The user's `SynthesisMethod`, or a function `(teacher, config, folder, show)`.

    A function returns GeneratedImages or (images, labels).

    Raises:
        InputError: neither can be loaded.
    """
    found = own_code.find_object(name)
    return OwnMethod(name, found if isinstance(found, Synthesizer) else _Function(name))


class OwnMethod(Synthesizer):
    """A method of the user's, seeded, checked, and filed under its source."""

    def __init__(self, name: str, method: Synthesizer) -> None:
        self._name, self._method = name, method
        self.needs, self.is_perturbed = method.needs, method.is_perturbed

    def address(self, config: Synthesis) -> dict[str, Any]:
        """The method's settings and its file's source."""
        return {**self._method.address(config), "method": own_code.identity(self._name)}

    def steps(self, config: Synthesis, num_classes: int) -> int:
        """What the method says."""
        return self._method.steps(config, num_classes)

    def canvas_bytes_of(self, teacher: LoadedTeacher, config: Synthesis) -> int:
        """What the method says."""
        return self._method.canvas_bytes_of(teacher, config)

    def check(self, teacher: LoadedTeacher) -> None:
        """What the method checks."""
        self._method.check(teacher)

    def synthesize(
        self, teacher: LoadedTeacher, config: Synthesis, folder: Path, show: bool
    ) -> GeneratedImages:
        """The method's answer, checked."""
        folder.mkdir(parents=True, exist_ok=True)
        return run_seeded(self._method.synthesize, teacher, config, folder, show)


class _Function(Synthesizer):
    """A function by name."""

    def __init__(self, name: str) -> None:
        self._function = own_code.load(name)

    def address(self, config: Synthesis) -> dict[str, Any]:
        """Every setting, as nobody knows which the function reads."""
        return config.address()

    def synthesize(
        self, teacher: LoadedTeacher, config: Synthesis, folder: Path, show: bool
    ) -> Any:
        """Whatever the function returns."""
        return self._function(teacher, config, folder, show)


def run_seeded(
    function: Callable[..., Any],
    teacher: LoadedTeacher,
    config: Synthesis,
    folder: Path,
    show: bool = False,
) -> GeneratedImages:
    """Call a method with torch's generators seeded by `synthesis.seed`, and check its answer."""
    with seeded_torch(config.seed, device_of(teacher)):
        return checked_images(function(teacher, config, folder, show), teacher, config)


def checked_images(answer: Any, teacher: LoadedTeacher, config: Synthesis) -> GeneratedImages:
    """A method's answer as a draft on the CPU, float16 images and int64 labels.

    Args:
        answer: a GeneratedImages, or (images, labels): (N, C, H, W) float32 or float16, normalised,
            and (N,) integers in [0, K), N = num_images + num_holdout.

    Raises:
        InputError: one line that says what is wrong.
    """
    if not isinstance(answer, GeneratedImages):
        if not isinstance(answer, (tuple, list)) or len(answer) != 2:
            raise _wrong(
                config, "it returns a GeneratedImages or (images, labels)", type(answer).__name__
            )
        answer = GeneratedImages(*answer, notes={})
    count = config.num_images + config.num_holdout
    images = _checked_images(answer.images, (count, *teacher.preprocessing.shape), config)
    labels = _checked_labels(answer.labels, count, teacher.num_classes, config)
    return GeneratedImages(images, labels, answer.notes)


def _checked_images(images: Any, shape: tuple[int, ...], config: Synthesis) -> Tensor:
    if not isinstance(images, Tensor) or images.dtype not in (torch.float32, torch.float16):
        found = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise _wrong(config, "images are a float32 or float16 tensor", found)
    if tuple(images.shape) != shape:
        wanted = f"images.shape == {shape} (num_images + num_holdout first)"
        raise _wrong(config, wanted, tuple(images.shape))
    images = images.detach().to("cpu", torch.float16).contiguous()
    broken = (~images.isfinite().flatten(1).all(1)).sum().item()
    if broken:
        raise _wrong(
            config, "images are finite in float16", f"{counted(broken, 'image')} that are not"
        )
    return images


def _checked_labels(labels: Any, count: int, num_classes: int, config: Synthesis) -> Tensor:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        found = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise _wrong(config, "labels are a tensor of integers", found)
    if tuple(labels.shape) != (count,):
        raise _wrong(config, f"labels.shape == ({count},)", tuple(labels.shape))
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise _wrong(config, f"0 <= label < {num_classes}", f"labels from {low} to {high}")
    return labels.detach().to("cpu", torch.int64).contiguous()


def _wrong(config: Synthesis, invariant: str, found: object) -> InputError:
    return InputError(
        f"synthesis.method {config.method}: `{invariant}` must hold, but got {found}."
    )
