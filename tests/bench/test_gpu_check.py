"""A visit to a GPU, as far as a CPU can go through it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from synq_tune.bench.gpu import check as checked
from synq_tune.bench.gpu.agreement import differing_codes
from synq_tune.bench.gpu.precision import multiplying_in
from synq_tune.bench.gpu.rows import Row, guarded, table
from synq_tune.bench.gpu.visit import gpu_check
from synq_tune.bench.material import bench_teacher
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.quantization.student import calibrate, quantize_student

CPU = torch.device("cpu")


def test_one_part_that_fails_stops_no_other() -> None:
    """It becomes a row that says what it raised."""

    def broken() -> list[Row]:
        raise RuntimeError("no kernel image\nmore")

    (row,) = guarded("step", "resnet18", broken)
    assert (row.value, row.is_right, row.note) == (None, False, "RuntimeError: no kernel image")
    lines = table([row, Row("step", "other", 1.25, "ms")])
    assert "WRONG" in lines[1] and "1.25  ms" in lines[2]


def test_codes_of_another_student_are_found_to_differ() -> None:
    """The comparison can fail: a grid of twice the step has other codes."""
    spec = load_space("digits_w4a4")
    teacher = bench_teacher(spec, CPU)
    student = quantize_student(teacher, spec.bits, "lsq")
    calibrate(student, [torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))])
    twin = copy.deepcopy(student)
    assert differing_codes(student, twin, CPU) == 0
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if name.endswith("log_ratio"):
                parameter.add_(0.7)
    assert differing_codes(student, twin, CPU) > 0.2


def test_a_precision_ends_with_its_block() -> None:
    """TF32 is as it was before, and autocast is off."""
    before = torch.backends.cuda.matmul.allow_tf32
    with multiplying_in("bf16", CPU):
        assert torch.is_autocast_enabled("cpu")
    with multiplying_in("tf32", CPU):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
    assert not torch.is_autocast_enabled("cpu")


def test_parts_that_would_begin_too_late_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are rows too, and make the result wrong."""
    monkeypatch.setattr(checked, "_parts", lambda *sizes: {"step": lambda: iter([])})
    (row,) = checked.check(CPU, checked.TINY, minutes=-1)
    assert (row.part, row.what, row.is_right) == ("step", "left out", False)


def test_wrong_input_is_refused() -> None:
    """No time, and no GPU."""
    with pytest.raises(InputError, match="minutes > 0"):
        gpu_check(True, 0.0, None)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no GPU"):
            gpu_check(False, 1.0, None)


@pytest.mark.slow
def test_a_dry_run_goes_through_everything(tmp_path: Path) -> None:
    """Every part has rows, all are right on the device they are compared with, and the file has them."""
    assert gpu_check(True, 30.0, tmp_path / "gpu.json") == 0
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert {row["part"] for row in rows} == {"agreement", "step", "synthesis", "sharing"}
    assert all(row["is_right"] for row in rows)
    missing = [row["what"] for row in rows if row["value"] is None]
    assert missing == ["cifar_resnet20_w4a4, as a graph"]
