"""The final table is measured on images that chose nothing, with and without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from synq_tune.config.load import load_space
from synq_tune.data.labelled import LabelledImages
from synq_tune.data.labelled_cache import load_halves
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.models.teacher import load_teacher
from synq_tune.search.ladder import build_ladder
from synq_tune.study.console import ladder_lines
from synq_tune.study.measured_on import measured_on
from synq_tune.study.stages import Rung
from synq_tune.study.state import Run, StudyState
from synq_tune.trial.assets import Assets
from synq_tune.trial.evaluation import load_agreement_set

SETS = ["finetune.batch_size=8", "finetune.num_views=1", "finetune.calibration_batches=1"]


def _assets(tmp_path: Path, *sets: str) -> Assets:
    spec = load_space("digits_w3a3", [*SETS, *sets])
    teacher = load_teacher(spec.teacher)
    images = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    labels = teacher(images.float()).argmax(1)
    dataset = SyntheticDataset(images, labels, 8, "noise", "1" * 32, "0" * 64, tmp_path, {})
    halves: tuple[LabelledImages | None, ...] = load_halves(spec, teacher)
    probes = load_agreement_set(teacher, dataset, tmp_path)
    return Assets(spec, teacher, dataset, probes, *halves, tmp_path, torch.device("cpu"))


def _paper(state: StudyState, **fields: Any) -> None:
    run = Run("ladder-paper", "ladder", None, {}, 0, "the paper's defaults", "completed", **fields)
    state.runs[run.key] = run


def test_without_labels_agreement_is_measured_on_other_images(tmp_path: Path) -> None:
    """Every rung on the reporting probes, the paper's too; how many chose and measured is said."""
    assets = _assets(tmp_path, "study.val_data=null")
    state = StudyState(assets.spec, {})
    _paper(state, report_agreement=12.5, metrics={"agreement": 99.0})
    seen: list[torch.Tensor] = []

    def best(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return assets.teacher(images)

    rungs = build_ladder(assets, state, best)
    assert torch.equal(torch.cat(seen), assets.report_probes.images.float())
    by_name = {rung.name: rung.agreement for rung in rungs}
    assert (by_name["full precision"], by_name["the paper's defaults"]) == (100.0, 12.5)
    assert all((r.probes_chosen_on, r.probes) == (24, 24) for r in rungs)
    assert "chosen on 24, measured on 24 other synthetic images" in ladder_lines(rungs)[0]


def test_with_labels_the_reporting_half_measures(tmp_path: Path) -> None:
    """As before, and the agreement beside it is of the reporting probes too."""
    assets = _assets(tmp_path)
    rungs = build_ladder(assets, StudyState(assets.spec, {}), assets.teacher)
    chosen, measured = len(assets.choose), len(assets.report)
    assert measured_on(rungs[0]) == f"chosen on {chosen}, measured on {measured} images"
    assert rungs[-1].agreement == 100.0


@pytest.mark.parametrize("agreement", [100.0, None])
def test_ladders_of_older_studies_are_still_shown(agreement: float | None) -> None:
    """They do not say on how many images they were measured."""
    rung = Rung("the paper's defaults", agreement)
    assert "agreement with the teacher only" in ladder_lines([rung])[0]
