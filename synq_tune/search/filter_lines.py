"""What the low-pass filter does to the images of a study, in words."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from synq_tune.views.low_pass import energy_kept

HARDLY = 0.95
"""Share of the energy above which the filter is said to change hardly anything."""


def filter_lines(images: Tensor, d0s: Iterable[float | None]) -> list[str]:
    """The energy kept at each D0, and a sentence where that is nearly all of it.

    A D0 in frequency bins is another filter at each image size.

    Args:
        images: (N, C, H, W), normalised.
        d0s: cut-offs in frequency bins; None is no filter.
    """
    kept = {d0: energy_kept(images, d0) for d0 in d0s}
    shares = ", ".join(f"D0={d0}: {100 * share:.1f} %" for d0, share in kept.items())
    return [f"filter    energy kept at {shares}", *_sentence(kept)]


def _sentence(kept: dict[float | None, float]) -> list[str]:
    open_ = [f"D0={d0}" for d0, share in kept.items() if d0 is not None and share > HARDLY]
    if not open_:
        return []
    return [
        f"          at {', '.join(open_)} the filter hardly changes these images: it keeps more than "
        f"{100 * HARDLY:.0f} % of their energy"
    ]
