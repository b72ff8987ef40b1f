"""What the model gets wrong, where labels were given; else what choosing without them means."""

from __future__ import annotations

from synq_tune.notes import counted
from synq_tune.report import figures
from synq_tune.report.blocks import Block, Heading, Plot, Prose, Section, Table, Tiles
from synq_tune.report.material import Material
from synq_tune.report.measured.mistakes import Mistakes
from synq_tune.report.numbers import percent
from synq_tune.study.rungs import BEST
from synq_tune.trial.evaluation import confidence_interval

_MOST_CLASSES = 100


def mistakes(material: Material) -> Section:
    """Per class, confusions, the worst images, reliability; without labels what can be said."""
    found = material.evidence.mistakes
    if material.state.spec.study.val_data is None:
        return _unlabelled(material)
    if found is None:
        return Section("mistakes", "What it gets wrong", material.evidence.why("mistakes"))
    lead = f"{found.num_wrong:,} of {counted(found.count, 'image')} that chose nothing are wrong."
    blocks = [*_classes(found), *_confusions(found), *_worst(found), *_reliability(found)]
    return Section("mistakes", "What it gets wrong", lead, blocks)


def _classes(found: Mistakes) -> list[Block]:
    shown = found.classes[:_MOST_CLASSES]
    rows = [
        (
            c.name,
            str(c.count),
            f"{c.student:.1f}",
            f"{c.teacher:.1f}",
            f"{c.student - c.teacher:+.1f}",
        )
        for c in shown
    ]
    heads = ("class", "images", "student %", "teacher %", "difference")
    said = "The class that loses most comes first."
    if len(shown) < len(found.classes):
        said += f" {len(shown)} of {len(found.classes)} are shown."
    return [
        Heading("Class by class"),
        Prose(said),
        Table(heads, rows, frozenset({1, 2, 3, 4}), is_sortable=True),
    ]


def _confusions(found: Mistakes) -> list[Block]:
    if not found.confusions:
        return []
    rows = [(truth, said, str(count)) for truth, said, count in found.confusions]
    return [
        Heading("What is taken for what"),
        Table(("class", "taken for", "times"), rows, frozenset({2})),
    ]


def _worst(found: Mistakes) -> list[Block]:
    if not found.worst:
        return []
    said = "Wrong ones, those of which the student is surest first."
    return [Heading("The worst images"), Prose(said), Tiles(found.worst, 120)]


def _reliability(found: Mistakes) -> list[Block]:
    return [
        Heading("Can its confidence be believed?"),
        Prose(
            "A point is a group of images of like confidence; on the dashed line confidence is "
            "accuracy. The mean distance from it (expected calibration error) is "
            f"{found.student_gap:.1f} points for the student, {found.teacher_gap:.1f} for the teacher."
        ),
        Plot(figures.reliability(found), "Accuracy by confidence, student and teacher", 340),
    ]


def _unlabelled(material: Material) -> Section:
    ladder = material.state.stages.ladder
    rung = ladder.rung(BEST) if ladder else None
    title = "Without labels"
    cost = Prose(
        "Agreement says how often student and teacher name the same class on synthetic images. It "
        "is no accuracy, and its best trial need not be the most accurate one: what that costs can "
        "only be measured with labels. The command choosing measures it; give --val-data to a "
        "search to report top-1."
    )
    if rung is None or rung.agreement is None or not rung.probes:
        return Section("unlabelled", title, "No labelled images were given.", [cost])
    low, high = confidence_interval(rung.agreement, rung.probes)
    lead = (
        f"The best agrees with the teacher on {percent(rung.agreement)} of n = {rung.probes:,} "
        f"synthetic images (95 % interval {low:.2f} to {high:.2f}). Trials were compared on "
        f"{rung.probes_chosen_on:,} others."
    )
    return Section("unlabelled", title, lead, [cost])
