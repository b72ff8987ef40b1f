"""Where the networks look."""

from __future__ import annotations

import statistics

from synq_tune.report.blocks import PictureRows, Prose, Row, Section
from synq_tune.report.material import Material

_ALL = 3
"""Maps of an image: teacher, calibrated and trained student."""
_UNTRAINED = (
    "The calibrated student's maps are left out: to calibrate once more would take long here."
)


def cams(material: Material) -> Section:
    """Class activation maps of teacher, calibrated and trained student, side by side."""
    title, found = "Where they look", material.evidence.cams
    if not found:
        return Section("cams", title, material.evidence.why("cams"))
    rows = [Row(c.name, [c.image, *c.maps], f"cosine {c.likeness[-1]:.3f}") for c in found]
    mean = statistics.fmean(c.likeness[-1] for c in found)
    lead = (
        "Class activation maps (CAM): the brighter a place, the more it speaks for the class. "
        f"On average the trained student's map has a cosine of {mean:.3f} with the teacher's; 1 is "
        "the same map."
    )
    prose = Prose("The images are held-out synthetic ones, on which nothing was trained.")
    missing = [] if len(found[0].maps) == _ALL else [Prose(_UNTRAINED)]
    return Section("cams", title, lead, [prose, *missing, PictureRows(rows)])
