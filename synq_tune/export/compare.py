"""Compare what two forms of one model compute: codes exactly, classes by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def code_mismatches(expected: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> dict[str, Any]:
    """Count codes that differ; a tensor that is missing or of another shape differs whole."""
    wrong = {name: _differing(codes, actual.get(name)) for name, codes in expected.items()}
    return {
        "tensors": len(expected),
        "codes": sum(codes.numel() for codes in expected.values()),
        "mismatches": sum(wrong.values()),
        "where": {name: count for name, count in wrong.items() if count},
    }


def _differing(expected: Tensor, actual: Tensor | None) -> int:
    if actual is None or actual.shape != expected.shape:
        return expected.numel()
    return int((expected.cpu() != actual.cpu()).sum())


class LogitComparison:
    """Logits of a file against the student's, batch by batch."""

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self.max_difference = 0.0
        self.exceptions: list[dict[str, Any]] = []

    def add(self, expected: Tensor, actual: Tensor, seconds: float = 0.0) -> None:
        """Take the logits (N, K) of the next N images into account, and how long they took."""
        self.seconds += seconds
        expected, actual = expected.cpu().float(), actual.cpu().float()
        largest = float((expected - actual).abs().max()) if len(expected) else 0.0
        self.max_difference = max(self.max_difference, largest)
        top = expected.topk(2, dim=1).values
        # Both by argmax: where logits are on a grid two may be equal, and topk takes another of
        # them.
        wanted, classes = expected.argmax(1), actual.argmax(1)
        for i in (wanted != classes).nonzero().flatten().tolist():
            self.exceptions.append(
                {
                    "index": self.images + i,
                    "student": int(wanted[i]),
                    "file": int(classes[i]),
                    "margin": float(top[i, 0] - top[i, 1]),
                }
            )
        self.images += len(expected)

    def report(self) -> dict[str, Any]:
        """Agreement in percent, the largest difference, and every image whose class differs.

        An exception's `margin` is the student's largest logit minus its second. `ms_per_image` is
        the mean over all batches, other files' turns in between.
        """
        return {
            "images": self.images,
            "ms_per_image": 1000 * self.seconds / max(self.images, 1),
            "agreement": 100.0 * (1 - len(self.exceptions) / max(self.images, 1)),
            "max_difference": self.max_difference,
            "exceptions": self.exceptions,
        }
