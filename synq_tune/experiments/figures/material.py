"""The images that a figure looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from synq_tune.config import StudySpec
from synq_tune.data.labelled_cache import SPLIT_SEED
from synq_tune.data.split import stratified_rows
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.experiments.compare_runs import Bench, Ground
from synq_tune.experiments.reproduce import Job
from synq_tune.synthesis.dataset import synthesize
from synq_tune.views.low_pass import low_pass

NUM_IMAGES = 256
"""Images that spectra are averaged over, at most; the paper's number."""
REAL = "real"
"""The part for which no image is made."""


@dataclass(frozen=True)
class Material:
    """What one row of one column is drawn from; images are made when they are first asked for."""

    column: str
    row: str
    spec: StudySpec
    ground: Ground
    bench: Bench

    @cached_property
    def dataset(self) -> SyntheticDataset:
        """The dataset that the row's trials train on, made if the store has none."""
        return synthesize(self.ground.teacher, self.spec, self.bench.store)[0]

    def images(self, part: str, count: int = NUM_IMAGES) -> Tensor:
        """(N, C, H, W) float32, normalised, at most `count`: real, synthetic or filtered ones."""
        if part == REAL:
            found = self.ground.report
            rows = stratified_rows(found, count, SPLIT_SEED)
            pixels = found.images if rows is None else found.images[rows]
            return self.ground.teacher.preprocessing.normalize(pixels)
        images = self.dataset.train_images[:count].float()
        return low_pass(images, self.spec.finetune.d0) if part == "filtered" else images

    def about(self, part: str) -> dict[str, object]:
        """What a row of numbers says of where it comes from."""
        source = self.spec.study.val_data if part == REAL else self.dataset.address
        d0 = self.spec.finetune.d0 if part == "filtered" else None
        return {"column": self.column, "row": self.row, "part": part, "source": source, "d0": d0}

    def named(self, part: str) -> str:
        """A part as a legend names it."""
        d0 = self.spec.finetune.d0
        gain = "no filter" if d0 is None else f"filtered, D0 = {d0:g}"
        return gain if part == "filtered" else part


def materials(found: Sequence[Job], bench: Bench) -> Iterator[Material]:
    """One for each row of each column.

    Raises:
        InputError: a row does not fit its teacher or the data.
    """
    for job in found:
        for name, spec in job.comparison.variants.items():
            bench.check(spec)
            yield Material(job.column, name, spec, bench.ground(spec), bench)


def answers(material: Material, images: Tensor) -> Tensor:
    """The teacher's logits (N, K) of normalised images, on the CPU."""
    teacher, device = material.ground.teacher, material.bench.device
    with torch.no_grad():
        return torch.cat([teacher(part.to(device)).cpu() for part in images.split(NUM_IMAGES)])
