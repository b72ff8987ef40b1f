"""One trial from a space, without Ray, MLflow or a ledger: what `scripts/finetune.py` runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from synq_tune.config import StudySpec
from synq_tune.errors import stage
from synq_tune.export.best import export_student
from synq_tune.finetune.loop import EpochMetrics
from synq_tune.seeds import trial_seed
from synq_tune.synthesis.dataset import synthesize
from synq_tune.trial.assets import choose_device, golden_images, load_assets, parity_images
from synq_tune.trial.requirements import prepare
from synq_tune.trial.trial import Trial


def run_one_trial(
    spec: StudySpec, store: Path, export_to: Path | None = None
) -> Iterator[EpochMetrics]:
    """Make or reuse the dataset, train `spec.finetune` and yield each evaluated epoch.

    Args:
        spec: its `search` is ignored: the trial is `finetune` as it stands.
        store: where datasets are kept.
        export_to: folder for the exported student, or None.

    Raises:
        InputError: the space does not fit the teacher or the data.
        NonFiniteError: the trial diverged.
    """
    device = choose_device()
    teacher = prepare(spec, device, store).teacher
    print(*teacher.note_lines, sep="\n", end="\n" if teacher.notes else "")
    dataset, _ = synthesize(teacher, spec, store)
    with stage("the trial", f"teacher.model={spec.teacher.model}"):
        assets = load_assets(spec, dataset.path, store, device)
        trial = Trial(assets, spec.finetune, trial_seed(spec.study.seed, 0))
        yield from trial.run()
    if export_to is not None:
        golden = golden_images(assets)
        export_student(trial.student, teacher, spec, export_to, golden, parity_images(assets))
