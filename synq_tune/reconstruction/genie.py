"""GENIE-M (Jeon et al., CVPR 2023): block after block, a student's weights learn how to round."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, fx

from synq_tune.config import Reconstruct
from synq_tune.data.batches import batch_size
from synq_tune.reconstruction.cache import Caches
from synq_tune.reconstruction.fit import fit
from synq_tune.reconstruction.parts import check_parts, parts_of
from synq_tune.reconstruction.progress import Material, Position, Progress
from synq_tune.reconstruction.shown import PartsBar
from synq_tune.views.source import Source


class Genie:
    """The reconstruction; `check` finds before any work what it cannot be applied to."""

    check = staticmethod(check_parts)

    def __call__(
        self,
        student: fx.GraphModule,
        source: Source,
        assets: Material,
        config: Reconstruct,
        position: Position,
    ) -> Iterator[Progress]:
        """Fit the student part by part, in call order, on the images of the source's first epochs.

        What a part reads is kept for all images, the teacher's and the student's: the parts in
        front of it are done, their rounding hard, nothing dropped. After a resumption both are
        computed anew, which gives the same values.

        Raises:
            InputError: a weight's grid cannot learn its rounding.
        """
        check_parts(student, config)
        parts = parts_of(student, assets.teacher.graph, config.blocks)
        caches, size = Caches(config.memory_budget, assets.device), _forward_size(assets)
        exact = given = caches.of(*_images(source, config.num_images), alive=[])
        with PartsBar(len(parts), config.iterations, position.parts) as bar:
            for number, part in enumerate(parts, 1):
                target = caches.mapped(part.teacher, exact, size, [exact, given])
                if number > position.parts:
                    loss = fit(part, exact, given, target, config, _draw_seed(), bar.of(part.name))
                    yield Progress(number, losses={f"block/{part.name}": loss})
                if number < len(parts):
                    given = caches.mapped(part.student, given, size, [exact, given, target])
                exact = target


def _forward_size(assets: Material) -> int:
    """Images in one forward pass without gradients."""
    shape = assets.teacher.preprocessing
    return batch_size(shape.height, shape.width, assets.device)


def _images(source: Source, count: int | None) -> tuple[Iterator[Tensor], int]:
    """The first `count` images, of the first epoch and of those after it; None: of the first."""
    epochs = itertools.count() if count else range(1)
    batches = itertools.chain.from_iterable(map(source.image_batches, epochs))
    found, missing = [], count or math.inf
    while missing > 0 and (images := next(batches, None)) is not None:
        found.append(images[: int(min(missing, len(images)))])
        missing -= len(found[-1])
    images = torch.cat(found)
    return iter([images]), len(images)


def _draw_seed() -> int:
    """One number of torch's generator, which the trial has seeded and its states hold."""
    return int(torch.randint(2**31, ()))


METHOD = Genie()
