"""The page says by which family of LiteRT's kernels a .tflite file was checked."""

from __future__ import annotations

from synq_tune.report.sections.export import kernels_sentence


def test_codes_that_differ_are_counted_by_family() -> None:
    """Exactness is never claimed without the family's name; without such a file nothing is said."""
    sentence = kernels_sentence(
        {"fixed": {"mismatches": 0, "codes": 7000}, "float": {"mismatches": 2, "codes": 7000}}
    )
    assert "by fixed, 0 of 7,000 codes differ and by float, 2 of 7,000 codes differ." in sentence
    assert kernels_sentence({}) == ""
