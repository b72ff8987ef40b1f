"""An ONNX file is checked before a runtime sees it: size, other files, operators, the model itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from synq_tune.commands.runtimes import runtimes_table
from synq_tune.errors import InputError
from synq_tune.export.load import MAX_BYTES, load_onnx
from synq_tune.export.runtime import load_model_file

ONE = numpy_helper.from_array(np.ones(1, np.float32), "one")


def _outside(location: str = "secret.bin") -> TensorProto:
    """A tensor that lies in another file."""
    tensor = TensorProto(name="one", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="4")
    return tensor


def _model(nodes: list[Any], tensors: list[TensorProto]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])],
        tensors,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _add() -> list[Any]:
    return [helper.make_node("Add", ["x", "one"], ["y"])]


def _within_branches() -> onnx.ModelProto:
    """The same in a graph within a node."""
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])
    branch = [helper.make_node("Identity", ["one"], ["out"])]
    graphs = [helper.make_graph(branch, name, [], [out], [_outside()]) for name in ("a", "b")]
    zero = numpy_helper.from_array(np.array(True), "is_so")
    choice = helper.make_node("If", ["is_so"], ["z"], then_branch=graphs[0], else_branch=graphs[1])
    return _model([choice, helper.make_node("Add", ["x", "z"], ["y"])], [zero])


def _as_attribute() -> onnx.ModelProto:
    return _model([helper.make_node("Constant", [], ["one"], value=_outside()), *_add()], [])


def _other_operator() -> onnx.ModelProto:
    return _model([helper.make_node("Run", ["x"], ["y"], domain="com.example")], [])


def _other_shape() -> onnx.ModelProto:
    """Fewer numbers than it says."""
    tensor = onnx.TensorProto()
    tensor.CopyFrom(ONE)
    tensor.dims[0] = 1000
    return _model(_add(), [tensor])


HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "beside": (lambda: _model(_add(), [_outside()]), "the model is one file.*'secret.bin'"),
    "above": (lambda: _model(_add(), [_outside("../secret.bin")]), "the model is one file"),
    "absolute": (lambda: _model(_add(), [_outside("/etc/passwd")]), "the model is one file"),
    "in a branch": (_within_branches, "the model is one file"),
    "in an attribute": (_as_attribute, "the model is one file"),
    "operator": (_other_operator, r"operators are ONNX's own.*com\.example\.Run"),
    "shape": (_other_shape, "the file is a whole ONNX model"),
}
READERS: dict[str, Callable[[Path], object]] = {
    "load_onnx": load_onnx,
    "evaluate.py": load_model_file,
    "runtimes.py": lambda path: runtimes_table([path], rounds=1),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize(("make", "message"), HOSTILE.values(), ids=HOSTILE)
def test_it_is_refused_before_it_is_loaded(
    tmp_path: Path, make: Callable[[], onnx.ModelProto], message: str, reader: Callable[[Path], Any]
) -> None:
    """Whoever reads it: the file and the reason are named."""
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4)
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())
    with pytest.raises(InputError, match=rf"model\.onnx: `{message}"):
        reader(path)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_a_file_too_large_is_not_even_read(tmp_path: Path, reader: Callable[[Path], Any]) -> None:
    """Of two gigabytes, all holes."""
    path = tmp_path / "model.onnx"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match=rf"size <= {MAX_BYTES} bytes"):
        reader(path)


def test_what_is_refused_would_have_been_read(tmp_path: Path) -> None:
    """onnxruntime takes the number from the other file: this is what makes the others worth having."""
    (tmp_path / "secret.bin").write_bytes(np.float32(41).tobytes())
    path = tmp_path / "model.onnx"
    path.write_bytes(HOSTILE["beside"][0]().SerializeToString())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones(1, np.float32)})[0] == 42


def test_a_good_file_is_taken(tmp_path: Path) -> None:
    """Standard operators and all tensors inside."""
    path = tmp_path / "model.onnx"
    path.write_bytes(_model(_add(), [ONE]).SerializeToString())
    assert load_onnx(path).graph.node[0].op_type == "Add"
