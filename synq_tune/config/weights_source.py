"""Where a teacher's weights come from, in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synq_tune.config.teacher import Teacher
from synq_tune.store import sha256_file

BUNDLED_DIR = Path(__file__).parents[1] / "models" / "weights"


@dataclass(frozen=True)
class WeightsSource:
    """A place, and the sum of what lies there."""

    place: str
    checksum: str | None
    """Such as `sha1 9b00…`, of the checkpoint and not of an archive around it; None: not pinned."""

    @property
    def plain(self) -> str:
        """Both in one line."""
        return self.place if self.checksum is None else f"{self.place} ({self.checksum})"


def weights_source(teacher: Teacher) -> WeightsSource:
    """The source of a teacher's weights, as its settings say it; nothing is fetched."""
    weights = teacher.weights
    if weights.package is not None:
        return WeightsSource(f"{weights.file} of {weights.package}", f"sha256 {weights.sha256}")
    place = weights.file or weights.url
    if place is not None:
        return WeightsSource(place, f"sha1 {weights.sha1}" if weights.sha1 else None)
    bundled = BUNDLED_DIR / f"{teacher.model}.safetensors"
    if bundled.is_file():
        return WeightsSource("in synq_tune/models/weights", f"sha256 {sha256_file(bundled)}")
    prefix, _, name = teacher.model.partition(":")
    if prefix == "timm" and "." in name:  # with a tag: the one without is what timm says today
        return WeightsSource(f"https://huggingface.co/timm/{name}", None)
    return WeightsSource("yours: --weights FILE", None)
