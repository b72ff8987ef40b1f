"""Why the best is the best: the finalists over seeds, and what chose against what reports."""

from __future__ import annotations

from synq_tune.notes import counted
from synq_tune.report.blocks import Block, Heading, Prose, Section, Table
from synq_tune.report.material import Material
from synq_tune.study.rungs import BEST
from synq_tune.study.state import Run, StudyState
from synq_tune.study.summary import Repeated, finalist, objectives, repeated
from synq_tune.study.why import why_line


def choice(material: Material) -> Section:
    """The rule, the finalists, ties, and the choosing half against the reporting half."""
    title, best = "Why this one", material.best
    if best is None:
        return Section("choice", title, "Nothing was chosen: no trial has completed.")
    groups = sorted(
        repeated(material.state), key=lambda group: group.rank(material.metric), reverse=True
    )
    blocks: list[Block] = []
    if groups:
        blocks += [_finalists(groups, material.metric, best)]
    else:
        blocks += [Prose("No finalist was repeated with other seeds, so luck is not ruled out.")]
    why = why_line(material.state)
    blocks += [Prose(f"What decided: {why}.")] if why else []
    return Section("choice", title, _rule(material, bool(groups)), [*blocks, *_halves(material)])


def _rule(material: Material, is_repeated: bool) -> str:
    metric, best = material.metric, material.best
    if material.state.spec.study.has_front:
        return _front_rule(material, is_repeated)
    if not is_repeated:
        return f"Trial {best.number} is the completed trial with the best {metric}."
    confirm = material.state.spec.study.confirm
    asked = "The finalists ran"
    if confirm:
        asked = "The best trial ran" if confirm.top == 1 else f"The best {confirm.top} trials ran"
    return (
        f"{asked} again with other seeds. Whoever failed under the fewest seeds comes first, then "
        f"the best mean of {metric}; equal means go to the lower holdout_kl, the distance of the "
        f"student's and the teacher's probabilities. That is trial {best.number}."
    )


def _front_rule(material: Material, is_repeated: bool) -> str:
    goals = " and ".join(objectives(material.state))
    again = (
        "Every point of the front ran again with other seeds; those that failed under the fewest "
        "count, by their means. "
    )
    return (
        f"{again if is_repeated else ''}Trial {material.best.number} is the knee of the front of "
        f"{goals}."
    )


def _finalists(groups: list[Repeated], metric: str, best: Run) -> Table:
    most = max(len(group.runs) for group in groups)
    heads = ["trial", "mean", *(f"seed {n + 1}" for n in range(most)), "failed seeds"]
    rows = [_row(group, metric, most) for group in groups]
    marked = next((n for n, g in enumerate(groups) if g.run.number == best.number), None)
    return Table(heads, rows, frozenset(range(len(heads))), marked=marked)


def _row(group: Repeated, metric: str, most: int) -> list[str]:
    mean = finalist(group, metric)["mean"]
    seeds = [_value(run, metric) for run in group.runs] + [""] * (most - len(group.runs))
    return [str(group.run.number), f"{mean:.2f}", *seeds, str(group.num_failures)]


def _value(run: Run, metric: str) -> str:
    return f"{run.metrics[metric]:.2f}" if metric in run.metrics else run.state


def _halves(material: Material) -> list[Block]:
    """Whether what chose flatters: the same runs on the half that only reports."""
    rows = _both(material.state, material.best)
    if not rows:
        return []
    flattery = sum(chosen - reported for _, chosen, reported in rows) / len(rows)
    table = Table(
        ("run", "choosing half %", "reporting half %", "difference"),
        [(key, f"{c:.2f}", f"{r:.2f}", f"{c - r:+.2f}") for key, c, r in rows],
        frozenset({1, 2, 3}),
    )
    return [
        Heading("Choosing half against reporting half"),
        Prose(
            "Labelled images are split in two halves. One chooses, the other only reports. "
            f"Over {counted(len(rows), 'run')} the choosing half gives {abs(flattery):.2f} points "
            f"{'more' if flattery > 0 else 'less'} on average."
        ),
        table,
    ]


def _both(state: StudyState, best: Run | None) -> list[tuple[str, float, float]]:
    """(run, top-1 on the choosing half, top-1 on the reporting half), in percent."""
    ladder = state.stages.ladder
    rung = ladder.rung(BEST) if ladder else None
    rows = []
    if best is not None and rung is not None and rung.top1 is not None and "top1" in best.metrics:
        rows.append((best.key, best.metrics["top1"], rung.top1))
    for run in (*state.of_kind("confirm"), *state.of_kind("ladder")):
        if run.report_top1 is not None and "top1" in run.metrics:
            rows.append((run.key, run.metrics["top1"], run.report_top1))
    return rows
