"""Folders and zip files with one folder of images per class."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synq_tune.data.labelled import load_labelled
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing

SMALL = Preprocessing(8, 8, 3, (0.5,) * 3, (0.5,) * 3)


def _write(path: Path, value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes 2 and 10 with two images each, whose grey value is class and number."""
    for name in ("10", "2"):
        for number in range(2):
            _write(tmp_path / "data" / name / f"{number}.png", 10 * int(name) + number)
    return tmp_path / "data"


def test_numbered_folders_are_sorted_as_numbers(folder: Path) -> None:
    """Class 2 comes before class 10."""
    data = load_labelled(str(folder), SMALL, 2)
    assert data.class_names == ("2", "10")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert data.images[:, 0, 0, 0].tolist() == [20, 21, 100, 101]


def test_named_folders_are_sorted_alphabetically(folder: Path) -> None:
    """One name that is no number makes the order alphabetical."""
    (folder / "2").rename(folder / "cat")
    assert load_labelled(str(folder), SMALL, 2).class_names == ("10", "cat")


@pytest.mark.parametrize("root", ["", "data"], ids=["flat", "nested"])
def test_a_zip_reads_like_its_folder(folder: Path, tmp_path: Path, root: str) -> None:
    """Same images, labels and names, also where the archive encloses its own folder."""
    base = folder if not root else folder.parent
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", base, root or None)
    packed, plain = (load_labelled(s, SMALL, 2) for s in (archive, str(folder)))
    assert torch.equal(packed.images, plain.images)
    assert torch.equal(packed.labels, plain.labels)
    assert packed.class_names == plain.class_names


@pytest.mark.parametrize("name", ["../out/0.png", "/etc/0.png", "a/../../0.png"])
def test_names_outside_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    """An absolute name or one with `..` in it is an error."""
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(name, b"")
    with pytest.raises(InputError, match="stay inside the archive"):
        load_labelled(str(tmp_path / "evil.zip"), SMALL, 2)


def test_images_at_the_input_size_are_not_resized(tmp_path: Path) -> None:
    """Their pixels are taken as they are, whatever crop_pct says."""
    pixels = torch.randint(256, (2, 8, 8, 3), dtype=torch.uint8)
    for number, array in enumerate(pixels.numpy()):
        (tmp_path / str(number)).mkdir()
        Image.fromarray(array).save(tmp_path / str(number) / "0.png")
    cropped = Preprocessing(8, 8, 3, (0.5,) * 3, (0.5,) * 3, crop_pct=0.5)
    assert torch.equal(load_labelled(str(tmp_path), cropped, 2).images, pixels.permute(0, 3, 1, 2))


def test_resize_keeps_the_aspect_and_crops_the_centre(tmp_path: Path) -> None:
    """A 32×16 image whose middle square is white is all white after the crop."""
    array = np.zeros((16, 32), dtype=np.uint8)
    array[:, 8:24] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "0.png")
    grey = Preprocessing(8, 8, 1, (0.5,), (0.5,), interpolation="nearest")
    assert (load_labelled(str(tmp_path), grey, 2).images == 255).all()


def test_grey_teachers_get_one_channel(folder: Path) -> None:
    """RGB files are turned into grey ones for a teacher with one channel."""
    grey = Preprocessing(8, 8, 1, (0.5,), (0.5,))
    assert load_labelled(str(folder), grey, 2).images.shape == (4, 1, 8, 8)


def test_four_channels_are_kept_apart(tmp_path: Path) -> None:
    """RGBA files keep the colours under a fourth channel of 0, also when they are resized."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGBA", (16, 16), (200, 100, 50, 0)).save(tmp_path / name / "0.png")
    four = Preprocessing(8, 8, 4, (0.5,) * 4, (0.5,) * 4)
    images = load_labelled(str(tmp_path), four, 2).images
    assert images.shape == (2, 4, 8, 8)
    assert images[0, :, 3, 3].tolist() == [200, 100, 50, 0]


def test_other_numbers_of_channels_are_refused(folder: Path) -> None:
    """An image file has no two channels."""
    with pytest.raises(InputError, match="channels is 1, 3 or 4.*channels=2"):
        load_labelled(str(folder), Preprocessing(8, 8, 2, (0.5,) * 2, (0.5,) * 2), 2)


def test_inputs_need_not_be_square(tmp_path: Path) -> None:
    """For 96×160 a square image is scaled to the width, and the middle of its height is taken."""
    array = np.zeros((200, 200, 3), dtype=np.uint8)
    array[40:160] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(array).save(tmp_path / name / "0.png")
    wide = Preprocessing(96, 160, 3, (0.5,) * 3, (0.5,) * 3, interpolation="nearest")
    images = load_labelled(str(tmp_path), wide, 2).images
    assert images.shape == (2, 3, 96, 160)
    assert (images == 255).all()


def test_an_unreadable_image_is_named(folder: Path) -> None:
    """The message says which file is damaged."""
    file = folder / "10" / "1.png"
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match=r"10/1\.png.*can be read"):
        load_labelled(str(folder), SMALL, 2)


def test_sixteen_bit_images_are_refused(folder: Path) -> None:
    """Pillow would clip them silently."""
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(folder / "10" / "1.png")
    with pytest.raises(InputError, match=r"10/1\.png.*8 bits"):
        load_labelled(str(folder), SMALL, 2)


def test_class_count_must_be_the_teachers(folder: Path) -> None:
    """Two folders are no evaluation set for three classes."""
    with pytest.raises(InputError, match=r"number of classes == 3.*got 2 \(2, 10\)"):
        load_labelled(str(folder), SMALL, 3)


def test_a_class_without_images_is_an_error(folder: Path) -> None:
    """A class that would silently be missing is named: it has files, and none of them is read."""
    (folder / "11").mkdir()
    (folder / "11" / "0.heic").write_bytes(b"x")
    with pytest.raises(InputError, match="every class folder holds images.*'11'"):
        load_labelled(str(folder), SMALL, 3)


def test_hidden_folders_are_passed_over(folder: Path) -> None:
    """Folders of file managers are no classes."""
    _write(folder / ".thumbnails" / "0.png", 1)
    assert load_labelled(str(folder), SMALL, 2).class_names == ("2", "10")


@pytest.mark.parametrize("source", ["missing", "digit", "cifar10", "digits:x"])
def test_an_unknown_source_is_an_error(source: str) -> None:
    """What is neither known nor a folder is refused with what is allowed."""
    with pytest.raises(InputError, match="Give digits, cifar10:DIR"):
        load_labelled(source, SMALL, 2)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    """A folder without class folders holds nothing to measure on."""
    with pytest.raises(InputError, match="one folder per class"):
        load_labelled(str(tmp_path), SMALL, 2)
