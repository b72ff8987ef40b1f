"""Which label a class folder stands for: by name, by number, by synset, or by its place."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from synq_tune.errors import InputError
from synq_tune.notes import counted, printable

_SYNSET = re.compile(r"n\d{8}")
STRING_ORDER = "imagefolder"
"""What stands before the colon of `--val-data` to ask for torchvision's order."""


@dataclass(frozen=True)
class Labels:
    """The label of each folder that stands for one of the teacher's classes."""

    by_folder: dict[str, int]
    names: tuple[str, ...]
    """One per class of the teacher."""
    notes: tuple[str, ...]
    """How they were found, where there was a choice."""


def class_order(names: Iterable[str]) -> list[str]:
    """Distinct class names in label order: as numbers if all are numbers, else alphabetical."""
    distinct = set(names)
    as_numbers = _are_numbers(distinct)
    return sorted(distinct, key=lambda name: (int(name), name) if as_numbers else name)


def folder_labels(
    folders: Sequence[str],
    num_classes: int,
    class_names: Sequence[str] | None = None,
    string_order: bool = False,
) -> Labels:
    """Labels of class folders for a teacher.

    In this order: the rank of the name as text, where that is asked for; the teacher's
    `class_names`, where the folders are named like them; ImageNet's synsets by timm's list for that
    number of classes; numbers, as labels or, of all classes, by rank; the rank of the name.

    Args:
        folders: names of the class folders, in any order.
        num_classes: the teacher's.
        class_names: the teacher's, in label order.
        string_order: whether torchvision's order is asked for (`imagefolder:DIR`).

    Raises:
        InputError: the folders are not the teacher's classes, or not for certain.
    """
    if string_order:
        return _by_rank(sorted(folders), num_classes, class_names)
    found = _by_names(folders, class_names) if class_names else None
    found = found or _by_synsets(folders, num_classes)
    if found is None and len(folders) < num_classes and _are_labels(folders, num_classes):
        labels = {name: int(name) for name in folders}
        note = f"folders are taken as label numbers; {_without(num_classes - len(folders))} none"
        found = Labels(labels, _names(num_classes, class_names), (note,))
    return found or _by_rank(class_order(folders), num_classes, class_names)


def _are_numbers(names: Iterable[str]) -> bool:
    return all(name.isascii() and name.isdigit() for name in names)


def _are_labels(names: Sequence[str], num_classes: int) -> bool:
    """Whether each name is another number below the number of classes."""
    if not _are_numbers(names):
        return False
    labels = {int(name) for name in names}
    return len(labels) == len(names) and max(labels) < num_classes


def _names(num_classes: int, class_names: Sequence[str] | None) -> tuple[str, ...]:
    known = class_names is not None and len(class_names) == num_classes
    return tuple(class_names) if known else tuple(map(str, range(num_classes)))


def _by_rank(ordered: list[str], num_classes: int, class_names: Sequence[str] | None) -> Labels:
    if len(ordered) != num_classes:
        shown = ", ".join(printable(n, 40) for n in ordered[:3]) + (
            ", …" if len(ordered) > 3 else ""
        )
        raise InputError(
            f"`number of classes == {num_classes}` (the teacher's) must hold, but got {len(ordered)} "
            f"({shown}). For a part of the classes name folders by label number, by "
            "teacher.class_names, or by ImageNet's synsets."
        )
    notes = []
    if _are_numbers(ordered) and ordered != sorted(ordered) or class_order(ordered) != ordered:
        kind = "as numbers" if class_order(ordered) == ordered else "as text"
        other = f"; {STRING_ORDER}:DIR asks for the order of text" if kind == "as numbers" else ""
        notes.append(f"class folders are ranked {kind} ({', '.join(ordered[:4])}, …){other}")
    elif class_names and list(class_names) != ordered:
        notes.append(
            "class folders are ranked by name, as teacher.class_names names them otherwise"
        )
    return Labels({name: rank for rank, name in enumerate(ordered)}, tuple(ordered), tuple(notes))


def _plain(name: str) -> str:
    """Without case, blanks, underscores and hyphens."""
    return re.sub(r"[\s_\-]+", "", name).casefold()


def _by_names(folders: Sequence[str], class_names: Sequence[str]) -> Labels | None:
    """None where no folder is named like a class, or where the order says the same anyway."""
    labels: dict[str, int] = {}
    for rename in (str, _plain, _first_synonym):
        known = _unambiguous([rename(name) for name in class_names])
        for folder in folders:
            label = known.get(folder if rename is str else _plain(folder))
            if label is not None:
                labels.setdefault(folder, label)
    unknown = [folder for folder in folders if folder not in labels]
    if not labels or not unknown and len(set(labels.values())) == len(folders):
        return _named(labels, class_names) if labels else None
    ranks = {name: rank for rank, name in enumerate(class_order(folders))}
    if len(folders) == len(class_names) and all(ranks[f] == i for f, i in labels.items()):
        return None  # other words for the same classes, in the same order
    if _are_numbers(folders) or all(_SYNSET.fullmatch(f) for f in folders):
        return None
    shown = ", ".join(printable(f, 40) for f in unknown[:3]) or "two folders for one class"
    raise InputError(
        f"`every class folder is one of teacher.class_names` must hold, but {len(labels)} of "
        f"{len(folders)} are and the others are not ({shown}). Rename them, or give "
        f"{STRING_ORDER}:DIR where the folders stand in the teacher's order."
    )


def _first_synonym(name: str) -> str:
    """`tench, Tinca tinca` → its first name."""
    return _plain(name.split(",")[0])


def _unambiguous(names: Sequence[str]) -> dict[str, int]:
    labels = {name: label for label, name in enumerate(names)}
    return {name: label for name, label in labels.items() if names.count(name) == 1}


def _named(labels: dict[str, int], class_names: Sequence[str]) -> Labels:
    notes = ["class folders are matched to teacher.class_names by name"]
    missing = len(class_names) - len(labels)
    if missing:
        have = "has" if missing == 1 else "have"
        notes[0] += f"; {missing} of {len(class_names)} classes {have} no folder"
    return Labels(labels, tuple(class_names), tuple(notes))


def _without(count: int) -> str:
    return f"{counted(count, 'class', 'classes')} {'has' if count == 1 else 'have'}"


def _folders(found: Collection[str]) -> str:
    return f"{counted(len(found), 'synset folder')} {_are(found)}"


def _are(found: Collection[str]) -> str:
    return "is" if len(found) == 1 else "are"


def _by_synsets(folders: Sequence[str], num_classes: int) -> Labels | None:
    """By timm's list for this number of classes; 1,001 are a background class and the 1,000."""
    if not folders or not all(_SYNSET.fullmatch(folder) for folder in folders):
        return None
    synsets = _timm_synsets(num_classes)
    if synsets is None:
        return None
    labels = {synset: label for label, synset in enumerate(synsets)}
    found = {folder: labels[folder] for folder in folders if folder in labels}
    other = [folder for folder in folders if folder not in labels]
    if not found:
        raise InputError(
            f"`the synset folders are among the teacher's {num_classes} classes` must hold, but got "
            f"none of {len(folders)} ({', '.join(other[:3])})."
        )
    notes = []
    if len(found) < num_classes or other:
        notes.append(
            f"{_folders(found)} mapped to the teacher's {num_classes:,} classes by timm's list; "
            f"{_without(num_classes - len(found))} no folder"
        )
    if other:
        shown = ", ".join(other[:3]) + (", …" if len(other) > 3 else "")
        notes.append(
            f"{_folders(other)} no class of the teacher and {_are(other)} left out ({shown})"
        )
    return Labels(found, tuple(synsets), tuple(notes))


def _timm_synsets(num_classes: int) -> list[str] | None:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if num_classes == 1001:
        return ["background", *ImageNetInfo().label_names()]
    subset = infer_imagenet_subset({"num_classes": num_classes})
    return None if subset is None else ImageNetInfo(subset).label_names()
