"""How many images chose and how many measured what a ladder says; the two never overlap."""

from __future__ import annotations

from synq_tune.study.stages import Rung


def measured_on(rung: Rung) -> str:
    """In words, from a rung of the ladder."""
    if rung.num_images:
        return f"chosen on {rung.chosen_on}, measured on {rung.num_images} images"
    if not rung.probes:  # written before the two were kept apart
        return "no labelled images: agreement with the teacher only"
    return (
        f"no labelled images: agreement with the teacher, chosen on {rung.probes_chosen_on}, "
        f"measured on {rung.probes} other synthetic images"
    )
