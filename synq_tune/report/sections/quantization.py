"""What is quantized, how much of the work that is, and how far it is from full precision."""

from __future__ import annotations

from collections import Counter

from synq_tune.inspection.student import Inspection, LayerRow
from synq_tune.notes import counted
from synq_tune.report import figures
from synq_tune.report.blocks import Block, Fold, Heading, Plot, Prose, Section, Table, Tiles
from synq_tune.report.material import Material
from synq_tune.report.measured.histograms import Histogram


def quantization(material: Material) -> Section:
    """Layers with reasons, multiplications by width, noise a layer, histograms on their grids."""
    parts = (_layers, _noise, _histograms)
    blocks = [block for part in parts for block in part(material)]
    return Section("quantization", "What is quantized", _lead(material), blocks)


def _lead(material: Material) -> str:
    found = material.evidence.inspection
    if found is None:
        return material.evidence.why("inspection")
    quantized = sum(row.bits is not None for row in found.layers)
    maps = sum(row.bits is not None for row in found.tensors)
    return (
        f"{quantized} of {counted(len(found.layers), 'layer')} have rounded weights, {maps} of "
        f"{counted(len(found.tensors), 'tensor')} rounded values. All else stays float, and "
        "the tables say why."
    )


def _all(count: int, noun: str) -> str:
    return f"The {counted(count, noun)}" if count == 1 else f"All {counted(count, noun)}"


def _layers(material: Material) -> list[Block]:
    found = material.evidence.inspection
    if found is None:
        return []
    return [
        Heading("Multiplications by width"),
        Prose(
            f"One image takes {found.macs / 1e6:,.2f} million multiplications. W is the width of the "
            "weight in bits, A that of the value it is multiplied with."
        ),
        _widths(found),
        Fold(_all(len(found.layers), "layer"), [_layer_table(material, found)]),
        Fold(_all(len(found.tensors), "tensor"), [_tensor_table(found)]),
    ]


def _widths(found: Inspection) -> Table:
    work: Counter[tuple[str, str]] = Counter()
    for row in found.layers:
        work[_bits(row.bits), _bits(row.reads)] += row.macs
    rows = [(w, a, f"{100 * macs / max(found.macs, 1):.1f}") for (w, a), macs in work.most_common()]
    return Table(("W", "A", "share %"), rows, frozenset({2}))


def _bits(bits: int | None) -> str:
    return "float" if bits is None else str(bits)


def _layer_table(material: Material, found: Inspection) -> Table:
    noise = {row.name: row.decibels for row in material.evidence.noise or ()}
    heads = ("layer", "kind", "weight", "W", "A", "multiplications %", "SNR dB", "why float")
    rows = [_layer(row, found.macs, noise) for row in found.layers]
    return Table(heads, rows, frozenset({5, 6}), is_sortable=True)


def _layer(row: LayerRow, macs: int, noise: dict[str, float]) -> list[str]:
    shape = "×".join(map(str, row.shape))
    share = f"{100 * row.macs / max(macs, 1):.1f}"
    decibels = f"{noise[row.name]:.1f}" if row.name in noise else ""
    return [row.name, row.kind, shape, _bits(row.bits), _bits(row.reads), share, decibels, row.why]


def _tensor_table(found: Inspection) -> Table:
    rows = [
        (row.name, row.kind, "×".join(map(str, row.shape)), _bits(row.bits), row.why)
        for row in found.tensors
    ]
    return Table(("tensor", "made by", "shape", "bits", "why float"), rows, is_sortable=True)


def _noise(material: Material) -> list[Block]:
    heading, noise = Heading("Signal to noise, layer by layer"), material.evidence.noise
    if not noise:
        why = material.evidence.why("noise") if noise is None else "No layer kept its name."
        return [heading, Prose(why)]
    worst = min(noise, key=lambda row: row.decibels)
    return [
        heading,
        Prose(
            "The ratio of a layer's full-precision result to what rounding and training changed in "
            "it (SNR), in decibels: at 20 dB the change has a hundredth of the "
            "result's energy, at 0 dB as much as it. "
            f"The lowest is {worst.decibels:.1f} dB, at {worst.name}."
        ),
        Plot(figures.noise_line(noise), "Signal-to-noise ratio of each layer", 320),
    ]


def _histograms(material: Material) -> list[Block]:
    evidence = material.evidence
    blocks: list[Block] = []
    for title, part, axis, meaning in _HISTOGRAMS:
        found = getattr(evidence, part)
        blocks.append(Heading(title))
        if not found:
            blocks.append(Prose(evidence.why(part)))
            continue
        blocks += [Prose(meaning), Tiles([_tile(h, axis) for h in found], 250)]
    return blocks


_HISTOGRAMS = (
    (
        "Weights on their grid",
        "weights",
        "grid steps of the channel",
        "Blue: how often a weight lies there, before it is rounded. Orange: the points of its grid.",
    ),
    (
        "Values on their grid",
        "values",
        "value",
        "Blue: what a grid is given on held-out synthetic images. Orange: the points of the grid. "
        "What lies beyond them is clipped.",
    ),
)


def _tile(found: Histogram, axis: str) -> Plot:
    name = found.name.removeprefix("quantize_")
    title = f"{name}, {found.bits} bits, {found.beyond:.1f} % beyond"
    return Plot(figures.histogram(found, title, axis), f"Histogram of {name}", 230)
