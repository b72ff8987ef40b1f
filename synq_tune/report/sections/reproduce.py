"""Everything that it takes to make the study again."""

from __future__ import annotations

import yaml

from synq_tune.redact import redact_uri
from synq_tune.report.blocks import Code, Heading, Prose, Section, Table
from synq_tune.report.material import Material
from synq_tune.report.sections.card import SETTINGS_FILE
from synq_tune.study.state import StudyState


def reproduce(material: Material) -> Section:
    """Settings, seeds, versions and checksums."""
    state = material.state
    settings = yaml.safe_dump(
        state.spec.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True
    )
    versions = state.header.get("created_by", {})
    blocks = [
        Heading("What it was made from"),
        Table(("what", "value"), _identity(state)),
        Heading("Seeds"),
        Prose("A run's seed follows from the study's seed and the trial's number."),
        Table(("run", "seed"), _seeds(state), frozenset({1})),
        Heading("Versions"),
        Table(("package", "version"), sorted(versions.items())),
        Heading("All settings"),
        Prose("Recipe, space, --set and flags are merged here; nothing is left to a default."),
        Code(redact_uri(settings), SETTINGS_FILE),
    ]
    return Section("reproduce", "Make it again", "Settings, seeds, versions and checksums.", blocks)


def _identity(state: StudyState) -> list[tuple[str, str]]:
    stages = state.stages
    rows = [("space", state.spec.name), ("recipe", state.spec.recipe)]
    rows += [("quantizer", state.spec.quantizer), ("study's seed", str(state.spec.study.seed))]
    if stages.teacher:
        rows += [
            ("teacher", stages.teacher.name),
            ("teacher's fingerprint", stages.teacher.fingerprint),
        ]
    if stages.dataset:
        made = stages.dataset
        rows += [
            ("synthesis method", made.method),
            ("synthetic images to train on", f"{made.num_images:,}"),
            ("synthetic images held out", f"{made.num_holdout:,}"),
            ("dataset's SHA-256", made.sha256),
        ]
    files = stages.best.files if stages.best else {}
    return [*rows, *((f"{name}'s SHA-256", sha256) for name, sha256 in files.items())]


def _seeds(state: StudyState) -> list[tuple[str, str]]:
    best = state.stages.best
    shown = [r for r in state.runs.values() if r.kind != "search" or (best and r.key == best.key)]
    return [(run.key, str(run.seed)) for run in shown] or [("study", str(state.spec.study.seed))]
