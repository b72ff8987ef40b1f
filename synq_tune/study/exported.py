"""What the exported files are worth, as lines: size, ratio, agreement with the student, time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synq_tune.study.state import StudyState
from synq_tune.text_table import aligned

_OTHERS = ("float32", "packed_theoretical")
"""Sizes in a parity report that are no file's."""


def file_lines(state: StudyState) -> list[str]:
    """A line for each exported file; none before the export.

    `onnx  0.10 MB  3.4 times smaller  100.00 % of 1,152 images as the student  0.21 ms an image`
    """
    parity = state.stages.parity
    if parity is None:
        return []
    report = parity.report
    sizes = {name: size for name, size in report["sizes"].items() if name not in _OTHERS}
    full = report["sizes"]["float32"]
    return aligned([_file(name, size, full, report["logits"]) for name, size in sizes.items()])


def milliseconds_of_best(state: StudyState) -> float | None:
    """Time of an image in the exported ONNX file as a runtime takes it by itself; None before."""
    parity = state.stages.parity
    found = parity.report["logits"] if parity is not None else {}
    times = [entry.get("ms_per_image") for key, entry in found.items() if key.split()[0] == "onnx"]
    return times[-1] if times else None


def _file(name: str, size: int, full: int, logits: Mapping[str, Any]) -> list[str]:
    # The last level is the one that a runtime takes by itself.
    found = [entry for key, entry in logits.items() if key.split()[0] == name]
    last = found[-1]
    agreement = min(entry["agreement"] for entry in found)
    milliseconds = last.get("ms_per_image")
    return [
        name,
        f"{size / 1e6:.2f} MB",
        f"{full / size:.1f} times smaller",
        f"{agreement:.2f} % of {last['images']:,} images as the student",
        f"{milliseconds:.2f} ms an image" if milliseconds else "",
    ]
