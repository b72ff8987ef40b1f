"""A flat folder of validation images with each of the label files people have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synq_tune.data.imagenet import LABEL_FILES
from synq_tune.data.labelled import load_labelled
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing

INPUT = Preprocessing(8, 8, 3, (0.5,) * 3, (0.5,) * 3)
SYNSETS = ["n01", "n02", "n03"]
LABELS = [2, 0, 1, 2]
IDS = {"n03": 1, "n01": 2, "n02": 3}
"""ILSVRC ids, which are not in the order of the synsets."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images whose grey value is their number."""
    (tmp_path / "val").mkdir()
    for number in range(1, 5):
        Image.new("RGB", (8, 8), (number,) * 3).save(tmp_path / "val" / f"{_name(number)}.JPEG")
    return tmp_path / "val"


def _name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


def _synset(number: int) -> str:
    return SYNSETS[LABELS[number]]


def _truth(folder: Path) -> None:
    lines = "".join(f"{IDS[_synset(i)]}\n" for i in range(4))
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)


def _caffe(folder: Path) -> None:
    lines = [f"{_name(i + 1)}.JPEG {label}\n" for i, label in enumerate(LABELS)]
    (folder / "val.txt").write_text("".join(reversed(lines)))


def _kaggle(file: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        rows = [f"{_name(i + 1)},{_synset(i)} 1 2 3 4 {_synset(i)} 5 6 7 8\n" for i in range(4)]
        (folder / file).write_text("ImageId,PredictionString\n" + "".join(reversed(rows)))

    return write


def _list(folder: Path) -> None:
    lines = "".join(f"{_synset(i)}\n" for i in range(4))
    (folder / "imagenet_2012_validation_synset_labels.txt").write_text(lines)


def _truth_and_map(folder: Path) -> None:
    _truth(folder)
    lines = [f"{synset} {number} some_name\n" for synset, number in sorted(IDS.items())]
    (folder / "map_clsloc.txt").write_text("".join(lines))


def _truth_and_words(folder: Path) -> None:
    _truth(folder)
    (folder / "synset_words.txt").write_text("n03 dog, hound\nn01 cat\nn02 bird\n")


def _truth_and_matlab(folder: Path) -> None:
    from scipy.io import savemat

    _truth(folder)
    rows = [(number, synset, 0) for synset, number in IDS.items()] + [(4, "n99", 3)]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})


WRITERS = {
    "val.txt": _caffe,
    "val.csv": _kaggle("val.csv"),
    "LOC_val_solution.csv": _kaggle("LOC_val_solution.csv"),
    "synset list": _list,
    "ground truth, map_clsloc": _truth_and_map,
    "ground truth, synset_words": _truth_and_words,
    "ground truth, meta.mat": _truth_and_matlab,
}


@pytest.mark.parametrize("where", ["beside", "above"])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_every_label_file_gives_the_same_labels(
    folder: Path, write: Callable[[Path], None], where: str
) -> None:
    """Labels are ranks of synsets, whatever the order of the file or of the ids."""
    write(folder if where == "beside" else folder.parent)
    data = load_labelled(f"imagenet:{folder}", INPUT, 3)
    assert data.labels.tolist() == LABELS
    assert data.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert len(data.class_names) == 3


def test_a_subset_with_absolute_labels(folder: Path) -> None:
    """Labels of val.txt stay what they are when images and classes are missing."""
    _caffe(folder)
    (folder / f"{_name(2)}.JPEG").unlink()
    data = load_labelled(f"imagenet:{folder}", INPUT, 1000)
    assert data.labels.tolist() == [2, 1, 2]


@pytest.mark.parametrize("write", [_list, _truth_and_words], ids=["synset list", "ground truth"])
def test_a_subset_of_a_list_by_number(folder: Path, write: Callable[[Path], None]) -> None:
    """Line n belongs to image n, not to the nth image that is there."""
    write(folder)
    (folder / f"{_name(2)}.JPEG").unlink()
    assert load_labelled(f"imagenet:{folder}", INPUT, 3).labels.tolist() == [2, 1, 2]


def test_tabs_separate_like_blanks(folder: Path) -> None:
    """`val.txt` is read however its columns were set."""
    lines = [f"{_name(i + 1)}.JPEG\t{label}\n" for i, label in enumerate(LABELS)]
    (folder / "val.txt").write_text("".join(lines))
    assert load_labelled(f"imagenet:{folder}", INPUT, 3).labels.tolist() == LABELS


def test_a_negative_label_is_named(folder: Path) -> None:
    """It is a label out of range, not the name of a class."""
    lines = [f"{_name(i + 1)}.JPEG {label}\n" for i, label in enumerate([2, 0, 1, -1])]
    (folder / "val.txt").write_text("".join(lines))
    with pytest.raises(InputError, match=r"0 <= label < 3.*00000004.*label=-1"):
        load_labelled(f"imagenet:{folder}", INPUT, 3)


def test_ids_without_synsets_are_refused(folder: Path) -> None:
    """The ids' order is not the synsets': guessing would give wrong labels."""
    _truth(folder)
    with pytest.raises(InputError, match="synsets of its ILSVRC ids are known.*meta.mat"):
        load_labelled(f"imagenet:{folder}", INPUT, 3)


def test_an_alphabetical_list_tells_no_ids(folder: Path) -> None:
    """caffe's synset_words.txt is sorted, so its line numbers are labels, not ids."""
    _truth(folder)
    (folder / "synset_words.txt").write_text("n01 cat\nn02 bird\nn03 dog\n")
    with pytest.raises(InputError, match="synsets of its ILSVRC ids are known"):
        load_labelled(f"imagenet:{folder}", INPUT, 3)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_an_image_without_label_is_named(folder: Path, write: Callable[[Path], None]) -> None:
    """The first image that has none is in the message."""
    write(folder)
    for number in (7, 6):
        Image.new("RGB", (8, 8)).save(folder / f"{_name(number)}.JPEG")
    with pytest.raises(InputError, match=f"every image has a label.*{_name(6)}.JPEG has none"):
        load_labelled(f"imagenet:{folder}", INPUT, 3)


def test_an_image_with_two_labels_is_named(folder: Path) -> None:
    """A file that contradicts itself is refused."""
    _caffe(folder)
    with open(folder / "val.txt", "a") as file:
        file.write(f"{_name(3)}.JPEG 0\n")
    with pytest.raises(InputError, match=f"one label.*{_name(3)} has two"):
        load_labelled(f"imagenet:{folder}", INPUT, 3)


def test_a_label_beyond_the_teachers_classes_is_named(folder: Path) -> None:
    """Label 2 is no class of a teacher with two."""
    _caffe(folder)
    with pytest.raises(InputError, match=f"label < 2.*{_name(1)}.JPEG has label=2"):
        load_labelled(f"imagenet:{folder}", INPUT, 2)


@pytest.mark.parametrize("write", [_list, _kaggle("val.csv"), _truth_and_words])
def test_the_number_of_synsets_must_be_the_teachers(
    folder: Path, write: Callable[[Path], None]
) -> None:
    """Ranks among three synsets are no labels of a teacher with four classes."""
    write(folder)
    with pytest.raises(InputError, match="distinct classes == 4.*got 3"):
        load_labelled(f"imagenet:{folder}", INPUT, 4)


def test_a_folder_without_label_file_is_an_error(folder: Path) -> None:
    """The message says which names are known."""
    with pytest.raises(InputError, match="label file lies beside the images") as caught:
        load_labelled(f"imagenet:{folder}", INPUT, 3)
    assert all(name in str(caught.value) for name in LABEL_FILES)


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    """Class folders are not what `imagenet:` reads."""
    (tmp_path / "n01").mkdir()
    with pytest.raises(InputError, match="images lie in the folder itself"):
        load_labelled(f"imagenet:{tmp_path}", INPUT, 3)
