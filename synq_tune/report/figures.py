"""The figures of a search, as plotly takes them: plain values, no library needed."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

from synq_tune.config import Domain
from synq_tune.config.metrics import METRICS, mode_of
from synq_tune.notes import counted
from synq_tune.report.measured.histograms import Histogram
from synq_tune.report.measured.layer_noise import LayerNoise
from synq_tune.report.measured.mistakes import Mistakes, Reliability
from synq_tune.report.numbers import value
from synq_tune.study.state import Run

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY, INK, LINE = "#8A94A0", "#24303C", "#E3E8EE"
"""The first four are of Okabe and Ito's palette, which colour-blind readers can tell apart."""
SHADES = ("#D6E6F2", "#A9CCE3", "#6FAED6", "#2F86BF", "#084C7F")
"""From the worst fifth of the trials to the best."""
_LONGEST = 40
_WIDE = 20.0
"""Ratio of the ends of an interval from which its axis is logarithmic."""

Figure = dict[str, Any]


def plain(text: object) -> str:
    """A text for a figure: shortened, and no part of it is taken for markup."""
    short = str(text)
    short = short if len(short) <= _LONGEST else short[: _LONGEST - 1] + "…"
    return html.escape(short, quote=False)


def figure(data: Sequence[dict[str, Any]], **layout: Any) -> Figure:
    """A figure in the page's style."""
    base: Figure = {
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13,
                 "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 16, "t": 28, "b": 48},
        "hoverlabel": {"align": "left"},
        "showlegend": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    }  # fmt: skip
    axes = {name: {**_AXIS, **layout.pop(name, {})} for name in ("xaxis", "yaxis")}
    return {"data": list(data), "layout": {**base, **axes, **layout}}


_AXIS = {"gridcolor": LINE, "zerolinecolor": LINE, "linecolor": LINE, "automargin": True,
         "fixedrange": True}  # fmt: skip


def _title(text: str) -> dict[str, Any]:
    return {"title": {"text": plain(text), "standoff": 8}}


def metric_title(metric: str) -> str:
    """`top1 (%)`, as axes name a metric."""
    unit = " (%)" if metric in ("top1", "agreement") else ""
    return f"{metric}{unit}"


def _number(metric: str, number: float) -> str:
    return f"{number:{METRICS[metric].text_format}}" if metric in METRICS else f"{number:g}"


def _about(run: Run, metric: str) -> str:
    """What a pointer over a run says."""
    measured = run.metrics.get(metric)
    lines = [f"{run.key}: {run.state}"]
    lines += [f"{metric} {_number(metric, measured)}"] if measured is not None else []
    lines += [f"{key} = {value(v)}" for key, v in run.params.items()]
    return "<br>".join(map(plain, lines))


def history(runs: Sequence[Run], metric: str, best: Run | None) -> Figure:
    """Each trial's metric by its number, and the best so far; stopped trials are hollow."""
    measured = [run for run in runs if metric in run.metrics]
    marks = {
        "completed": {"color": BLUE, "size": 9},
        "stopped": {"color": "rgba(0,0,0,0)", "size": 9, "line": {"color": GREY, "width": 1.6}},
    }
    data = []
    for state, mark in marks.items():
        chosen = [run for run in measured if run.state == state]
        if chosen:
            data.append(_points(chosen, metric, state, mark))
    completed = [run for run in measured if run.state == "completed"]
    if len(completed) > 1:
        data.insert(0, _best_so_far(completed, metric))
    data += _without_value(runs, measured, metric)
    notes = [_best_note(best, metric)] if best is not None and best in measured else []
    return figure(
        data, xaxis={**_title("trial"), **_whole(runs)}, yaxis=_title(metric_title(metric)),
        annotations=notes, showlegend=True,
    )  # fmt: skip


def _whole(runs: Sequence[Run]) -> dict[str, Any]:
    """Ticks at whole numbers only."""
    return {"dtick": max(1, math.ceil(len(runs) / 10)), "tick0": 0, "zeroline": False}


def _points(runs: Sequence[Run], metric: str, name: str, mark: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": name, "marker": mark,
        "x": [run.number for run in runs], "y": [run.metrics[metric] for run in runs],
        "text": [_about(run, metric) for run in runs], "hoverinfo": "text",
    }  # fmt: skip


def _best_so_far(runs: Sequence[Run], metric: str) -> dict[str, Any]:
    pick = min if mode_of(metric) == "min" else max
    values = [run.metrics[metric] for run in runs]
    so_far = [pick(values[: count + 1]) for count in range(len(values))]
    return {
        "type": "scatter", "mode": "lines", "name": "best so far", "hoverinfo": "skip",
        "line": {"color": ORANGE, "width": 2, "shape": "hv"},
        "x": [run.number for run in runs], "y": so_far,
    }  # fmt: skip


def _without_value(
    runs: Sequence[Run], measured: Sequence[Run], metric: str
) -> list[dict[str, Any]]:
    """Crosses below the others for trials that ended without a number."""
    lost = [run for run in runs if run.state in ("diverged", "failed")]
    if not lost:
        return []
    values = [run.metrics[metric] for run in measured] or [0.0]
    floor = min(values) - 0.06 * (max(values) - min(values) or 1.0)
    return [{
        "type": "scatter", "mode": "markers", "name": "diverged or failed",
        "marker": {"symbol": "x-thin", "size": 9, "line": {"color": RED, "width": 2}},
        "x": [run.number for run in lost], "y": [floor] * len(lost),
        "text": [_about(run, metric) for run in lost], "hoverinfo": "text",
    }]  # fmt: skip


def _best_note(best: Run, metric: str) -> dict[str, Any]:
    text = f"trial {best.number}: {_number(metric, best.metrics[metric])}"
    return {
        "x": best.number, "y": best.metrics[metric], "text": plain(text), "showarrow": True,
        "arrowhead": 0, "arrowcolor": INK, "ax": 0, "ay": 34, "bgcolor": "rgba(255,255,255,.85)",
    }  # fmt: skip


def learning_curves(runs: Sequence[Run], metric: str, best: Run | None) -> Figure | None:
    """The metric by epoch, a line a trial; None where no trial was measured twice."""
    return _curves(runs, best, lambda row: row["metrics"].get(metric), metric_title(metric))


def loss_curves(runs: Sequence[Run], name: str, best: Run | None) -> Figure | None:
    """One training loss by epoch, a line a trial; None where no trial has two values."""
    return _curves(runs, best, lambda row: row["losses"].get(name), f"{name} loss")


def _curves(
    runs: Sequence[Run],
    best: Run | None,
    read: Callable[[dict[str, Any]], float | None],
    title: str,
) -> Figure | None:
    lines = {run.key: _line(run, read) for run in runs}
    if all(len(x) < 2 for x, _ in lines.values()):
        return None
    ordered = sorted(runs, key=lambda run: run is best)  # the best lies on top
    data = [_curve(run, *lines[run.key], run is best) for run in ordered if lines[run.key][0]]
    last = max(x[-1] for x, _ in lines.values() if x)
    epochs = {"dtick": max(1, math.ceil(last / 10)), "tick0": 0, "zeroline": False}
    return figure(data, xaxis={**_title("epoch"), **epochs}, yaxis=_title(title))


def _line(
    run: Run, read: Callable[[dict[str, Any]], float | None]
) -> tuple[list[int], list[float]]:
    found = [(row["epoch"], read(row)) for row in run.history]
    kept = [(epoch, number) for epoch, number in found if number is not None]
    return [epoch for epoch, _ in kept], [number for _, number in kept]


def _curve(run: Run, x: list[int], y: list[float], is_best: bool) -> dict[str, Any]:
    color = ORANGE if is_best else BLUE if run.state == "completed" else GREY
    return {
        "type": "scatter", "mode": "lines+markers", "x": x, "y": y, "name": plain(run.key),
        "line": {"color": color, "width": 3 if is_best else 1.2},
        "marker": {"size": 6 if is_best else 4}, "opacity": 1.0 if is_best else 0.55,
        "hovertemplate": f"{plain(run.key)}, {plain(run.state)}<br>epoch %{{x}}: %{{y:.4g}}"
        "<extra></extra>",
    }  # fmt: skip


def parallel(
    runs: Sequence[Run], domains: dict[str, Domain], metric: str, best: Run | None
) -> Figure:
    """Each completed trial as a line over its parameters; the darker, the better."""
    keys = list(domains)
    done = [run for run in runs if run.state == "completed" and metric in run.metrics]
    ranked = sorted(done, key=lambda run: run.metrics[metric], reverse=mode_of(metric) == "min")
    shades = {run.key: 5 * rank // max(len(ranked), 1) for rank, run in enumerate(ranked)}
    data = [_lines(ranked, shades, number, domains) for number in range(5)]
    if best is not None and best in done:
        data.append(_best_line(best, domains))
    return figure(
        data,
        xaxis={"tickvals": list(range(len(keys))), "ticktext": [plain(k) for k in keys],
               "range": [-0.25, len(keys) - 0.4], "side": "top", "zeroline": False},
        yaxis={"visible": False, "range": [-0.06, 1.06]},
        annotations=[note for at, key in enumerate(keys) for note in _scale(at, domains[key])],
        margin={"l": 16, "r": 16, "t": 44, "b": 16},
    )  # fmt: skip


def _lines(
    ranked: Sequence[Run], shades: dict[str, int], shade: int, domains: dict[str, Domain]
) -> dict[str, Any]:
    """All trials of one shade as one broken line: 200 trials are five traces."""
    x: list[int | None] = []
    y: list[float | None] = []
    for run in (run for run in ranked if shades[run.key] == shade):
        x += [*range(len(domains)), None]
        y += [*(_height(run.params.get(k), d) for k, d in domains.items()), None]
    return {
        "type": "scatter", "mode": "lines", "x": x, "y": y, "hoverinfo": "skip",
        "line": {"color": SHADES[shade], "width": 1.6}, "opacity": 0.8,
    }  # fmt: skip


def _best_line(best: Run, domains: dict[str, Domain]) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "hoverinfo": "text",
        "x": list(range(len(domains))), "marker": {"size": 7},
        "y": [_height(best.params.get(k), d) for k, d in domains.items()],
        "text": [plain(f"{k} = {value(best.params.get(k))}") for k in domains],
        "line": {"color": ORANGE, "width": 3.5},
    }  # fmt: skip


def _height(given: Any, domain: Domain) -> float | None:
    """Where a value lies on its axis, 0 to 1; None where it is not one of the axis."""
    values = domain.values
    if domain.choice is not None:
        places = {value(v): at for at, v in enumerate(values)}
        at = places.get(value(given))
        return None if at is None else (at / (len(values) - 1) if len(values) > 1 else 0.5)
    if not isinstance(given, (int, float)):
        return None
    low, high = values
    if domain.log:
        low, high, given = math.log(low), math.log(high), math.log(max(given, 1e-300))
    return (given - low) / (high - low)


def _scale(at: int, domain: Domain) -> list[dict[str, Any]]:
    """The values beside an axis."""
    shown = [(v, _height(v, domain)) for v in domain.values]
    return [
        {"x": at, "y": height, "text": plain(value(v)), "showarrow": False, "xanchor": "left",
         "xshift": 6, "font": {"size": 11, "color": INK}, "bgcolor": "rgba(255,255,255,.75)"}
        for v, height in shown
    ]  # fmt: skip


def one_parameter(
    runs: Sequence[Run], key: str, domain: Domain, metric: str, best: Run | None
) -> Figure:
    """The metric by the value of one parameter: a slice through the search."""
    done = [run for run in runs if metric in run.metrics and key in run.params]
    groups = {
        "stopped": ([run for run in done if run.state == "stopped"], "rgba(0,0,0,0)"),
        "completed": ([run for run in done if run.state == "completed" and run is not best], BLUE),
        "best": ([run for run in done if run is best], ORANGE),
    }
    data = [
        _slice_points(chosen, key, domain, metric, color, name)
        for name, (chosen, color) in groups.items()
        if chosen
    ]
    return figure(
        data, xaxis={**_title(key), **_slice_axis(domain)}, yaxis=_title(metric_title(metric)),
        margin={"l": 48, "r": 8, "t": 8, "b": 40},
    )  # fmt: skip


def _slice_points(
    runs: Sequence[Run], key: str, domain: Domain, metric: str, color: str, name: str
) -> dict[str, Any]:
    is_choice = domain.choice is not None
    line = {"color": GREY if name == "stopped" else "white", "width": 1.4}
    return {
        "type": "scatter", "mode": "markers", "hoverinfo": "text",
        "x": [plain(value(r.params[key])) if is_choice else r.params[key] for r in runs],
        "y": [run.metrics[metric] for run in runs], "text": [_about(r, metric) for r in runs],
        "marker": {"color": color, "size": 11 if name == "best" else 8, "opacity": 0.85,
                   "line": line},
    }  # fmt: skip


def _slice_axis(domain: Domain) -> dict[str, Any]:
    if domain.choice is not None:
        names = [plain(value(v)) for v in domain.values]
        return {"type": "category", "categoryorder": "array", "categoryarray": names,
                "range": [-0.5, len(names) - 0.5]}  # fmt: skip
    low, high = domain.values
    is_log = domain.log or (low > 0 and high / low >= _WIDE)
    return {"type": "log" if is_log else "linear"}


def importance_bars(importances: dict[str, float]) -> Figure:
    """Each parameter's share of the metric's variation, the largest on top."""
    ordered = sorted(importances.items(), key=lambda pair: pair[1])
    bars = {
        "type": "bar", "orientation": "h", "hoverinfo": "skip", "cliponaxis": False,
        "x": [100 * share for _, share in ordered], "y": [plain(key) for key, _ in ordered],
        "text": [f"{100 * share:.0f} %" for _, share in ordered], "textposition": "outside",
        "marker": {"color": BLUE},
    }  # fmt: skip
    return figure(
        [bars], xaxis={**_title("share of the variation (%)"), "rangemode": "tozero"},
        yaxis={"type": "category"}, bargap=0.35, margin={"l": 56, "r": 44, "t": 8, "b": 44},
    )  # fmt: skip


def timeline(runs: Sequence[Run]) -> Figure | None:
    """When each run was on its way, one lane per place; None where no run has ended."""
    timed = sorted(
        (run for run in runs if run.started_at is not None and run.finished_at is not None),
        key=lambda run: run.started_at or 0.0,
    )
    if not timed:
        return None
    lanes = _lanes(timed)
    start = timed[0].started_at or 0.0
    longest = max(run.finished_at for run in timed) - start
    unit, name = (60.0, "minutes") if longest < 3 * 3600 else (3600.0, "hours")
    data = [_spans([r for r in timed if r.state == state], lanes, start, unit, state, color)
            for state, color in _SPANS.items()]  # fmt: skip
    count = max(lanes.values()) + 1
    return figure(
        [d for d in data if d["x"]],
        xaxis={**_title(f"{name} since the first run began"), "zeroline": False},
        yaxis={"tickvals": list(range(count)), "ticktext": [f"place {n + 1}" for n in range(count)],
               "range": [count - 0.4, -0.6], "zeroline": False, "showgrid": False},
        uniformtext={"minsize": 9, "mode": "hide"}, barmode="overlay", bargap=0.2, showlegend=True,
    )  # fmt: skip


_SPANS = {"completed": BLUE, "stopped": "#B8C2CC", "diverged": RED, "failed": "#7A3E00"}


def _lanes(timed: Sequence[Run]) -> dict[str, int]:
    """The first free place of each run: the ledger does not say which worker had it."""
    free: list[float] = []
    lanes = {}
    for run in timed:
        lane = next((n for n, end in enumerate(free) if end <= run.started_at), len(free))
        free[lane : lane + 1] = [run.finished_at]
        lanes[run.key] = lane
    return lanes


def _spans(
    runs: Sequence[Run], lanes: dict[str, int], start: float, unit: float, name: str, color: str
) -> dict[str, Any]:
    return {
        "type": "bar", "orientation": "h", "name": name, "hoverinfo": "text",
        "marker": {"color": color, "line": {"color": "white", "width": 1}},
        "base": [(run.started_at - start) / unit for run in runs],
        "x": [(run.finished_at - run.started_at) / unit for run in runs],
        "y": [lanes[run.key] for run in runs], "width": 0.72,
        "text": [plain(_short(run)) for run in runs], "textposition": "inside",
        "insidetextanchor": "middle", "textangle": 0,
        "hovertext": [plain(f"{r.key}: {r.state}, {r.finished_at - r.started_at:.1f} s")
                      for r in runs],
    }  # fmt: skip


def _short(run: Run) -> str:
    return str(run.number) if run.kind == "search" else run.key


def noise_line(noise: Sequence[LayerNoise]) -> Figure:
    """The signal-to-noise ratio from the first layer to the last."""
    line = {
        "type": "scatter", "mode": "lines+markers", "line": {"color": BLUE, "width": 2},
        "marker": {"size": 6}, "x": list(range(1, len(noise) + 1)),
        "y": [row.decibels for row in noise], "hoverinfo": "text",
        "text": [plain(f"{row.name}: {row.decibels:.1f} dB") for row in noise],
    }  # fmt: skip
    axis = {**_title("layer, in the order of the network"), "zeroline": False}
    return figure([line], xaxis=axis, yaxis=_title("SNR (dB)"))


def histogram(found: Histogram, title: str, axis: str) -> Figure:
    """How often numbers lie where, and the points of the grid."""
    top = max(found.shares) or 1.0
    bars = {"type": "bar", "x": found.centers, "y": found.shares, "marker": {"color": "#7FB5D6"},
            "hovertemplate": "%{x:.3g}: %{y:.2f} %<extra></extra>"}  # fmt: skip
    x, y = [], []
    for at in found.lines:
        x += [at, at, None]
        y += [0, top, None]
    lines = {"type": "scatter", "mode": "lines", "x": x, "y": y, "hoverinfo": "skip",
             "line": {"color": ORANGE, "width": 1.4}}  # fmt: skip
    return figure(
        [bars, lines], xaxis={**_title(axis), "zeroline": False}, yaxis=_title("%"), bargap=0,
        title={"text": plain(title), "font": {"size": 12}, "x": 0, "xref": "container"},
        margin={"l": 44, "r": 8, "t": 30, "b": 40},
    )  # fmt: skip


def confidences(shares: Sequence[float]) -> Figure:
    """The teacher's confidence: a bar for each of equal bins from 0 to 100 %."""
    width = 100 / len(shares)
    bars = {"type": "bar", "marker": {"color": BLUE}, "width": width * 0.92,
            "x": [width * (n + 0.5) for n in range(len(shares))], "y": list(shares),
            "hovertemplate": "%{y:.1f} % of the images<extra></extra>"}  # fmt: skip
    return figure(
        [bars], xaxis={**_title("the teacher's confidence (%)"), "range": [0, 100]},
        yaxis=_title("images (%)"),
    )  # fmt: skip


def reliability(found: Mistakes) -> Figure:
    """Accuracy by confidence, a point a bin; the larger, the more images."""
    line = {"type": "scatter", "mode": "lines", "x": [0, 100], "y": [0, 100], "hoverinfo": "skip",
            "showlegend": False, "line": {"color": GREY, "width": 1, "dash": "dash"}}  # fmt: skip
    networks = (("teacher", found.teacher, GREY), ("student", found.student, BLUE))
    return figure(
        [line, *(_bins(*network, found.count) for network in networks)],
        xaxis={**_title("confidence (%)"), "range": [0, 104]},
        yaxis={**_title("accuracy (%)"), "range": [0, 108]}, showlegend=True,
    )  # fmt: skip


def _bins(name: str, bins: Sequence[Reliability], color: str, total: int) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "line": {"color": color},
        "x": [b.confidence for b in bins], "y": [b.accuracy for b in bins], "hoverinfo": "text",
        "text": [f"{name}: {counted(b.count, 'image')}, sure {b.confidence:.1f} %, right {b.accuracy:.1f} %"
                 for b in bins],
        "marker": {"size": [6 + 16 * math.sqrt(b.count / total) for b in bins], "color": color},
    }  # fmt: skip
