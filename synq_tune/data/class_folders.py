"""A folder, a zip or a tar archive that holds one folder of images per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch

from synq_tune.data.class_labels import Labels, class_order, folder_labels
from synq_tune.data.decode import ImageFile, decode_images
from synq_tune.data.images import LabelledImages
from synq_tune.data.listing import Listing, listed
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing
from synq_tune.notes import counted, say

__all__ = ["class_order", "read_class_folders"]


def read_class_folders(
    path: Path,
    preprocessing: Preprocessing,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    string_order: bool = False,
) -> LabelledImages:
    """Images of class folders; see `folder_labels` for which folder is which class.

    Images may lie deeper inside a class folder, and links are followed. What is not read (hidden
    files, other suffixes, folders without an image) is counted and said.

    Args:
        path: the folder or archive.
        preprocessing: gives size, channels, crop and interpolation.
        num_classes: the teacher's.
        class_names: the teacher's, in label order.
        string_order: whether torchvision's order of folders is asked for.

    Raises:
        InputError: there is no class, the folders are not the teacher's classes, a class folder
            holds files but no image, or an image cannot be read.
    """
    with listed(path) as listing:
        classes = _classes(path, listing)
        filled = {name: images for name, images in classes.items() if images}
        # An empty folder has its place among all classes; beyond them it is nothing.
        known = classes if len(classes) == num_classes else filled
        try:
            labels = folder_labels(list(known), num_classes, class_names, string_order)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        data, facts = _decoded(path, classes, labels, preprocessing)
    say(*_notes(path, listing, classes, labels, facts))
    return data


def _classes(path: Path, listing: Listing) -> dict[str, list[ImageFile]]:
    """Class folder → its images; folders that enclose everything are no classes."""
    depth = _common_depth([image for image, _ in listing.images])
    classes: dict[str, list[ImageFile]] = {
        folder.parts[depth]: []
        for folder in sorted(listing.folders)
        if len(folder.parts) == depth + 1
    }
    for image, file in listing.images:
        if len(image.parts) > depth + 1:
            classes[image.parts[depth]].append(file)
        else:
            listing.skipped["images outside class folders"] += 1
    if not any(classes.values()):
        raise InputError(
            f"{path}: `there is one folder per class` must hold, but got none with images. "
            f"{_summary(listing.skipped)}"
        )
    _refuse_unread(path, listing, classes, depth)
    return classes


def _refuse_unread(
    path: Path, listing: Listing, classes: dict[str, list[ImageFile]], depth: int
) -> None:
    """A class whose files are all unknown would silently be missing; an empty folder may be
    meant."""
    files: Counter[str] = Counter()
    for folder, count in listing.others.items():
        if len(folder.parts) > depth:
            files[folder.parts[depth]] += count
    empty = next((name for name, images in classes.items() if not images and files[name]), None)
    if empty is not None:
        raise InputError(
            f"{path}: `every class folder holds images` must hold, but got none in {empty!r} among "
            f"{counted(files[empty], 'file')}. Images are known by their suffix, such as .jpg, .png, "
            ".webp, .tif."
        )


def _decoded(
    path: Path, classes: dict[str, list[ImageFile]], labels: Labels, preprocessing: Preprocessing
) -> tuple[LabelledImages, Counter[str]]:
    facts: Counter[str] = Counter()
    ordered = sorted(labels.by_folder, key=labels.by_folder.__getitem__)
    files = [file for name in ordered for file in classes[name]]
    numbers = [labels.by_folder[name] for name in ordered for _ in classes[name]]
    if not files:
        raise InputError(f"{path}: `the teacher's classes have images` must hold, but got none.")
    images = decode_images(files, preprocessing, facts)
    return LabelledImages(images, torch.tensor(numbers), labels.names), facts


def _notes(
    path: Path,
    listing: Listing,
    classes: dict[str, list[ImageFile]],
    labels: Labels,
    facts: Counter[str],
) -> list[str]:
    notes = [f"{path}: {note}." for note in labels.notes]
    empty = [name for name, images in classes.items() if not images]
    if empty:
        shown = ", ".join(empty[:3]) + (", …" if len(empty) > 3 else "")
        are = "folder is" if len(empty) == 1 else "folders are"
        notes.append(f"{path}: {len(empty):,} class {are} empty ({shown}).")
    if listing.skipped:
        notes.append(f"{path}: {_summary(listing.skipped)}")
    return notes + [f"{path}: {count} {fact}." for fact, count in sorted(facts.items())]


def _summary(skipped: Counter[str]) -> str:
    if not skipped:
        return "It is empty."
    total = skipped.total()
    return (
        f"not read: {total} ({', '.join(f'{n} {reason}' for reason, n in skipped.most_common())})."
    )


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
