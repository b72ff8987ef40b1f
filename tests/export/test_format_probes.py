"""The table of where formats are exact, made by trying."""

from __future__ import annotations

from pathlib import Path

import pytest

from synq_tune.commands import format_probes
from synq_tune.commands.format_probes import HEAD, SUBJECTS, Exported, probe_formats

REPORT = {
    "weight_codes": {"onnx": {"codes": 10, "mismatches": 0}},
    "logits": {"onnx BASIC": {"agreement": 100.0}, "onnx ALL": {"agreement": 97.5}},
    "golden": {"onnx": {"activation_codes": {"codes": 2000, "mismatches": 3}}},
}


def test_a_file_has_a_row_for_each_runtime(tmp_path: Path) -> None:
    """Codes of values are counted where they were read: ONNX Runtime at ALL has none."""
    file = tmp_path / "model.onnx"
    file.write_bytes(b"0" * 1500)
    rows = list(format_probes._rows(Exported("onnx", file, REPORT)))
    assert rows == [
        ("`model.onnx`", "2", "ONNX Runtime, BASIC", "0", "3 of 2,000", "the student", "100.0"),
        ("`model.onnx`", "2", "ONNX Runtime, ALL", "0", "", "", "97.5"),
    ]


def test_a_refusal_is_a_row(tmp_path: Path) -> None:
    """With the reason; as many cells as the others have."""
    (row,) = format_probes._rows(Exported("tflite", None, {}, "no operator for softmax"))
    assert row[0] == "`--format tflite`" and "no operator for softmax" in row
    assert len(row) == len(HEAD) - 3


def test_both_kinds_of_network_are_probed() -> None:
    """At 8 bits and at fewer."""
    assert {(network, weights) for network, _, _, weights, _ in SUBJECTS} == {
        ("CNN", 8), ("CNN", 4), ("ViT", 8), ("ViT", 4)
    }  # fmt: skip


@pytest.mark.long
def test_a_probe_runs_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packed file is the student to the bit, and what integers cannot do is refused."""
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr(format_probes, "SUBJECTS", (SUBJECTS[2], SUBJECTS[-1]))
    lines = probe_formats(tmp_path, ["packed", "tflite"])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    packed = [row for row in rows if row[5] == "PyTorch"]
    assert [row[0] for row in packed] == ["CNN", "ViT"]
    assert all(row[6] == "0" and row[7].startswith("0 of ") and row[9] == "100.0" for row in packed)
    kernels = [row for row in rows if "LiteRT" in row[5]]
    assert [row[5] for row in kernels] == ["LiteRT, kernels `fixed`", "LiteRT, kernels `float`"]
    assert all(row[7].startswith("0 of ") for row in kernels)
    assert rows[-1][0] == "ViT" and rows[-1][8]
