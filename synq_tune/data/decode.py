"""Image files → uint8 tensors in a teacher's input size."""

from __future__ import annotations

import math
import os
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import IO

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from synq_tune.data.images import LabelledImages
from synq_tune.errors import InputError
from synq_tune.models.preprocessing import Preprocessing

_NOT_READ = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
"""What Pillow opens by another program, only on Windows, or without any pixels."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# What Pillow and zipfile raise for files that are damaged, encrypted, or pretend to be images.
_UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, NotImplementedError,
    zlib.error, struct.error, TypeError, IndexError, KeyError, AttributeError, OverflowError,
    zipfile.BadZipFile, Image.DecompressionBombError,
)  # fmt: skip


@cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - _NOT_READ))


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the formats that are read, in lower case, such as `.jpeg` and `.webp`."""
    formats = image_formats()
    return frozenset(s for s, name in Image.registered_extensions().items() if name in formats)


def is_image(name: str) -> bool:
    """Whether a file's suffix, in any case, is that of an image."""
    return os.path.splitext(name)[1].lower() in image_suffixes()


@dataclass(frozen=True)
class ImageFile:
    """An image that can be opened when its turn comes."""

    name: str
    """What errors call it."""
    open: Callable[[], IO[bytes]]


def decode_images(
    files: Sequence[ImageFile], preprocessing: Preprocessing, facts: Counter[str] | None = None
) -> Tensor:
    """Decode and fit every file, on all cores; uint8 (N, C, H, W).

    As in torchvision and timm the first frame of an animation is taken, and a rotation that EXIF
    asks for is not applied.

    Args:
        files: what to decode.
        preprocessing: gives size, channels, crop and interpolation.
        facts: counts images of which something was left out; see `_facts`.

    Raises:
        InputError: an image cannot be read; names it.
    """
    images = torch.empty(len(files), *preprocessing.shape, dtype=torch.uint8)

    def decode(number: int) -> list[str]:
        images[number], known = _decode(files[number], preprocessing)
        return known

    image_formats()  # Pillow's plugins are not loaded by several threads at once
    with ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # palettes with transparency: see `_facts`
        try:
            for known in pool.map(decode, range(len(files))):
                if facts is not None:
                    facts.update(known)
        except InputError:
            pool.shutdown(cancel_futures=True)
            raise
    return images


def _decode(file: ImageFile, preprocessing: Preprocessing) -> tuple[Tensor, list[str]]:
    try:
        with file.open() as stream, Image.open(stream, formats=image_formats()) as image:
            image.load()
            return fit_image(image, preprocessing), _facts(image, preprocessing.channels)
    except InputError as error:
        raise InputError(f"{file.name}: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{file.name}: `the image can be read` must hold, but its content is no image that "
            "Pillow knows. It is empty, damaged, or of another kind than its name says."
        ) from error
    except _UNREADABLE as error:
        raise InputError(
            f"{file.name}: `the image can be read` must hold, but got: {error}."
        ) from error


def _facts(image: Image.Image, channels: int) -> list[str]:
    """What of an image is not used."""
    facts = []
    if getattr(image, "n_frames", 1) > 1:
        facts.append("images have several frames: the first is taken")
    if _orientation(image) not in (0, 1):
        facts.append(
            "images ask by EXIF to be rotated, which is not done (as in torchvision and timm)"
        )
    is_transparent = image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info
    if is_transparent and channels < 4:
        facts.append("images have transparency, which is dropped")
    return facts


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever a damaged EXIF block raises: the pixels are whole
        return 1


def fit_image(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """Resize so that the crop is `crop_pct` of the shortest side, crop the centre; uint8 (C, H, W).

    An image already at the input size is taken as it is.
    """
    converted = _convert(image, preprocessing.channels)
    if converted.size != (preprocessing.width, preprocessing.height):
        converted = _center_crop(_resize(converted, preprocessing), preprocessing)
    pixels = torch.from_numpy(np.array(converted))
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)


def _convert(image: Image.Image, channels: int) -> Image.Image:
    if channels not in _MODES:
        raise InputError(
            "`channels is 1, 3 or 4` must hold for image files and for images that are not in the "
            f"teacher's size, but got channels={channels}. Give npy:DIR in the teacher's size."
        )
    # Pillow clips 16-bit and float pixels to 255 instead of scaling them.
    if image.mode == "F" or image.mode.startswith("I"):
        raise InputError(
            f"`8 bits per channel` must hold, but got Pillow mode {image.mode!r}. Convert the image: "
            "which of its values is white cannot be told."
        )
    return image.convert(_MODES[channels])


def _resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    target_width = math.floor(preprocessing.width / preprocessing.crop_pct)
    target_height = math.floor(preprocessing.height / preprocessing.crop_pct)
    width, height = image.size
    if width * target_height >= height * target_width:
        size = (max(target_width, target_height * width // height), target_height)
    else:
        size = (target_width, max(target_height, target_width * height // width))
    resampling = _RESAMPLING[preprocessing.interpolation]
    if image.mode == "RGBA":
        # Pillow weights colours by opacity; to the network the fourth channel is one like the
        # others.
        return Image.merge("RGBA", [band.resize(size, resampling) for band in image.split()])
    return image.resize(size, resampling)


def _center_crop(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    left = round((image.width - preprocessing.width) / 2)
    top = round((image.height - preprocessing.height) / 2)
    return image.crop((left, top, left + preprocessing.width, top + preprocessing.height))


def fit_images(data: LabelledImages, preprocessing: Preprocessing) -> LabelledImages:
    """The same images in the teacher's size and channels; untouched where they already fit.

    Raises:
        InputError: they do not fit, and have another number of channels than 1, 3 or 4.
    """
    if data.images.shape[1:] == preprocessing.shape:
        return data
    fitted = [fit_image(_to_pil(image), preprocessing) for image in data.images]
    return replace(data, images=torch.stack(fitted))


def _to_pil(image: Tensor) -> Image.Image:
    if len(image) not in _MODES:
        raise InputError(
            "`channels is 1, 3 or 4` must hold for images that are not in the teacher's size, but "
            f"got channels={len(image)}, size={image.shape[1]}×{image.shape[2]}. Resize them first."
        )
    return Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy())
