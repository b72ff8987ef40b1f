"""Write `model.pte`: integers for ExecuTorch, by XNNPACK's kernels, and check what they compute.

ExecuTorch comes with the optional extra `executorch`, imported only when something is asked of it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from synq_tune.errors import InputError
from synq_tune.export.executorch_graph import Int8Network, logit_grid
from synq_tune.export.logit_range import logit_range
from synq_tune.export.metadata import to_texts
from synq_tune.export.options import PTE, OnnxOptions
from synq_tune.quantization.frozen import StandaloneModel, frozen_layers
from synq_tune.store import canonical_json, write_bytes

METADATA = "synq_tune"
"""Method of the program that gives our metadata, as bytes."""


def executorch(part: str = "exir") -> ModuleType:
    """A module of the library.

    Raises:
        InputError: the extra is not installed.
    """
    try:
        return importlib.import_module(f"executorch.{part}")
    except ImportError as error:
        raise InputError(
            f"`ExecuTorch is installed` must hold for .pte files, but got: {error}. "
            "Install the extra: pip install 'synq-tune[executorch]'."
        ) from error


def write_pte(
    model: StandaloneModel,
    metadata: dict[str, Any],
    path: Path,
    images: Tensor | None = None,
    options: OnnxOptions = PTE,
) -> dict[str, Any]:
    """Write the model as one .pte file, wholly in XNNPACK's integers.

    Args:
        model: frozen student whose layers all read grids, as those of `quantizer: deploy`.
        metadata: of `describe`.
        path: the file.
        images: see `logit_range`.
        options: its batch size and its normalisation count.

    Returns:
        The metadata written: `metadata` with `containers`, `logit_grid`, `batch_size`, and the
        layers whose codes cannot be read back as `left_out`.

    Raises:
        InputError: the extra `executorch` is missing, a layer reads a float, or XNNPACK leaves one
            or cannot run it.
    """
    executorch()  # a missing extra is said first
    grid = logit_grid(*logit_range(model, images))
    names = list(frozen_layers(model.frozen))
    written = {
        **metadata,
        "containers": {"weights": dict.fromkeys(names, "INT8"), "activations": "INT8"},
        "logit_grid": list(grid),
        "batch_size": options.batch_size,
        "left_out": names,  # packed for XNNPACK's kernels
        **({} if options.normalize else {"normalized_input": True}),
    }
    network = Int8Network(model, grid, options.normalize).eval()
    content = lowered(network, example(model, options.batch_size), written)
    load_method(content, path)  # XNNPACK refuses some of what its compiler took
    write_bytes(path, content)
    return written


@dataclass(frozen=True)
class Method:
    """A method, ready to run, with what it reads from: ExecuTorch's runtime keeps neither."""

    content: bytes
    program: Any
    method: Any

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Its only output, copied: the next call writes into the same memory."""
        return self.method.execute(inputs)[0].clone()


def load_method(content: bytes, path: Path, name: str = "forward") -> Method:
    """A method of a program.

    Raises:
        InputError: the runtime refuses the program.
    """
    try:
        program = executorch("runtime").Runtime.get().load_program(content)
        return Method(content, program, program.load_method(name))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(
            f"{path}: `ExecuTorch's runtime takes the program` must hold, but got: {reason}. "
            "It prints what it lacks. Write another format: --format onnx or tflite."
        ) from error


def example(model: StandaloneModel, batch_size: int) -> Tensor:
    """An input of the network's shape, (N, C, H, W)."""
    return torch.zeros(batch_size, *model.preprocessing.shape)


def lowered(
    network: Int8Network, images: Tensor, metadata: dict[str, Any], on_xnnpack: bool = True
) -> bytes:
    """The program of a network for images of that shape.

    Args:
        network: what it computes.
        images: an example (N, C, H, W).
        metadata: what the program says of itself.
        on_xnnpack: by XNNPACK's kernels, else by ExecuTorch's portable ones.
    """
    exir, partitioners = executorch(), []
    if on_xnnpack:
        xnnpack = executorch("backends.xnnpack.partition.xnnpack_partitioner")
        partitioners = [xnnpack.XnnpackPartitioner()]
    else:
        executorch("kernels.quantized")  # registers what portable programs call
    with torch.no_grad():
        exported = torch.export.export(network, (images,), strict=False)
    text = canonical_json(to_texts(metadata)).encode()
    edge = exir.to_edge_transform_and_lower(
        exported,
        partitioner=partitioners,
        # The checks know no quantized_decomposed operations.
        compile_config=exir.EdgeCompileConfig(_check_ir_validity=False),
        constant_methods={METADATA: torch.frombuffer(bytearray(text), dtype=torch.uint8)},
    )
    if on_xnnpack:
        _refuse_left_behind(edge.exported_program())
    return bytes(edge.to_executorch().buffer)


def _refuse_left_behind(program: Any) -> None:
    """A layer outside the delegate would run in float on weights that no kernel of a phone unpacks."""
    buffers = program.graph_signature.inputs_to_buffers
    for node in program.graph.nodes:
        if node.op == "call_function" and "dequantize_per_channel" in str(node.target):
            name = buffers.get(node.args[0].name, node.args[0].name)
            layer = name.removeprefix("network.").removesuffix(".frozen_weight.codes")
            raise InputError(
                "`XNNPACK computes every layer in integers` must hold for .pte files, but it leaves "
                f"{layer}. Write another format: --format onnx or tflite."
            )
