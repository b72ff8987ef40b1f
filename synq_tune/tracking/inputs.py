"""The images of a study as MLflow's datasets: what a run was given, by digest, never the images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synq_tune.config import StudySpec
from synq_tune.study.stages import Dataset

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_DIGEST_LENGTH = 32
"""MLflow takes 36 characters."""


@dataclass(frozen=True)
class Labelled:
    """The labelled images of a study."""

    address: str
    """Hash of their pixels and labels."""
    chosen_on: int
    """How many of them choose."""
    reported_on: int
    """How many of them only report."""


def dataset_inputs(
    spec: StudySpec, made: Dataset, labelled: Labelled | None, with_paths: bool
) -> list[DatasetInput]:
    """The synthetic images, and the labelled ones where there are any.

    Args:
        spec: of the study.
        made: the synthetic dataset.
        labelled: None without labels.
        with_paths: whether to say where they lie, which only this machine shall know.
    """
    rows = {"num_rows": made.num_images, "num_holdout": made.num_holdout, "method": made.method}
    found = [
        _input("synthetic images", made.sha256, "training", rows, made.path if with_paths else None)
    ]
    if labelled is not None:
        total = labelled.chosen_on + labelled.reported_on
        halves = {"chosen_on": labelled.chosen_on, "reported_on": labelled.reported_on}
        profile, place = {"num_rows": total, **halves}, spec.study.val_data if with_paths else None
        found.append(_input("labelled images", labelled.address, "evaluation", profile, place))
    return found


def _input(
    name: str, digest: str, context: str, profile: dict[str, Any], place: str | None
) -> DatasetInput:
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    # MLflow's two kinds of source that need no library: a path, and code that made it.
    kind, source = ("code", {"tags": {}}) if place is None else ("local", {"uri": place})
    told = json.dumps(source), None, json.dumps(profile)
    dataset = Entity(name, digest[:_DIGEST_LENGTH], kind, *told)
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, context)])
