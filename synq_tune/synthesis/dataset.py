"""Make the synthetic dataset of a study, or find the one made before."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import synq_tune
from synq_tune import own_code
from synq_tune.config import StudySpec
from synq_tune.data.synthetic import SyntheticDataset, is_complete, load_dataset, save_dataset
from synq_tune.errors import stage
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.own_code import label
from synq_tune.store import content_address, file_lock
from synq_tune.synthesis import synthesizer
from synq_tune.synthesis.perturbation import perturb

FORMAT = 1
"""Raised whenever the same settings would give another dataset."""


def synthesize(
    teacher: LoadedTeacher, spec: StudySpec, store: Path, progress: bool = True
) -> tuple[SyntheticDataset, bool]:
    """The synthetic dataset of a study: one per teacher, settings and seed.

    It lies in STORE/datasets/ADDRESS. Of several processes that ask for one address, the first
    makes it and the others wait; a killed run continues with the batch it was at.

    Args:
        teacher: the full-precision network, on the device to work on; stays unchanged.
        spec: its `synthesis`, and for a perturbed dataset its `bits` and `quantizer`.
        store: folder shared by all studies.
        progress: draw progress bars on standard error.

    Returns:
        The dataset, and whether it was there already.

    Raises:
        InputError: the teacher has nothing this method needs, the images to import are wrong, or
            a stored dataset is damaged.
        NonFiniteLossError: the optimisation diverged.
    """
    with stage("synthesis", f"synthesis.method={spec.synthesis.method}, store {store}"):
        is_perturbed = synthesizer(spec.synthesis.method).is_perturbed
        if is_perturbed and spec.synthesis.perturbation > 0:
            return _perturbed(teacher, spec, store, progress)
        return _base(teacher, spec, store, progress)


def _base(
    teacher: LoadedTeacher, spec: StudySpec, store: Path, progress: bool
) -> tuple[SyntheticDataset, bool]:
    """The dataset that does not depend on bits."""
    config = spec.synthesis
    method = synthesizer(config.method)
    about = _about(teacher, label(config.method), method.address(config))
    folder = store / "datasets" / content_address(about)

    def make() -> None:
        partial = folder.with_name(f"{folder.name}.partial")
        with torch.enable_grad():
            draft = method.synthesize(teacher, config, partial, progress)
        notes = _notes(about, folder, config.seed, draft.notes)
        save_dataset(folder, draft.images, draft.labels, config.num_holdout, notes)
        shutil.rmtree(partial, ignore_errors=True)

    return _once(folder, make)


def _perturbed(
    teacher: LoadedTeacher, spec: StudySpec, store: Path, progress: bool
) -> tuple[SyntheticDataset, bool]:
    """The base with its training part perturbed against the student at the study's bits."""
    config = spec.synthesis
    base_settings = synthesizer(config.method).address(config)
    student = {
        "perturbation": config.perturbation,
        # Left out where it is null, so that datasets from before there was such a width are found.
        "bits": spec.bits.model_dump(mode="json", exclude=None if spec.bits.skip else {"skip"}),
        "quantizer": _identity(spec.quantizer),
    }
    about = _about(teacher, label(config.method), {**base_settings, **student})
    folder = store / "datasets" / content_address(about)

    def make() -> None:
        base, _ = _base(teacher, spec, store, progress)
        with torch.enable_grad():
            harder = perturb(
                teacher,
                base.train_images,
                spec.bits,
                spec.quantizer,
                config.perturbation,
                config.batch_size,
            )
        images = torch.cat((harder, base.holdout_images))
        origin = {"base": base.address, "base_sha256": base.sha256}
        losses = {k: v for k, v in base.provenance.items() if k.endswith("losses")}
        notes = _notes(about, folder, config.seed, {**origin, **losses})
        save_dataset(folder, images, base.labels, config.num_holdout, notes)

    return _once(folder, make)


def _once(folder: Path, make: Callable[[], None]) -> tuple[SyntheticDataset, bool]:
    if is_complete(folder):  # a store that is only read will do
        return load_dataset(folder), True
    with file_lock(folder.with_name(f"{folder.name}.lock")):
        reused = is_complete(folder)
        if not reused:
            make()
    return load_dataset(folder), reused


def _about(teacher: LoadedTeacher, method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything the dataset is made from, and nothing else; its address is a sum of this."""
    return {
        "synthesis_format": FORMAT,
        "teacher": teacher.fingerprint,
        "method": method,
        "settings": settings,
    }


def _notes(about: dict[str, Any], folder: Path, seed: int, notes: dict[str, Any]) -> dict[str, Any]:
    versions = {
        "synq_tune": synq_tune.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return {**about, "address": folder.name, "seed": seed, **notes, "versions": versions}


def _identity(quantizer: str) -> Any:
    """A built-in's name, or what the user's own is filed under: its label and its source."""
    return own_code.identity(quantizer) if own_code.is_own_code(quantizer) else quantizer
