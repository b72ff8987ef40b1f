"""A folder, or a zip file, that holds one folder of images per class."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath

import torch

from synq_tune.data.decode import IMAGE_SUFFIXES, ImageFile, decode_images
from synq_tune.data.images import LabelledImages
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing


def read_class_folders(path: Path, preprocessing: Preprocessing) -> LabelledImages:
    """Images whose label is the rank of their class folder's name.

    Names are ranked as numbers if all of them are, else alphabetically. Images may lie deeper
    inside a class folder; hidden folders and other files are passed over.

    Raises:
        InputError: there is no class, a class has no image, or an image cannot be read.
    """
    if path.is_dir():
        return _read(path, _list_folder(path), preprocessing)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, _list_zip(path, archive), preprocessing)
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: `the zip file is whole` must hold, but got: {error}.") from error


def class_order(names: Iterable[str]) -> list[str]:
    """Distinct class names in label order: as numbers if all are numbers, else alphabetical."""
    distinct = set(names)
    are_numbers = all(name.isascii() and name.isdigit() for name in distinct)
    return sorted(distinct, key=lambda name: (int(name), name) if are_numbers else name)


def _read(
    path: Path, classes: dict[str, list[ImageFile]], preprocessing: Preprocessing
) -> LabelledImages:
    if not classes:
        raise InputError(f"{path}: `there is one folder per class` must hold, but got none.")
    names = class_order(classes)
    empty = next((name for name in names if not classes[name]), None)
    if empty is not None:
        raise InputError(
            f"{path}: `every class folder holds images` must hold, but got none in {empty!r}. "
            f"Known: {', '.join(IMAGE_SUFFIXES)}."
        )
    labels = [label for label, name in enumerate(names) for _ in classes[name]]
    images = decode_images([file for name in names for file in classes[name]], preprocessing)
    return LabelledImages(images, torch.tensor(labels), tuple(names))


def _is_image(path: PurePosixPath) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _list_folder(path: Path) -> dict[str, list[ImageFile]]:
    folders = [f for f in path.iterdir() if f.is_dir() and not _is_hidden(f.name)]
    return {
        folder.name: [
            ImageFile(str(file), partial(open, file, "rb"))
            for file in sorted(folder.rglob("*"))
            if _is_image(PurePosixPath(file)) and file.is_file()
        ]
        for folder in folders
    }


def _list_zip(path: Path, archive: zipfile.ZipFile) -> dict[str, list[ImageFile]]:
    """Members are read from the archive and never unpacked; a member outside it is refused."""
    members = {PurePosixPath(i.filename): i for i in archive.infolist() if not i.is_dir()}
    for name in members:
        if name.is_absolute() or ".." in name.parts or "\\" in str(name):
            raise InputError(f"{path}: `names stay inside the archive` must hold, but got {name}.")
    images = sorted(n for n in members if _is_image(n) and not _is_hidden(n.parts[0]))
    depth = _common_depth(images)
    classes: dict[str, list[ImageFile]] = {}
    for image in images:
        if len(image.parts) > depth + 1:
            file = ImageFile(f"{path}: {image}", partial(archive.open, members[image]))
            classes.setdefault(image.parts[depth], []).append(file)
    return classes


def _common_depth(images: list[PurePosixPath]) -> int:
    """Folders that enclose everything, such as the name of the folder that was zipped."""
    depth = 0
    while (
        images
        and len({image.parts[depth] for image in images}) == 1
        and all(len(image.parts) > depth + 2 for image in images)
    ):
        depth += 1
    return depth
