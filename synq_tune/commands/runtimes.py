"""Try model files in every runtime there is: does it load, run, agree, how fast, in integers?"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from synq_tune.errors import InputError
from synq_tune.export.compare import LogitComparison
from synq_tune.export.engines import ENGINES, Engine, NotInstalledError, Runner
from synq_tune.export.float_baseline import write_float_baseline
from synq_tune.export.golden import read_golden
from synq_tune.export.load import load_onnx
from synq_tune.export.metadata import from_texts, preprocessing_of
from synq_tune.export.parity import file_bytes
from synq_tune.text_table import markdown

HEAD = ("file", "kB", "runtime", "loads", "runs", "classes equal", "largest logit difference",
        "ms per image", "layers in integers")  # fmt: skip
UNTESTED = (
    "Not tested here, from the makers' documents: TensorRT takes QuantizeLinear and DequantizeLinear "
    "with signed 8-bit values and zero points of 0 only, for weights and activations. Search with "
    "`quantizer: deploy_symmetric` and write such a file with --format tensorrt.",
    "Not tested here: Qualcomm's QNN takes 8-bit weights and asymmetric 8-bit activations of a fixed "
    "batch size; write such files with --format hardware --batch-size 1.",
)


@dataclass
class Probe:
    """What one runtime did with one file; what was not reached stays empty."""

    file: Path
    engine: Engine
    loads: str = ""
    runs: str = ""
    classes: str = ""
    difference: str = ""
    milliseconds: float | None = None
    kernels: str = ""
    runner: Runner | None = None


@dataclass(frozen=True)
class _Inputs:
    """Images as a file takes them, and the logits that the student gives for them, if known."""

    images: np.ndarray
    batch: int
    logits: torch.Tensor | None


def runtimes_command(arguments: Namespace) -> list[str]:
    """Lines that `scripts/runtimes.py` prints."""
    files = list(arguments.files)
    if arguments.float_baseline:
        files += write_float_baseline(
            arguments.float_baseline, arguments.output, arguments.input_size, arguments.bits
        )
    return runtimes_table(
        files,
        arguments.golden,
        arguments.threads,
        arguments.rounds,
        arguments.python_model or arguments.float_baseline,
    )


def runtimes_table(
    files: Sequence[Path],
    golden: Path | None = None,
    threads: int = 2,
    rounds: int = 20,
    python_model: str | None = None,
) -> list[str]:
    """A markdown table with a line per file and runtime, and what is known of others.

    Args:
        files: `.onnx`, ours or a float32 network's, `.safetensors`, `.tflite`, or OpenVINO's `.xml`.
        golden: golden values; None is `golden.npz` beside each file, where there is one.
        threads: each runtime's.
        rounds: timed runs of one batch each, taken in turn by all that run, of which the median
            counts.
        python_model: names the user's own network, whose code a packed file may then run.

    Raises:
        InputError: a file is missing or of no such format.
    """
    probes = []
    inputs = {}
    for path in files:
        _check(path)
        inputs[path] = _inputs_of(path, golden)
        engines = [engine for engine in ENGINES if engine.suffix == path.suffix]
        probes += [_probe(path, e, inputs[path], threads, python_model) for e in engines]
    _time(probes, inputs, rounds)
    return [*_table(probes), "", *UNTESTED]


def _check(path: Path) -> None:
    if not path.is_file() or path.suffix not in {engine.suffix for engine in ENGINES}:
        raise InputError(
            f"`an .onnx, .safetensors, .tflite or .xml file exists` must hold, but got {path}."
        )


def _inputs_of(path: Path, golden: Path | None) -> _Inputs:
    beside = golden or path.parent / "golden.npz"
    values = read_golden(beside) if golden or beside.is_file() else None
    if path.suffix != ".onnx":
        if values is None:
            raise InputError(
                f"`golden values lie beside {path}` must hold, but there are none. Pass --golden FILE."
            )
        return _Inputs(values["images"].numpy(), 1, values["logits"])
    proto = load_onnx(path)
    batch, *shape = (d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim)  # 0: any
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    if values is None:
        return _Inputs(np.random.default_rng(0).random((4, *shape), np.float32), batch or 1, None)
    images, metadata = values["images"], from_texts(texts, path) if texts else {}
    if metadata.get("normalized_input", False):
        images = preprocessing_of(metadata, path).normalize(images)
    # A float32 network is another function than the student: there is nothing to be equal to.
    return _Inputs(images.numpy(), batch or 1, values["logits"] if texts else None)


def _probe(
    path: Path, engine: Engine, inputs: _Inputs, threads: int, python_model: str | None
) -> Probe:
    probe = Probe(path, engine)
    try:
        runner = engine.open(path, threads, python_model)
        probe.loads, probe.kernels = "yes", runner.kernels
    except NotInstalledError as error:
        probe.loads = str(error)
        return probe
    except Exception as error:  # whatever a runtime says when it refuses a file is the answer
        probe.loads = _reason(error)
        return probe
    try:
        logits = torch.from_numpy(_logits(runner, inputs))
        probe.runs, probe.runner = "yes", runner
    except Exception as error:  # as above
        probe.runs = _reason(error)
        return probe
    if inputs.logits is not None:
        _compare(probe, inputs.logits, logits)
    return probe


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"no: {(lines or [type(error).__name__])[-1][:160]}".replace("|", "/")


def _logits(runner: Runner, inputs: _Inputs) -> np.ndarray:
    """Of all images, in batches of the size the file takes, the last one filled up."""
    count = len(inputs.images)
    outputs = []
    for start in range(0, count, inputs.batch):
        index = np.arange(start, start + inputs.batch) % count
        outputs.append(runner.run(np.ascontiguousarray(inputs.images[index])))
    return np.concatenate(outputs)[:count]


def _compare(probe: Probe, expected: torch.Tensor, logits: torch.Tensor) -> None:
    comparison = LogitComparison()
    comparison.add(expected, logits)
    report = comparison.report()
    equal = report["images"] - len(report["exceptions"])
    probe.classes = f"{equal} of {report['images']}"
    probe.difference = f"{report['max_difference']:.2g} of {float(expected.abs().max()):.2g}"


def _time(probes: Sequence[Probe], inputs: dict[Path, _Inputs], rounds: int) -> None:
    """Median time of each, measured in turn: a slow minute of the machine slows all alike."""
    running = [probe for probe in probes if probe.runner is not None]
    seconds: list[list[float]] = [[] for _ in running]
    for round_ in range(rounds + 1):
        for probe, taken in zip(running, seconds, strict=True):
            given = inputs[probe.file]
            images = np.ascontiguousarray(given.images[np.arange(given.batch) % len(given.images)])
            start = time.perf_counter()
            probe.runner.run(images)
            if round_:  # the first run allocates
                taken.append((time.perf_counter() - start) / given.batch)
    for probe, taken in zip(running, seconds, strict=True):
        probe.milliseconds = 1000 * statistics.median(taken) if taken else None


def _table(probes: Sequence[Probe]) -> list[str]:
    return list(markdown(HEAD, map(_cells, probes)))


def _cells(probe: Probe) -> tuple[str, ...]:
    time_ = "" if probe.milliseconds is None else f"{probe.milliseconds:.2f}"
    return (
        probe.file.name, f"{file_bytes(probe.file) / 1000:.0f}", probe.engine.name,
        probe.loads, probe.runs, probe.classes, probe.difference, time_, probe.kernels,
    )  # fmt: skip
