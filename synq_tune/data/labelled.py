"""Read labelled images by the text a user gives after `--val-data`."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from synq_tune.data.arrays import read_arrays
from synq_tune.data.cifar import read_cifar10, read_cifar100
from synq_tune.data.class_folders import read_class_folders
from synq_tune.data.class_labels import STRING_ORDER
from synq_tune.data.decode import fit_images
from synq_tune.data.digits import digits_half
from synq_tune.data.imagenet import read_imagenet
from synq_tune.data.images import LabelledImages
from synq_tune.data.split import split_halves
from synq_tune.errors import InputError, in_stage
from synq_tune.models.preprocessing import Preprocessing

__all__ = ["SOURCES", "LabelledImages", "digits_half", "load_labelled", "split_halves"]

SOURCES: dict[str, Callable[[str, Preprocessing, int], LabelledImages]] = {
    "digits": lambda rest, preprocessing, classes: digits_half("test"),
    "cifar10": lambda rest, preprocessing, classes: read_cifar10(Path(rest)),
    "cifar100": lambda rest, preprocessing, classes: read_cifar100(Path(rest)),
    "imagenet": lambda rest, preprocessing, classes: read_imagenet(
        Path(rest), preprocessing, classes
    ),
    "npy": lambda rest, preprocessing, classes: read_arrays(Path(rest), classes),
}
"""What stands before the colon → reader of what stands behind it, for a teacher's classes."""


@in_stage("reading the labelled images", str)
def load_labelled(
    source: str,
    preprocessing: Preprocessing,
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> LabelledImages:
    """Labelled images in the teacher's input size, uint8.

    Args:
        source: `digits`, `cifar10:DIR`, `cifar100:DIR`, `imagenet:DIR` (flat, with a label file),
            `npy:DIR` (images.npy, labels.npy), or a folder (zip file, tar archive) that holds one
            folder of images per class; with `imagefolder:` before it, its folders are ranked as
            torchvision's ImageFolder does.
        preprocessing: gives size, channels, crop and interpolation.
        num_classes: the teacher's.
        class_names: the teacher's, in label order, to which class folders are matched.

    Raises:
        InputError: the source is missing or empty, an image cannot be read, or the number of
            classes differs.
    """
    name, colon, rest = source.partition(":")
    if name in SOURCES and bool(colon) == (name != "digits"):
        data = fit_images(SOURCES[name](rest, preprocessing, num_classes), preprocessing)
    else:
        in_string_order = name == STRING_ORDER and bool(colon)
        path = _existing(rest if in_string_order else source)
        data = read_class_folders(path, preprocessing, num_classes, class_names, in_string_order)
    _check_classes(data, source, num_classes)
    return data


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_dir() or path.is_file() and _is_archive(path):
        return path
    raise InputError(
        f"`the labelled images exist` must hold, but got val_data={source!r}. Give digits, "
        "cifar10:DIR, cifar100:DIR, imagenet:DIR, npy:DIR, or a folder, zip or tar file with one "
        "folder per class (imagefolder:DIR for torchvision's order)."
    )


def _is_archive(path: Path) -> bool:
    is_zip = path.suffix.lower() == ".zip" or zipfile.is_zipfile(path)
    return is_zip or tarfile.is_tarfile(path)


def _check_classes(data: LabelledImages, source: str, num_classes: int) -> None:
    names = data.class_names or ()
    if len(names) != num_classes:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise InputError(
            f"{source}: `number of classes == {num_classes}` (the teacher's) must hold, but got "
            f"{len(names)} ({shown})."
        )
