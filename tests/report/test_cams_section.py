"""The maps of a page."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from synq_tune.report.blocks import Picture, Prose
from synq_tune.report.sections.cams import cams


@pytest.mark.parametrize(("names", "is_said"), [(3, False), (2, True)])
def test_what_is_left_out_is_said(names: int, is_said: bool) -> None:
    """Without the calibrated student's maps a sentence says why."""
    maps = [Picture(b"", "image/png", "")] * names
    found = SimpleNamespace(name="3", image=maps[0], maps=maps, likeness=[1.0] * names)
    section = cams(SimpleNamespace(evidence=SimpleNamespace(cams=[found])))
    said = [block.text for block in section.blocks if isinstance(block, Prose)]
    assert any("left out" in text for text in said) == is_said
