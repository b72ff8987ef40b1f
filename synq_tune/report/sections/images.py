"""The synthetic images, the only ones that the student learned from."""

from __future__ import annotations

from synq_tune.notes import counted
from synq_tune.report import figures
from synq_tune.report.blocks import (
    Block,
    Caution,
    Heading,
    PictureRows,
    Plot,
    Prose,
    Row,
    Section,
)
from synq_tune.report.material import Material
from synq_tune.report.measured.synthetic import ALIKE, Filtered, Synthetic

_ALL_PASS = 95.0
"""Percent of the energy from which a filter hardly filters."""


def images(material: Material) -> Section:
    """By class with the teacher's confidence, before and after each D0, near-duplicates."""
    title, found = "The synthetic images", material.evidence.synthetic
    if found is None:
        return Section("images", title, material.evidence.why("synthetic"))
    blocks = [*_by_class(found), *_filters(found), *_duplicates(found)]
    return Section("images", title, _lead(material, found), blocks)


def _lead(material: Material, found: Synthetic) -> str:
    made = material.state.stages.dataset
    total = made.num_images if made else found.count
    of_all = "" if found.count == total else f" The numbers below are of the first {found.count:,}."
    return (
        f"{counted(total, 'image')} were made from the teacher alone. They are all that the student "
        f"learned from; no real image was used.{of_all}"
    )


def _by_class(found: Synthetic) -> list[Block]:
    rows = [
        Row(c.name, c.pictures, f"{counted(c.count, 'image')}, teacher {c.confidence:.1f} % sure")
        for c in found.classes
    ]
    shown = f" {len(rows)} of the {found.num_classes} classes are shown."
    return [
        Heading("By class"),
        Prose(
            "Below an image stands the teacher's confidence: the probability that it gives to the "
            "class that the image was made for." + (shown if len(rows) < found.num_classes else "")
        ),
        PictureRows(rows),
        Plot(figures.confidences(found.confidences), "How sure the teacher is of the images", 260),
    ]


def _filters(found: Synthetic) -> list[Block]:
    rows = [Row(_name(f), f.pictures, _kept(f)) for f in found.filtered]
    through = [f"D0 = {f.d0:g}" for f in found.filtered if f.d0 and f.energy > _ALL_PASS]
    said = f"{' and '.join(through)} let more than {_ALL_PASS:g} % through: hardly a filter."
    return [
        Heading("Before and after the low-pass filter"),
        Prose(
            "SynQ filters the images before the student sees them. D0 is the filter's cut-off, in "
            "frequency bins of the image: the smaller, the smoother."
        ),
        PictureRows(rows),
        *([Caution(said)] if through else []),
    ]


def _kept(found: Filtered) -> str:
    return "" if found.d0 is None else f"{found.energy:.1f} % of the energy kept"


def _name(found: Filtered) -> str:
    return "as made" if found.d0 is None else f"D0 = {found.d0:g}"


def _duplicates(found: Synthetic) -> list[Block]:
    share = 100 * found.duplicates / max(found.count, 1)
    rows = [Row(f"cosine {pair.cosine:.3f}", pair.pictures) for pair in found.pairs]
    return [
        Heading("Near-duplicates"),
        Prose(
            f"{found.duplicates:,} of {counted(found.count, 'image')} ({share:.1f} %) have another one that "
            f"is nearly the same: the cosine of the two, each less its mean, is above {ALIKE:g}. "
            "The most alike are:"
        ),
        PictureRows(rows),
    ]
