"""What came out, in one look."""

from __future__ import annotations

from synq_tune.notes import counted
from synq_tune.process.invocation import command_line
from synq_tune.report.blocks import Block, Caution, Code, Fact, Facts, Heading, Prose, Section
from synq_tune.report.material import Material
from synq_tune.report.numbers import duration, interval, percent, size
from synq_tune.study.rungs import BEST, FULL_PRECISION
from synq_tune.study.stages import Rung
from synq_tune.study.state import StudyState
from synq_tune.study.status import stage_reached
from synq_tune.study.summary import best_bits, counts
from synq_tune.trial.evaluation import confidence_interval


def card(material: Material) -> Section:
    """Bits, accuracy, loss, size, time, parity, duration, and the command to repeat it."""
    blocks: list[Block] = [*_cautions(material), Facts(_facts(material))]
    blocks += [Heading("Repeat it"), Prose(_HOW), Code(repeat_line())]
    return Section("card", "What came out", _lead(material), blocks)


SETTINGS_FILE = "study.yaml"
_HOW = (
    f"Save the settings at the end of this page as {SETTINGS_FILE}. Then this command makes the "
    "same study again:"
)


def repeat_line() -> str:
    """The command that makes the study again from its settings."""
    return command_line("search.py", "--space", SETTINGS_FILE)


def _lead(material: Material) -> str:
    best, bits = material.best, best_bits(material.state)
    if best is None:
        return "No trial has completed, so there is no model yet."
    return (
        f"The best model found has {bits.weights}-bit weights and {bits.activations}-bit values"
        f"{', and layers with widths of their own' if bits.is_mixed else ''}. "
        f"It comes from trial {best.number}."
    )


def _cautions(material: Material) -> list[Block]:
    state = material.state
    action = state.sessions[-1]["action"] if state.sessions else "started"
    if action == "finished" or material.is_ending:
        return []
    word = "was interrupted" if action == "interrupted" else "has not ended"
    return [Caution(f"The study {word}. It has come this far: {stage_reached(state)}.")]


def _facts(material: Material) -> list[Fact]:
    state = material.state
    facts = [_bits(state), *_accuracy(state, material), *_sizes(state), *_time(state)]
    return [*facts, *_parity(state), _duration(state), _trials(state)]


def _bits(state: StudyState) -> Fact:
    bits = best_bits(state)
    note = (
        f"weights of {bits.weights} bits (W), values between layers of {bits.activations} bits (A)"
    )
    if bits.is_mixed:
        note += "; layers with widths of their own are listed below"
    mixed = " mixed" if bits.is_mixed else ""
    return Fact("Bits", f"W{bits.weights} A{bits.activations}{mixed}", note)


def _accuracy(state: StudyState, material: Material) -> list[Fact]:
    ladder = state.stages.ladder
    best = ladder.rung(BEST) if ladder else None
    full = ladder.rung(FULL_PRECISION) if ladder else None
    if best is None or best.diverged is not None:
        return _so_far(material)
    if best.top1 is None:
        return [_agreement(best)]
    return [_top1(best), *_loss(best, full)]


def _so_far(material: Material) -> list[Fact]:
    best = material.best
    if best is None:
        return []
    number = best.metrics.get(material.metric)
    shown = "–" if number is None else f"{number:.4g}"
    return [Fact(f"{material.metric} so far", shown, "on what chooses, so it flatters")]


def _top1(best: Rung) -> Fact:
    spread = interval(best.low, best.high)
    note = f"95 % interval {spread} on {counted(best.num_images or 0, 'image')} that chose nothing"
    return Fact("Top-1", percent(best.top1), note)


def _agreement(best: Rung) -> Fact:
    note = "share of images on which student and teacher name the same class"
    if best.probes and best.agreement is not None:
        spread = interval(*confidence_interval(best.agreement, best.probes))
        note += f"; 95 % interval {spread} on {best.probes:,} synthetic images"
    return Fact("Agreement", percent(best.agreement), note)


def _loss(best: Rung, full: Rung | None) -> list[Fact]:
    if full is None or full.top1 is None or best.top1 is None:
        return []
    note = f"full precision has {percent(full.top1)} on the same images"
    return [Fact("Loss", f"{full.top1 - best.top1:.2f} points", note)]


def _sizes(state: StudyState) -> list[Fact]:
    sizes = state.stages.parity.report.get("sizes", {}) if state.stages.parity else {}
    if "packed" not in sizes or "float32" not in sizes:
        return []
    ratio = sizes["float32"] / sizes["packed"]
    note = f"packed file, {ratio:.1f} times smaller than {size(sizes['float32'])} in float32"
    return [Fact("Size", size(sizes["packed"]), note)]


def _time(state: StudyState) -> list[Fact]:
    """Of the ONNX file as a runtime takes it by itself: its last level."""
    logits = state.stages.parity.report.get("logits", {}) if state.stages.parity else {}
    timed = [e for name, e in logits.items() if name.startswith("onnx") and e.get("ms_per_image")]
    if not timed:
        return []
    note = (
        f"model.onnx in ONNX Runtime on the searching machine's CPU, mean of "
        f"{counted(timed[-1]['images'], 'image')} in batches"
    )
    return [Fact("Time per image", f"{timed[-1]['ms_per_image']:.3g} ms", note)]


def _parity(state: StudyState) -> list[Fact]:
    logits = state.stages.parity.report.get("logits", {}) if state.stages.parity else {}
    if not logits:
        return []
    worst = min(entry["agreement"] for entry in logits.values())
    count = next(iter(logits.values()))["images"]
    note = (
        f"share of {counted(count, 'image')} on which the files name the same class as the student"
    )
    return [Fact("Parity", percent(worst), note)]


def _duration(state: StudyState) -> Fact:
    seconds, count = wall_time(state)
    note = "" if count < 2 else f"over {count} sessions"
    return Fact("Duration", duration(seconds), note)


def wall_time(state: StudyState) -> tuple[float, int]:
    """Seconds that drivers worked on the study, as far as the ledger shows, and how many did."""
    begins = [s["at"] for s in state.sessions if s["action"] == "started"]
    times = [s["at"] for s in state.sessions]
    times += [t for r in state.runs.values() for t in (r.started_at, r.finished_at) if t]
    limits = [*begins[1:], float("inf")]
    spans = [
        max([t for t in times if begin <= t < limit], default=begin) - begin
        for begin, limit in zip(begins, limits, strict=True)
    ]
    return sum(spans), len(begins)


def _trials(state: StudyState) -> Fact:
    found = {name: count for name, count in counts(state).items() if count}
    note = ", ".join(f"{count} {name}" for name, count in found.items())
    repeats = len(state.of_kind("confirm"))
    note += f"; {counted(repeats, 'repeat')} with other seeds" if repeats else ""
    return Fact("Trials", f"{sum(found.values())} of {state.num_trials}", note)
