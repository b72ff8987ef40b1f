"""Numbers as a page writes them."""

from __future__ import annotations

import json
from typing import Any

_UNITS = ("bytes", "kB", "MB", "GB")


def percent(value: float | None) -> str:
    """`97.99 %`; a dash where there is none."""
    return "–" if value is None else f"{value:.2f} %"


def interval(low: float | None, high: float | None) -> str:
    """`96.23 to 98.94`; empty where there is none."""
    return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def size(count: float) -> str:
    """Bytes as people write them, in steps of 1,000."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.3g} {_UNITS[-1]}"


def duration(seconds: float) -> str:
    """`2 min 6 s`, the two largest units of days, hours, minutes and seconds."""
    rest, parts = round(seconds), []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def value(given: Any) -> str:
    """A setting: numbers short, texts as they are, anything else as JSON."""
    if isinstance(given, float):
        return f"{given:g}"
    return given if isinstance(given, str) else json.dumps(given)
