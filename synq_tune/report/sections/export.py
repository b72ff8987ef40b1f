"""The files of the best model, and how to use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synq_tune.notes import counted
from synq_tune.report.blocks import Block, Code, Heading, Prose, Section, Table
from synq_tune.report.material import Material
from synq_tune.report.numbers import size
from synq_tune.study.stages import Best

_WHAT = {
    "model.onnx": "for ONNX Runtime and whatever reads ONNX",
    "model.hardware.onnx": "for integer hardware",
    "model.tflite": "for LiteRT: phones and microcontrollers",
    "model.packed.safetensors": "weights at their true width",
    "golden.npz": "images with the values that they must give",
    "config.yaml": "settings of the model",
    "parity.json": "how the files compare with the student",
}


def export(material: Material) -> Section:
    """Files with sizes and sums, parity, and a snippet that loads them."""
    title, best = "The model's files", material.state.stages.best
    if best is None:
        return Section("export", title, "No model is exported yet.")
    blocks: list[Block] = [_files(material, best), *_parity(material)]
    blocks += [Heading("Use it"), Prose(_USE), Code(snippet())]
    lead = f"They lie in the folder best of the study and stand alone. They hold {best.key}."
    return Section("export", title, lead, blocks)


def _files(material: Material, best: Best) -> Table:
    folder = material.folder / "best"
    rows = []
    for name, sha256 in best.files.items():
        path = folder / name
        there = size(path.stat().st_size) if path.is_file() else "not there"
        rows.append((name, there, _WHAT.get(name, ""), sha256[:16] + "…"))
    return Table(("file", "size", "what for", "SHA-256"), rows, frozenset({1}))


def _parity(material: Material) -> list[Block]:
    stage = material.state.stages.parity
    report: Mapping[str, Any] = stage.report if stage else {}
    logits = report.get("logits", {})
    if not logits:
        return []
    rows = [
        (
            name,
            f"{e['agreement']:.2f}",
            f"{e['max_difference']:.2g}",
            f"{e['images']:,}",
            f"{e['ms_per_image']:.3g}" if e.get("ms_per_image") else "",
        )
        for name, e in logits.items()
    ]
    heads = ("file", "same class %", "largest difference of a logit", "images", "ms an image")
    codes = report.get("weight_codes", {}).values()
    wrong, total = sum(c["mismatches"] for c in codes), sum(c["codes"] for c in codes)
    return [
        Heading("Do the files compute what the student computes?"),
        Prose(
            f"Parity: the files and the PyTorch student see the same images. {wrong:,} of "
            f"{counted(total, 'weight code')} differ. BASIC and ALL are ONNX Runtime's optimisation levels."
            + kernels_sentence(report.get("kernels", {}))
        ),
        Table(heads, rows, frozenset({1, 2, 3, 4})),
    ]


def kernels_sentence(counts: Mapping[str, Any]) -> str:
    """What the check of a .tflite file found, by family of LiteRT's kernels."""
    found = [
        f"by {family}, {c['mismatches']:,} of {counted(c['codes'], 'code')} differ"
        for family, c in counts.items()
    ]
    if not found:
        return ""
    return (
        " fixed and float are LiteRT's two families of kernels; from the reference of each, "
        f"{' and '.join(found)}."
    )


_USE = (
    "Images are RGB (or grey) in [0, 1], batch × channels × height × width. The file normalises them "
    "itself. Run this in the study's folder:"
)


def snippet() -> str:
    """Six lines of Python that classify the golden images with the exported file."""
    return (
        "import numpy as np\n"
        "import onnxruntime\n"
        "\n"
        'session = onnxruntime.InferenceSession("best/model.onnx")\n'
        'images = np.load("best/golden.npz")["images"]  # your images here\n'
        "(logits,) = session.run(None, {session.get_inputs()[0].name: images})\n"
        "print(logits.argmax(1))"
    )
