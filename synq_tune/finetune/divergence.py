"""When a trial has diverged: which number stopped being finite, after which epoch, with what
settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from synq_tune.config import FineTune
from synq_tune.errors import NonFiniteError
from synq_tune.notes import counted


def moment(epoch: int, config: FineTune, step: int | None = None) -> str:
    """Where and with which settings, as the end of a sentence; epochs and steps from 1."""
    at = f"epoch {epoch}" if step is None else f"epoch {epoch}, step {step}"
    return (
        f"at {at} (lr={config.lr}, lambda_ce={config.lambda_ce}, lambda_cam={config.lambda_cam})."
    )


@contextlib.contextmanager
def diverges_at(epoch: int, config: FineTune) -> Iterator[None]:
    """Inside, what stops being finite is said to have done so after this epoch; 0 is
    calibration."""
    try:
        yield
    except NonFiniteError as error:
        raise NonFiniteError(f"{str(error).rstrip('.')} {moment(epoch, config)}") from error


@torch.no_grad()
def check_finite_state(student: nn.Module) -> None:
    """Check weights, learned steps and ranges; one host synchronisation, so not within an epoch.

    The last update of an epoch reaches no loss of that epoch: what it broke is seen here only. A
    gradient that is not finite leaves such weights too.

    Raises:
        NonFiniteError: names the first tensor with a value that is NaN or infinite.
    """
    tensors = {name: t for name, t in student.state_dict().items() if t.is_floating_point()}
    if not tensors:
        return
    is_finite = torch.stack([t.isfinite().all() for t in tensors.values()]).tolist()
    broken = [name for name, whole in zip(tensors, is_finite, strict=True) if not whole]
    if broken:
        more = f" (and {counted(len(broken) - 1, 'more tensor')})" if broken[1:] else ""
        raise NonFiniteError(f"{broken[0]}{more} of the student is not finite.")
