"""How many images chose and how many measured what a ladder says; the two never overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def measured_on(rung: Mapping[str, Any]) -> str:
    """In words, from a rung of the ladder."""
    if rung.get("num_images"):
        return f"chosen on {rung['chosen_on']}, measured on {rung['num_images']} images"
    if not rung.get("probes"):  # written before the two were kept apart
        return "no labelled images: agreement with the teacher only"
    return (
        f"no labelled images: agreement with the teacher, chosen on {rung['probes_chosen_on']}, "
        f"measured on {rung['probes']} other synthetic images"
    )
