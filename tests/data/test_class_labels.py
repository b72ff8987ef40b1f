"""Which class a folder is: by name, number, synset or place; what does not go together is said."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from PIL import Image

from synq_tune import notes
from synq_tune.data.class_labels import folder_labels
from synq_tune.data.labelled import load_labelled
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing

SMALL = Preprocessing(8, 8, 3, (0.5,) * 3, (0.5,) * 3)
ROOT = Path(__file__).parents[2]
PHOTOS = (
    Path(os.environ.get("SYNQ_SHARED", ROOT.parent / "shared")) / "data/photos_imagenet_224.zip"
)


def test_names_win_over_the_order_of_folders() -> None:
    """A teacher whose classes stand in another order than the alphabet."""
    labels = folder_labels(["bird", "cat", "dog"], 3, ["dog", "bird", "cat"])
    assert labels.by_folder == {"dog": 0, "bird": 1, "cat": 2}
    assert labels.names == ("dog", "bird", "cat")
    assert labels.notes == ("class folders are matched to teacher.class_names by name",)


@pytest.mark.parametrize(
    "folder", ["Fire Truck", "fire_truck", "FIRE-TRUCK", "firetruck", "fire  truck", "Fire_truck"]
)
def test_case_blanks_and_underscores_do_not_count(folder: str) -> None:
    """Folders are written as file systems like them."""
    labels = folder_labels([folder, "ant"], 2, ["fire truck, fire engine", "ant"])
    assert labels.by_folder == {folder: 0, "ant": 1}


def test_an_exact_name_goes_before_a_similar_one() -> None:
    """`Crane` and `crane` are two classes where the teacher says so."""
    labels = folder_labels(["crane", "Crane"], 2, ["Crane", "crane"])
    assert labels.by_folder == {"Crane": 0, "crane": 1}


def test_a_part_of_the_named_classes_is_enough() -> None:
    """The others are counted."""
    labels = folder_labels(["dog"], 3, ["cat", "bird", "dog"])
    assert labels.by_folder == {"dog": 2} and "2 of 3 classes have no folder" in labels.notes[0]


@pytest.mark.parametrize("names", [["dog", "cat", "x"], ["dog", "cat", "cat"]])
def test_names_that_go_only_in_part_are_refused(names: list[str]) -> None:
    """Neither order would be certain."""
    with pytest.raises(InputError, match="is one of teacher.class_names"):
        folder_labels(["bird", "cat", "dog"], 3, names)


def test_other_words_in_the_same_order_are_taken_by_order() -> None:
    """As before there were names: `car` stands where `automobile` does."""
    labels = folder_labels(["airplane", "car", "ship"], 3, ["airplane", "automobile", "ship"])
    assert labels.by_folder == {"airplane": 0, "car": 1, "ship": 2}
    assert "ranked by name" in labels.notes[0]


def test_numbers_are_ranked_as_numbers_and_text_can_be_asked_for() -> None:
    """Folders 0 … 10: torchvision puts 10 behind 1."""
    folders = [str(n) for n in range(11)]
    random.Random(0).shuffle(folders)
    numeric, text = folder_labels(folders, 11), folder_labels(folders, 11, None, True)
    assert numeric.by_folder["10"] == 10 and "imagefolder:DIR" in numeric.notes[0]
    assert text.by_folder == {name: rank for rank, name in enumerate(sorted(folders))}
    assert "ranked as text (0, 1, 10, 2, …)" in text.notes[0]


def test_where_both_orders_agree_nothing_is_said() -> None:
    """Padded numbers, or fewer than ten."""
    assert folder_labels(["0", "1", "2"], 3).notes == ()
    assert folder_labels(["008", "009", "010"], 3).notes == ()
    assert folder_labels(["ant", "bee"], 2).notes == ()


def test_some_numbers_are_labels() -> None:
    """Of 20 classes three are there."""
    labels = folder_labels(["3", "17", "05"], 20)
    assert labels.by_folder == {"3": 3, "17": 17, "05": 5}
    assert "taken as label numbers; 17 classes have none" in labels.notes[0]


@pytest.mark.parametrize(
    ("folders", "num_classes"),
    [(["1", "20"], 20), (["1", "01"], 20), (["a", "b"], 3), (["a", "b", "c"], 2), (["1", "b"], 20)],
)
def test_a_part_without_names_is_refused(folders: list[str], num_classes: int) -> None:
    """Out of range, twice the same, or words that nobody explains."""
    with pytest.raises(InputError, match=f"number of classes == {num_classes}.*label number"):
        folder_labels(folders, num_classes)


@pytest.mark.parametrize("num_classes", [1000, 1001, 11221, 11821, 21841, 21842, 21843])
def test_synsets_are_mapped_by_timms_list(num_classes: int) -> None:
    """For every number of classes that timm knows, in that list's order."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    folders = ["n01440764", "n02123045", "n07747607"]
    labels = folder_labels(folders, num_classes)
    if num_classes == 1001:
        expected = [1 + ImageNetInfo().label_names().index(folder) for folder in folders]
    else:
        subset = infer_imagenet_subset({"num_classes": num_classes})
        expected = [ImageNetInfo(subset).label_names().index(folder) for folder in folders]
    assert [labels.by_folder[folder] for folder in folders] == expected
    assert len(labels.names) == num_classes
    assert f"{num_classes - 3:,} classes have no folder" in labels.notes[0]


def test_synsets_that_the_teacher_lacks_are_left_out_and_said() -> None:
    """Images of ImageNet-21k on a network of 1,000 classes."""
    labels = folder_labels(["n01440764", "n00004475"], 1000)
    assert labels.by_folder == {"n01440764": 0}
    assert (
        "1 synset folder is no class of the teacher and is left out (n00004475)" in labels.notes[1]
    )
    with pytest.raises(InputError, match="are among the teacher's 1000 classes"):
        folder_labels(["n00004475"], 1000)


def test_synsets_of_a_small_network_are_ranked() -> None:
    """A network of 3 classes has no list; all of its folders are there."""
    assert folder_labels(["n03", "n01", "n02"], 3).by_folder == {"n01": 0, "n02": 1, "n03": 2}


def test_names_reach_the_images(tmp_path: Path) -> None:
    """From the setting to the labels; an empty folder beyond the classes is nothing."""
    for value, name in enumerate(("bird", "cat", "dog")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), (value,) * 3).save(tmp_path / name / "0.png")
    (tmp_path / "empty").mkdir()
    data = load_labelled(str(tmp_path), SMALL, 3, ("dog", "bird", "cat"))
    assert data.labels.tolist() == [0, 1, 2]
    assert data.images[:, 0, 0, 0].tolist() == [2, 0, 1]
    assert load_labelled(
        f"imagefolder:{tmp_path}", SMALL, 3, ("dog", "bird", "cat")
    ).labels.tolist() == [0, 1, 2]


def test_an_empty_class_keeps_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes behind it do not move up, and it is said."""
    notes._SAID.clear()
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    for name in ("a", "c"):
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    assert load_labelled(str(tmp_path), SMALL, 3).labels.tolist() == [0, 2]
    assert "1 class folder is empty (b)" in capsys.readouterr().err


@pytest.mark.skipif(not PHOTOS.is_file(), reason="the photos are not here")
def test_a_part_of_imagenet_in_a_zip(capsys: pytest.CaptureFixture[str]) -> None:
    """430 synset folders beside a text file, for a network of 1,000 classes."""
    notes._SAID.clear()
    data = load_labelled(str(PHOTOS), SMALL, 1000)
    assert (len(data), len(data.labels.unique()), len(data.class_names)) == (1000, 430, 1000)
    said = capsys.readouterr().err
    assert "570 classes have no folder" in said and "(suffix .csv)" in said
