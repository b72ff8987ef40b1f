"""The number formats that a device multiplies in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

PRECISIONS = ("float32", "tf32", "bf16")
ALLOWED = {"float32": 1e-4, "tf32": 2e-2, "bf16": 0.15}
"""Norm of the difference from the CPU's float32, over that of the values, at most: a factor keeps
24, 11 or 8 bits, and a gradient passes every layer twice."""


@contextlib.contextmanager
def multiplying_in(precision: str, device: torch.device) -> Iterator[None]:
    """Let products be rounded as `precision` says; float32 forbids TF32."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
