"""How many trials share a GPU: as many as fit by what the first ones took, fewer after one did not
fit.

Ray counts fractions of a GPU and looks at no memory. What was measured stands in the ledger, as the
stage `gpu`.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from synq_tune.study.ledger import Ledger
from synq_tune.study.stages import Gpu
from synq_tune.study.state import StudyState

_HEADROOM = 0.9
"""Share of a GPU's memory that trials may fill. Fragments, and a workstation's display, need the
rest."""
_CONTEXT_BYTES = 600 * 2**20
"""Bytes that a process's CUDA context and libraries take. Torch's allocator does not count them."""


def forget_peak() -> None:
    """A worker starts a trial: its peak is measured from here."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak() -> dict[str, int] | None:
    """{trial_bytes, device_bytes} of the trial that this process has just trained; None without a
    GPU."""
    if not torch.cuda.is_available():
        return None
    taken = torch.cuda.max_memory_reserved() + _CONTEXT_BYTES
    return {"trial_bytes": taken, "device_bytes": torch.cuda.mem_get_info()[1]}


def record_peak(ledger: Ledger, found: dict[str, int]) -> None:
    """Remember what a trial took if none has taken more."""
    known = ledger.state.stages.gpu or Gpu()
    if found["trial_bytes"] > (known.trial_bytes or 0):
        ledger.record(replace(known, **found))


def record_too_many(ledger: Ledger, sharing: int) -> None:
    """Remember that `sharing` trials, ≥ 2, do not fit on one GPU."""
    known = ledger.state.stages.gpu or Gpu()
    if known.most is None or sharing - 1 < known.most:
        ledger.record(replace(known, most=sharing - 1))


def fitting(state: StudyState) -> int | None:
    """How many trials fit on a GPU by their memory, ≥ 1; None before one was measured."""
    known = state.stages.gpu
    if known is None or not known.trial_bytes:
        return None
    return max(1, int(_HEADROOM * known.device_bytes / known.trial_bytes))


def most(state: StudyState) -> int | None:
    """How many trials a GPU was seen to hold at most; None while none ran out of memory."""
    return state.stages.gpu.most if state.stages.gpu else None


def memory_line(found: Gpu) -> str:
    """What was measured, in words."""
    taken, whole = found.trial_bytes / 2**30, found.device_bytes / 2**30
    return f"a trial takes {taken:.1f} of {whole:.1f} GiB of a GPU"
