"""The table of runtimes: made by trying, and honest about what did not work."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from synq_tune.cli import runtimes
from synq_tune.commands.ending import exit_code
from synq_tune.commands.runtimes import runtimes_table
from synq_tune.errors import InputError
from tests.export.conftest import Exported

Export = Callable[..., Exported]


def _rows(lines: list[str]) -> dict[tuple[str, str], list[str]]:
    """Cells after the runtime's name, by file and runtime."""
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return {(row[0], row[2]): row[3:] for row in cells[2:]}


@pytest.fixture(scope="module")
def rows(export: Export) -> dict[tuple[str, str], list[str]]:
    folder = export("residual_net", "deploy", 8).folder
    files = [folder / "model.hardware.onnx", folder / "model.packed.safetensors"]
    network = "python:tests.export.networks:residual_net"
    return _rows(runtimes_table(files, threads=1, rounds=2, python_model=network))


def test_every_level_of_onnxruntime_is_tried(rows: dict[tuple[str, str], list[str]]) -> None:
    """Loads, runs, and from EXTENDED on computes every layer in integers."""
    for level, share in (("DISABLE_ALL", "0 of 4"), ("EXTENDED", "4 of 4"), ("ALL", "4 of 4")):
        loads, runs, *_, milliseconds, kernels = rows[
            "model.hardware.onnx", f"ONNX Runtime, {level}"
        ]
        assert (loads, runs, kernels) == ("yes", "yes", share)
        assert float(milliseconds) >= 0


def test_the_packed_file_gives_the_golden_classes(rows: dict[tuple[str, str], list[str]]) -> None:
    """In PyTorch, which calculates in float."""
    loads, runs, classes, *_, kernels = rows["model.packed.safetensors", "PyTorch"]
    assert (loads, runs, classes, kernels) == ("yes", "yes", "32 of 32", "0 of 4")


@pytest.mark.skipif(importlib.util.find_spec("openvino") is not None, reason="OpenVINO is here")
def test_a_runtime_that_is_not_there_says_so(rows: dict[tuple[str, str], list[str]]) -> None:
    """And the other cells stay empty."""
    assert rows["model.hardware.onnx", "OpenVINO"] == ["not installed", *[""] * 5]


def test_a_refused_file_gets_its_reason(tmp_path: Path) -> None:
    """The runtime's own words in the cell: valid ONNX, for which it has no code."""
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.BFLOAT16),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, 8, 8]) for n in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y])
    opset = helper.make_opsetid("", 21)
    path = tmp_path / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()
    )
    rows = _rows(runtimes_table([path], rounds=1))
    assert "Erf" in rows["model.onnx", "ONNX Runtime, ALL"][0]
    assert rows["model.onnx", "ONNX Runtime, ALL"][0].startswith("no: ")


def test_missing_files_are_refused(tmp_path: Path) -> None:
    """Before any runtime starts."""
    with pytest.raises(InputError, match="file exists"):
        runtimes_table([tmp_path / "none.onnx"])


@pytest.mark.long
def test_the_float_baseline_is_written_and_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The network in float32 beside the quantized files, in one table."""
    argv = [
        "--float-baseline", "python:tests.export.networks:residual_net", "--input-size", "8",
        "--rounds", "1", "--threads", "1", "--output", str(tmp_path),
    ]  # fmt: skip
    assert exit_code(runtimes.main, argv) == 0
    rows = _rows(capsys.readouterr().out.splitlines())
    assert rows["float32.onnx", "ONNX Runtime, ALL"][-1] == "0 of 4"
    assert rows["model.hardware.onnx", "ONNX Runtime, ALL"][-1] == "4 of 4"
