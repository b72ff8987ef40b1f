"""How good a student is: accuracy on labelled images, agreement with its teacher without labels."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from synq_tune.data.augment import crop_and_flip, random_boxes
from synq_tune.data.batches import batch_size
from synq_tune.data.labelled import LabelledImages
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.errors import InputError, NonFiniteError
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.notes import counted
from synq_tune.process.progress import progress_bar
from synq_tune.seeds import address_seed
from synq_tune.store import content_address, once

_PROBE_CROP = (0.5, 1.0)


@torch.no_grad()
def predict(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    device: torch.device | str,
    prepare: Callable[[Tensor], Tensor] = Tensor.float,
    rows: Tensor | None = None,
    stage: str | None = None,
) -> Tensor:
    """Logits (N, K) of `images` (N, C, H, W), in batches, on the CPU.

    Args:
        model: images (n, C, H, W) → logits (n, K).
        images: of any type; only a batch at a time is copied.
        device: where the model is.
        prepare: a batch on the device → the model's input.
        rows: (N,) which of the images; None = all.
        stage: names a bar over the images; None draws none.
    """
    size, count = batch_size(*images.shape[2:], device), len(images if rows is None else rows)
    parts = images.split(size) if rows is None else map(images.__getitem__, rows.split(size))
    logits = []
    with progress_bar(count, stage or "", stage is not None, "image", may_be_short=True) as bar:
        for part in parts:
            logits.append(model(prepare(part.to(device))).cpu())
            bar.update(len(part))
    return torch.cat(logits)


def top1(
    model: Callable[[Tensor], Tensor],
    data: LabelledImages,
    preprocessing: Preprocessing,
    device: torch.device | str = "cpu",
    rows: Tensor | None = None,
    stage: str | None = None,
) -> float:
    """Percentage of labelled images, or of those in `rows`, whose arg-max is the label, 0 to 100.

    `stage` names a bar over the images; None draws none.

    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    logits = _finite(predict(model, data.images, device, preprocessing.normalize, rows, stage))
    labels = data.labels if rows is None else data.labels[rows]
    return 100.0 * float((logits.argmax(1) == labels).double().mean())


def _finite(logits: Tensor) -> Tensor:
    """The logits (N, K) as they are: the arg-max of NaN is class 0, which may be right by
    chance."""
    broken = int((~logits.isfinite()).any(1).sum())
    if broken:
        raise NonFiniteError(
            f"logits are not finite on {broken:,} of {counted(len(logits), 'image')}."
        )
    return logits


@contextlib.contextmanager
def asking_teacher() -> Iterator[None]:
    """Inside the teacher is measured: logits that are not finite are a fault of the user's
    network."""
    try:
        yield
    except NonFiniteError as error:
        raise InputError(
            f"teacher: `its logits are finite` must hold, but its {error} Check its weights, and "
            "teacher.mean and teacher.std."
        ) from error


def confidence_interval(percent: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a percentage measured on `count` images."""
    z, p = 1.959964, percent / 100.0
    center = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return 100.0 * (center - half), 100.0 * (center + half)


@dataclass(frozen=True)
class AgreementSet:
    """Unlabelled images on which every student is compared with the teacher: the same for all.

    For choosing the hold-out part of the synthetic dataset, unfiltered, a seeded crop of each image
    and a mix of each with another: three times as many as the hold-out. For reporting as many
    others.
    """

    images: Tensor
    """(M, C, H, W) float16, normalised."""
    teacher_logits: Tensor
    """(M, K)."""

    def compare(
        self, student: Callable[[Tensor], Tensor], device: torch.device | str = "cpu"
    ) -> dict[str, float]:
        """What student and teacher have in common on the probes.

        Returns:
            `agreement`: percentage of equal arg-max; `holdout_kl`: mean KL(teacher ‖ student);
            `holdout_mse`: mean squared difference of the logits, each image's taken less their mean
            over the classes, since adding a number to all of them changes no probability.

        Raises:
            NonFiniteError: a logit or one of the three is NaN or infinite.
        """
        logits = _finite(predict(student, self.images, device))
        same = (logits.argmax(1) == self.teacher_logits.argmax(1)).double().mean()
        kl = F.kl_div(
            logits.log_softmax(1),
            self.teacher_logits.log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        mse = F.mse_loss(_centred(logits), _centred(self.teacher_logits))
        metrics = {
            "agreement": 100.0 * float(same),
            "holdout_kl": float(kl),
            "holdout_mse": float(mse),
        }
        for name, value in metrics.items():
            if not math.isfinite(value):  # of logits near the end of float32
                raise NonFiniteError(f"{name} is {value}.")
        return metrics


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(1, keepdim=True)


ProbesPart = Literal["choose", "report"]


def load_agreement_set(
    teacher: LoadedTeacher, dataset: SyntheticDataset, store: Path, part: ProbesPart = "choose"
) -> AgreementSet:
    """The probes of a dataset from `store`, made by the first process that needs them.

    All processes of a node map one file: they share its memory, and the teacher is asked once.

    Args:
        part: see `make_probes`.
    """
    about = {"dataset": dataset.sha256, "teacher": teacher.fingerprint, "format": 1}
    about |= {} if part == "choose" else {"part": part}
    path = store / "probes" / f"{content_address(about)}.safetensors"

    def make(temporary: Path) -> None:
        save_file(vars(make_probes(teacher, dataset, part)), temporary)

    once(path, make)
    return AgreementSet(**load_file(path))


def make_probes(
    teacher: LoadedTeacher, dataset: SyntheticDataset, part: ProbesPart = "choose"
) -> AgreementSet:
    """Build the probes of a dataset; the same dataset always gives the same probes.

    Args:
        part: those on which trials are compared and chosen, or as many other images that choose
            nothing and are there to report on.
    """
    make = {"choose": _probe_images, "report": _report_images}[part]
    images = torch.cat(list(make(dataset))).half()
    device = next(teacher.graph.parameters()).device
    with asking_teacher():
        return AgreementSet(images, _finite(predict(teacher, images, device)))


def _probe_images(dataset: SyntheticDataset) -> Iterator[Tensor]:
    images = dataset.holdout_images.float()
    generator = torch.Generator().manual_seed(address_seed(dataset.address))
    yield images
    yield _cropped(images, generator)
    yield _mixed(images, images.roll(1, 0), generator)


def _report_images(dataset: SyntheticDataset) -> Iterator[Tensor]:
    """Other crops, mixes of other pairs, and mixes of crops: no image of the choosing part is among
    them.

    They come from the same hold-out, since an image that is held out for this alone would be one
    less to choose on, or one more to make.
    """
    images = dataset.holdout_images.float()
    generator = torch.Generator().manual_seed(address_seed(dataset.address, part=1))
    # From four images on never the neighbour that the choosing part takes.
    pairs = images.roll(-(1 + len(images) // 3), 0)
    yield _cropped(images, generator)
    yield _mixed(images, pairs, generator)
    yield _mixed(_cropped(images, generator), _cropped(pairs, generator), generator)


def _cropped(images: Tensor, generator: torch.Generator) -> Tensor:
    boxes = random_boxes(len(images), _PROBE_CROP, generator)
    return crop_and_flip(images, boxes, torch.zeros(len(images), dtype=torch.bool))


def _mixed(images: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    weights = torch.rand(len(images), 1, 1, 1, generator=generator) * 0.4 + 0.3
    return weights * images + (1 - weights) * others
