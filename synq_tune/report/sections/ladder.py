"""What each step from full precision to the best found is worth."""

from __future__ import annotations

from synq_tune.report.blocks import Bar, Bars, Prose, Section
from synq_tune.report.material import Material
from synq_tune.report.numbers import interval, percent
from synq_tune.study.measured_on import measured_on
from synq_tune.study.progress import hardly_needed_line, target_line
from synq_tune.study.rungs import BEST
from synq_tune.study.stages import Rung
from synq_tune.trial.evaluation import confidence_interval


def ladder(material: Material) -> Section:
    """The rungs as bars with their 95 % intervals."""
    stage = material.state.stages.ladder
    if stage is None or not stage.rungs:
        return Section("ladder", "The ladder", "The ladder is measured at the end of a search.")
    blocks = [Bars([_bar(rung) for rung in stage.rungs]), Prose(_meaning(stage.rungs[0]))]
    lines = (target_line(material.state), hardly_needed_line(material.state))
    blocks += [Prose(_sentence(line)) for line in lines if line]
    return Section("ladder", "The ladder", _lead(stage.rungs[0]), blocks)


def _lead(rung: Rung) -> str:
    what = "Agreement with the teacher" if rung.top1 is None else "Top-1 accuracy"
    return f"{what} after each step, {measured_on(rung)}."


def _meaning(rung: Rung) -> str:
    bars = "The thin line on a bar is its 95 % interval (Wilson). "
    if rung.top1 is None:
        return (
            bars + "Agreement is the share of synthetic images on which the student names the "
            "teacher's class. It is no accuracy."
        )
    return (
        bars
        + "Noise and the synthetic set stand for what the ranges were calibrated on, before any "
        "training. The paper's defaults are SynQ's own settings, trained as long as the others."
    )


def _bar(rung: Rung) -> Bar:
    is_best = rung.name == BEST
    if rung.diverged is not None:
        return Bar(rung.name, None, note="diverged", is_best=is_best)
    if rung.top1 is not None:
        note = f"agreement {percent(rung.agreement)}" if rung.agreement is not None else ""
        return Bar(rung.name, rung.top1, rung.low, rung.high, note, is_best)
    if rung.agreement is None or not rung.probes:
        return Bar(rung.name, rung.agreement, note="", is_best=is_best)
    low, high = confidence_interval(rung.agreement, rung.probes)
    return Bar(rung.name, rung.agreement, low, high, "", is_best)


def bar_text(bar: Bar) -> str:
    """The number beside a bar."""
    spread = interval(bar.low, bar.high)
    return percent(bar.value) + (f" ({spread})" if spread else "")


def _sentence(line: str) -> str:
    return line[0].upper() + line[1:].rstrip(".") + "."
