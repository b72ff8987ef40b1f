"""ImageNet's validation images in one flat folder, with a label file beside them."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import torch

from synq_tune.data.class_labels import class_order
from synq_tune.data.decode import ImageFile, decode_images, is_image
from synq_tune.data.images import LabelledImages
from synq_tune.data.synsets import TEXTS, synsets_of_ids
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.notes import counted, say

_NUMBER = re.compile(r"_(\d{8})$")
_LABEL = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class _Classes:
    """The class of each image, by its file name without suffix, and the names in label order."""

    by_stem: dict[str, str]
    names: list[str]


def read_imagenet(folder: Path, preprocessing: Preprocessing, num_classes: int) -> LabelledImages:
    """Images in `folder`, labelled by the first of `LABEL_FILES` in it or above it.

    Numbers in a label file are labels, and need not name every class. Synsets (or other names)
    give the rank among the file's distinct names, whose number must be the teacher's.

    Args:
        folder: holds the images; folders inside it are not looked into.
        preprocessing: gives size, channels, crop and interpolation.
        num_classes: the teacher's.

    Raises:
        InputError: there is no label file, an image has no label, or two, or one that is no class
            of the teacher, or an image cannot be read.
    """
    folder = folder.expanduser()
    images = _images(folder)
    file = _label_file(folder)
    classes = LABEL_FILES[file.name](file, images, num_classes)
    _check_classes(classes, file, num_classes)
    rank = {name: label for label, name in enumerate(classes.names)}
    labels = [_label(image, classes, rank, file) for image in images]
    files = [ImageFile(str(image), partial(open, image, "rb")) for image in images]
    facts: Counter[str] = Counter()
    pixels = decode_images(files, preprocessing, facts)
    say(*_notes(folder, images, facts))
    return LabelledImages(pixels, torch.tensor(labels), tuple(classes.names))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: `imagenet:DIR names a folder` must hold, but there is none.")
    images = sorted(
        file
        for file in folder.iterdir()
        if is_image(file.name) and not file.name.startswith(".") and file.is_file()
    )
    if not images:
        raise InputError(
            f"{folder}: `the images lie in the folder itself` must hold for imagenet:DIR, but got "
            "none. With one folder per class, give DIR alone."
        )
    return images


def _notes(folder: Path, images: list[Path], facts: Counter[str]) -> list[str]:
    """What of the folder was not read, or not wholly."""
    known = {*images, *(folder / name for name in (*LABEL_FILES, "meta.mat", *TEXTS))}
    others = [p for p in folder.iterdir() if p not in known and not p.name.startswith(".")]
    notes = [f"{folder}: {count} {fact}." for fact, count in sorted(facts.items())]
    if others:
        shown = ", ".join(sorted(p.name for p in others)[:3]) + (", …" if len(others) > 3 else "")
        notes.append(
            f"{folder}: not read: {len(others)} that are no images or are folders ({shown})."
        )
    return notes


def _label_file(folder: Path) -> Path:
    places = (folder, folder.resolve().parent)
    found = (place / name for place in places for name in LABEL_FILES)
    file = next((file for file in found if file.is_file()), None)
    if file is None:
        raise InputError(
            f"{folder}: `a label file lies beside the images` must hold, but got none of "
            f"{', '.join(LABEL_FILES)}."
        )
    return file


def _check_classes(classes: _Classes, file: Path, num_classes: int) -> None:
    if len(classes.names) != num_classes:
        raise InputError(
            f"{file}: `number of distinct classes == {num_classes}` (the teacher's) must hold, but "
            f"got {len(classes.names)}."
        )


def _label(image: Path, classes: _Classes, rank: dict[str, int], file: Path) -> int:
    name = classes.by_stem.get(image.stem)
    if name is None:
        raise InputError(f"{file}: `every image has a label` must hold, but {image.name} has none.")
    if name not in rank:
        raise InputError(
            f"{file}: `0 <= label < {len(rank)}` (the teacher's classes) must hold, but {image.name} "
            f"has label={name}."
        )
    return rank[name]


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: `the label file is text` must hold, but got: {error}."
        ) from error
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _named(file: Path, pairs: Iterable[tuple[str, str]], num_classes: int) -> _Classes:
    """Classes of (image name, class) pairs; numbers are labels already."""
    by_stem: dict[str, str] = {}
    for image, name in pairs:
        stem = PurePosixPath(image)
        key = stem.stem if is_image(stem.name) else stem.name
        if key in by_stem:
            raise InputError(f"{file}: `every image has one label` must hold, but {key} has two.")
        by_stem[key] = name
    if all(_LABEL.fullmatch(name) for name in by_stem.values()):
        numbers = {key: str(int(name)) for key, name in by_stem.items()}
        return _Classes(numbers, [str(label) for label in range(num_classes)])
    return _Classes(by_stem, class_order(by_stem.values()))


def _caffe(file: Path, images: list[Path], num_classes: int) -> _Classes:
    """`NAME label` per line, labels from 0."""
    return _named(file, _split(file, _lines(file)), num_classes)


def _split(file: Path, lines: list[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, start=1):
        words = line.rsplit(maxsplit=1)
        if len(words) != 2:
            raise InputError(
                f"{file}, line {number}: `each line is NAME LABEL` must hold, but got {line!r}."
            )
        yield words[0].strip(), words[1]


def _kaggle(file: Path, images: list[Path], num_classes: int) -> _Classes:
    """`ImageId,PredictionString`, whose first word is the class; boxes follow it."""
    return _named(file, _rows(file), num_classes)


def _rows(file: Path) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(csv.reader(_lines(file)), start=1):
        if number == 1 and row and row[0].strip().lower() in ("imageid", "image", "filename"):
            continue
        words = row[1].split() if len(row) > 1 else []
        if not words:
            raise InputError(
                f"{file}, line {number}: `each line is IMAGE,CLASS` must hold, but got {row}."
            )
        yield row[0].strip(), words[0]


def _synset_list(file: Path, images: list[Path], num_classes: int) -> _Classes:
    """One synset per line, in the order of the images' numbers."""
    lines = [line.strip() for line in _lines(file)]
    return _Classes(_by_line(file, images, lines), class_order(lines))


def _ground_truth(file: Path, images: list[Path], num_classes: int) -> _Classes:
    """One ILSVRC id (from 1) per line; its order is not that of the synsets."""
    synsets = synsets_of_ids(file, (file.parent, *(image.parent for image in images[:1])))
    lines = [line.strip() for line in _lines(file)]
    for number, line in enumerate(lines, start=1):
        if line not in synsets:
            raise InputError(
                f"{file}, line {number}: `1 <= ILSVRC id <= {len(synsets)}` must hold, but got "
                f"{line!r}."
            )
    by_stem = _by_line(file, images, [synsets[line] for line in lines])
    return _Classes(by_stem, class_order(synsets.values()))


def _by_line(file: Path, images: list[Path], lines: list[str]) -> dict[str, str]:
    """Line n belongs to the image that ends in `_0000000n`, or to the nth of all images."""
    numbers = [_NUMBER.search(image.stem) for image in images]
    if all(numbers):
        numbered = (
            (image.stem, int(found[1])) for image, found in zip(images, numbers, strict=True)
        )
        return {stem: lines[n - 1] for stem, n in numbered if 1 <= n <= len(lines)}
    if len(lines) != len(images):
        raise InputError(
            f"{file}: `one line per image` must hold where names do not end in _00000001, but got "
            f"{counted(len(lines), 'line')}, {counted(len(images), 'image')}."
        )
    return {image.stem: line for image, line in zip(images, lines, strict=True)}


LABEL_FILES: dict[str, Callable[[Path, list[Path], int], _Classes]] = {
    "val.txt": _caffe,
    "val.csv": _kaggle,
    "LOC_val_solution.csv": _kaggle,
    "imagenet_2012_validation_synset_labels.txt": _synset_list,
    "ILSVRC2012_validation_ground_truth.txt": _ground_truth,
}
"""Name of a label file → its reader; the first that exists is taken."""
