"""What is read of a folder or an archive, and that nothing is passed over in silence."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synq_tune import notes
from synq_tune.data.decode import image_formats, image_suffixes
from synq_tune.data.labelled import load_labelled
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing

SMALL = Preprocessing(8, 8, 3, (0.5,) * 3, (0.5,) * 3)
SUFFIXES = {
    ".jpg": 0, ".JPG": 0, ".jpeg": 0, ".JPEG": 0, ".jfif": 0, ".png": 1, ".PNG": 1, ".webp": 2, ".bmp": 1,
    ".tif": 1, ".TIFF": 1, ".ppm": 1, ".pgm": 1, ".pnm": 1, ".gif": 1, ".jp2": 1, ".tga": 1, ".ico": 1,
    ".pcx": 1, ".dib": 1, ".sgi": 1,
}  # fmt: skip
"""Suffix → whether pixels are exact (1), or as the coding leaves them."""


@pytest.fixture(autouse=True)
def _forget() -> None:
    """Notes are said once per process."""
    notes._SAID.clear()


def _save(path: Path, value: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (value,) * len(mode) if mode in ("RGB", "RGBA", "LA", "CMYK") else value
    kind = {".jp2": "JPEG2000"}.get(
        path.suffix.lower(), Image.registered_extensions()[path.suffix.lower()]
    )
    Image.new(mode, (8, 8), pixels).save(path, format=kind)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with an image of each suffix."""
    image_formats()
    for number, suffix in enumerate(SUFFIXES):
        for name in ("cat", "dog"):
            mode = "L" if suffix == ".pgm" else "RGB"
            _save(tmp_path / "data" / name / f"{number:02d}{suffix}", 10 * number, mode)
    return tmp_path / "data"


def test_every_suffix_that_pillow_reads_is_read(folder: Path) -> None:
    """In any case; pixels of lossless formats are exact."""
    data = load_labelled(str(folder), SMALL, 2)
    assert len(data) == 2 * len(SUFFIXES)
    for number, (suffix, exact) in enumerate(SUFFIXES.items()):
        error = (data.images[number].int() - 10 * number).abs().max()
        assert error <= (0 if exact == 1 else 6), suffix


def test_torchvisions_suffixes_are_all_known() -> None:
    """What ImageFolder would have read is read here (its list; importing it takes seconds)."""
    known = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
    assert known <= image_suffixes()


def test_formats_that_start_other_programs_are_not_read(tmp_path: Path) -> None:
    """PostScript is a language, also under the name of an image."""
    assert not {".eps", ".ps", ".wmf", ".pdf"} & image_suffixes()
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"
        )
    with pytest.raises(InputError, match=r"0\.png.*no image that Pillow knows"):
        load_labelled(str(tmp_path), SMALL, 2)


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar"])
@pytest.mark.parametrize("root", ["", "data"], ids=["flat", "nested"])
def test_archives_read_like_their_folder(
    folder: Path, tmp_path: Path, kind: str, root: str
) -> None:
    """Same images, labels and names, whatever the packing."""
    base = folder if not root else folder.parent
    archive = shutil.make_archive(
        str(tmp_path.parent / f"{tmp_path.name}-packed"), kind, base, root or None
    )
    packed, plain = (load_labelled(s, SMALL, 2) for s in (archive, str(folder)))
    assert torch.equal(packed.images, plain.images)
    assert torch.equal(packed.labels, plain.labels)
    assert packed.class_names == plain.class_names


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    """To class folders, to folders inside them and to files."""
    linked = tmp_path / "linked"
    (linked / "dog").mkdir(parents=True)
    (linked / "cat").symlink_to(folder / "cat")
    (linked / "dog" / "more").symlink_to(folder / "dog")
    (linked / "dog" / "one.jpg").symlink_to(folder / "dog" / "00.jpg")
    data = load_labelled(str(linked), SMALL, 2)
    assert data.labels.bincount().tolist() == [len(SUFFIXES), len(SUFFIXES) + 1]


def test_links_in_a_circle_end(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link to a folder above is counted, not followed."""
    (folder / "cat" / "up").symlink_to(folder)
    (folder / "dog" / "self").symlink_to(folder / "dog")
    assert len(load_labelled(str(folder), SMALL, 2)) == 2 * len(SUFFIXES)
    assert "2 links to a folder above" in capsys.readouterr().err


def test_what_is_not_read_is_counted_and_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each reason with its number."""
    for name in ("notes.txt", "more.txt", "raw.heic", "none"):
        (folder / "cat" / name).write_bytes(b"x")
    (folder / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / ".thumbs").mkdir()
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere")
    _save(folder / "stray.png", 1)
    load_labelled(str(folder), SMALL, 2)
    said = capsys.readouterr().err
    for part in ("not read: 8 (", "2 files that are no images (suffix .txt)", "(suffix .heic)",
                 "1 files that are no images (suffix none)", "1 hidden files", "1 hidden folders",
                 "1 broken links", "1 images outside class folders"):  # fmt: skip
        assert part in said, part
    assert said.count("\n") == 1


def test_links_in_an_archive_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tar archive may hold them; they are never followed out of it."""
    for name in ("cat", "dog"):
        _save(tmp_path / "d" / name / "0.png", 1)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "d", "d")
        link = tarfile.TarInfo("d/cat/evil.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert len(load_labelled(str(tmp_path / "a.tar"), SMALL, 2)) == 2
    assert "1 links inside the archive" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../out/0.png", "/etc/0.png", "a/../../0.png"])
def test_names_outside_a_tar_are_refused(tmp_path: Path, name: str) -> None:
    """As in a zip file."""
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(InputError, match="stay inside the archive"):
        load_labelled(str(tmp_path / "evil.tar"), SMALL, 2)


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_a_truncated_archive_is_named(folder: Path, tmp_path: Path, kind: str) -> None:
    """Half a download is one line."""
    path = Path(shutil.make_archive(str(tmp_path / "packed"), kind, folder))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"packed\."):
        load_labelled(str(path), SMALL, 2)


MODES = {
    "CMYK": ("CMYK", ".jpg", (128,) * 3), "grey": ("L", ".png", (30,) * 3),
    "one bit": ("1", ".png", (255,) * 3),
    "palette": ("P", ".png", None), "grey with alpha": ("LA", ".png", (30,) * 3),
    "alpha": ("RGBA", ".png", (30,) * 3),
}  # fmt: skip


@pytest.mark.parametrize(("mode", "suffix", "expected"), MODES.values(), ids=MODES.keys())
def test_modes_become_what_convert_makes_of_them(
    tmp_path: Path, mode: str, suffix: str, expected: tuple[int, ...] | None
) -> None:
    """torchvision's and timm's convention: `convert("RGB")`."""
    for name in ("cat", "dog"):
        _save(tmp_path / name / f"0{suffix}", 1 if mode == "1" else 30, mode)
    with Image.open(tmp_path / "cat" / f"0{suffix}") as image:
        same = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(load_labelled(str(tmp_path), SMALL, 2).images[0], same)


def test_frames_rotation_and_transparency_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first frame, no rotation by EXIF, no transparency: as timm does, and each is counted."""
    frames = [Image.new("RGB", (8, 8), (value,) * 3) for value in (10, 200)]
    (tmp_path / "cat").mkdir()
    frames[0].save(tmp_path / "cat" / "0.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.tile(np.arange(0, 160, 20, dtype=np.uint8), (8, 1)))
    (tmp_path / "dog").mkdir()
    turned.save(tmp_path / "dog" / "0.png", exif=exif)
    _save(tmp_path / "dog" / "1.png", 40, "RGBA")
    data = load_labelled(str(tmp_path), SMALL, 2)
    assert data.images[0].unique().tolist() == [10]
    assert data.images[1, 0, 0].tolist() == list(range(0, 160, 20))
    said = capsys.readouterr().err
    for part in (
        "1 images have several frames",
        "1 images ask by EXIF",
        "1 images have transparency",
    ):
        assert part in said


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"<html>", bytes(100)], ids=["empty", "cut", "html", "zeros"]
)
@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif", ".gif", ".tga", ".ico"])
def test_an_unreadable_image_is_named(tmp_path: Path, suffix: str, content: bytes) -> None:
    """It is an error, not an image fewer."""
    _save(tmp_path / "cat" / "0.png", 1)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / f"0{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=rf"dog/0\{suffix}.*can be read"):
        load_labelled(str(tmp_path), SMALL, 2)
