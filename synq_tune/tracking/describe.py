"""What MLflow is told about a study as a whole: params, tags, its table's columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synq_tune import __version__, own_code
from synq_tune.config import Bits, StudySpec
from synq_tune.config.metrics import auto_metric, mode_of
from synq_tune.redact import redact_uri
from synq_tune.study.state import StudyState


def study_id_of(state: StudyState, study_dir: Path) -> str:
    """The study's identity, which stands in search filters, tag names and addresses."""
    return re.sub(r"[^\w.-]", "_", str(state.header.get("id") or study_dir.resolve().name))


def study_params(spec: StudySpec) -> dict[str, str]:
    """The spec as MLflow params: `section.field` → text; a searched field → its domain."""
    params: dict[str, str] = {}
    for key, value in spec.model_dump(mode="json", by_alias=True).items():
        fields = {key: value} if not isinstance(value, dict) else _prefixed(key, value)
        params.update({name: text_of(value) for name, value in fields.items()})
    return params


def _prefixed(section: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    if section == "search":
        fields = {k: {f: v for f, v in d.items() if v} for k, d in fields.items()}
    return {f"{section}.{key}": value for key, value in fields.items()}


def study_tags(spec: StudySpec, metric: str, dataset: str = "") -> dict[str, str]:
    """What to find a study by.

    Args:
        spec: of the study.
        metric: the resolved one, `top1`, `agreement`, `holdout_kl` or `holdout_mse`.
        dataset: SHA-256 of the synthetic dataset.
    """
    tags = {
        "teacher": spec.teacher.model,
        "bits": searched_widths(spec),
        "recipe": spec.recipe,
        "space": spec.name,
        "quantizer": own_code.label(spec.quantizer),
        "metric": metric,
        # A param cannot change, but a resumed study may have more trials than it began with.
        "num_trials": str(spec.study.num_trials),
        "synq_tune.version": __version__,
    }
    return {**tags, "dataset": dataset} if dataset else tags


def widths(bits: Bits) -> str:
    """`W4A4`, the width of what passes a block by where that is wider, and whether layers differ."""
    skip = f" skip {bits.skip}" if bits.skip else ""
    mixed = " mixed" if bits.is_mixed else ""
    return f"W{bits.weights}A{bits.activations}{skip}{mixed}"


def searched_widths(spec: StudySpec) -> str:
    """The same of a study: `W2-8A3` where the weights' width is searched."""
    text = widths(spec.bits)
    for letter, key in (("W", "weights"), ("A", "activations")):
        domain = spec.search.get(f"bits.{key}")
        if domain is not None:
            ends = f"{letter}{min(domain.values)}-{max(domain.values)}"
            text = text.replace(f"{letter}{getattr(spec.bits, key)}", ends)
    return text


def trials_view(spec: StudySpec, parent_id: str) -> dict[str, Any]:
    """What MLflow's "share view" stores in a tag of the experiment: filter, order and columns.

    Filter and order could be part of an address, but the columns could not, and MLflow shows no
    metric unless told to.
    """
    metric = auto_metric(spec.study.metric, has_labels=spec.study.val_data is not None)
    trials = f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.`synq.kind` = 'search'"
    # Metrics stand left of parameters, and tags right of both: MLflow has one order.
    shown = ("top1", "agreement", *(() if metric in ("top1", "agreement") else (metric,)))
    shown = tuple(dict.fromkeys((*shown, *spec.study.objectives[1:])))
    columns = ["attributes.`Duration`", *(f"metrics.`{name}`" for name in shown)]
    return {
        "searchFilter": trials,
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": mode_of(metric) == "min",
        "selectedColumns": [
            *columns,
            *(f"params.`{key}`" for key in spec.search),
            *(f"tags.`{key}`" for key in ("state", "best")),
        ],
    }


def text_of(value: Any) -> str:
    """A value as the text of a param, without credentials."""
    return redact_uri(value if isinstance(value, str) else json.dumps(value))
