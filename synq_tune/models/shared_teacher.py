"""A teacher's tensors as one file of the store, for machines that have neither file nor network."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from synq_tune.config import Teacher, Weights
from synq_tune.errors import InputError
from synq_tune.models.build import BUNDLED_WEIGHTS
from synq_tune.models.teacher import LoadedTeacher, load_network
from synq_tune.store import content_address, once


def share_teacher(teacher: LoadedTeacher, store: Path) -> Path | None:
    """Write the teacher's tensors to `store`, unless they are there.

    What was a pickle becomes safetensors, and what a library downloads is downloaded only here.

    Returns:
        The file; None where every machine has it, as a part of this package.
    """
    config = teacher.config
    if config.model in BUNDLED_WEIGHTS and not config.weights.is_given:
        return None
    path = store / "teachers" / f"{teacher.fingerprint[:32]}.safetensors"

    def write(temporary: Path) -> None:
        # Of the network as its library builds it: the traced one has its layers replaced. A copy of
        # each tensor, as safetensors refuses those that share memory.
        tensors = load_network(config, store).state_dict()
        save_file({name: value.detach().clone() for name, value in tensors.items()}, temporary)

    once(path, write)
    return path


def with_shared(config: Teacher, path: Path) -> Teacher:
    """The same teacher, with its weights from a file of `share_teacher`."""
    return config.model_copy(update={"weights": Weights(file=str(path))})


def identity(teacher: LoadedTeacher) -> str:
    """Tensors, input and operations in their order, in 32 hex digits."""
    return content_address({"fingerprint": teacher.fingerprint, "code": teacher.graph.code})


def check_identity(teacher: LoadedTeacher, expected: str) -> None:
    """Refuse a teacher that is not the driver's.

    Raises:
        InputError: it has other tensors, another input or other operations.
    """
    if identity(teacher) != expected:
        raise InputError(
            "`the teacher is the driver's on every machine` must hold, but got another one from "
            f"{teacher.config.weights.file or teacher.config.model}. Delete that file if it is in the "
            "store; a network that its library builds differently with its published weights needs "
            "teacher.kwargs that say so."
        )
