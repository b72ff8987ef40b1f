"""What `scripts/synthesize.py` runs: the dataset alone, and its images as files for other tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synq_tune.config import StudySpec
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.models.teacher import load_teacher
from synq_tune.synthesis.dataset import synthesize


def synthesize_space(spec: StudySpec, store: Path, export: str | None, output: Path) -> str:
    """Make or reuse the dataset of a space; returns a line that says where it is.

    Args:
        export: `png` (training images, one folder per label, clipped to 0..255), `npy` (float32 in
            the scale in which real images lie in [0, 1], unclipped, with `labels.npy`), or None.
        output: folder for the exported files; must be new or empty.

    Raises:
        InputError: the space is wrong, or `output` holds files already.
    """
    if export and output.exists() and any(output.iterdir()):
        raise InputError(f"`--output is new or empty` must hold, but got {output}.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = load_teacher(spec.teacher, device, store=store)
    print(*teacher.note_lines, sep="\n", end="\n" if teacher.notes else "")
    dataset, is_reused = synthesize(teacher, spec, store)
    if export:
        (_write_png if export == "png" else _write_npy)(dataset, teacher.preprocessing, output)
    images = f"{len(dataset.train_images)} + {dataset.num_holdout} hold-out images"
    exported = f", exported to {output}" if export else ""
    return f"{'reused' if is_reused else 'made'} {images}: {dataset.path}{exported}"


def _write_npy(dataset: SyntheticDataset, preprocessing: Preprocessing, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    np.save(output / "images.npy", preprocessing.denormalize(dataset.train_images.float()).numpy())
    np.save(output / "labels.npy", dataset.train_labels.numpy())


def _write_png(dataset: SyntheticDataset, preprocessing: Preprocessing, output: Path) -> None:
    pixels = preprocessing.denormalize(dataset.train_images.float()).clamp(0, 1)
    arrays = (255 * pixels).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()  # (N, H, W, C)
    for number, (array, label) in enumerate(zip(arrays, dataset.train_labels, strict=True)):
        folder = output / str(int(label))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array.squeeze()).save(folder / f"{number:06d}.png")
