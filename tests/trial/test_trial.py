"""What every process of a study shares on one machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.data.images import LabelledImages
from synq_tune.data.labelled_cache import load_halves, mapped_halves, share_halves, share_labelled
from synq_tune.errors import InputError
from synq_tune.models.teacher import LoadedTeacher


@pytest.fixture
def spec() -> StudySpec:
    return load_space("digits_w3a3")


def test_the_mapped_halves_are_the_decoded_ones(
    spec: StudySpec, teacher: LoadedTeacher, tmp_path: Path
) -> None:
    """Through the store or not, a trial chooses and reports on the same images."""
    address = share_labelled(spec, teacher, tmp_path)
    mapped = mapped_halves(spec, teacher, tmp_path, address)
    for half, decoded in zip(mapped, load_halves(spec, teacher), strict=True):
        assert torch.equal(half.images, decoded.images)
        assert torch.equal(half.labels, decoded.labels)


def test_what_the_driver_decoded_is_not_decoded_again(
    spec: StudySpec, teacher: LoadedTeacher, tmp_path: Path
) -> None:
    """With the file in place a worker needs the source of the images no more."""
    address = share_labelled(spec, teacher, tmp_path)
    study = spec.study.model_copy(update={"val_data": str(tmp_path / "gone")})
    choose, _ = mapped_halves(spec.model_copy(update={"study": study}), teacher, tmp_path, address)
    assert choose is not None and len(choose) == len(load_halves(spec, teacher)[0])


def test_other_images_on_another_machine_are_refused(
    spec: StudySpec, teacher: LoadedTeacher, tmp_path: Path
) -> None:
    """A machine whose store lacks the driver's images decodes its own, which must be the same."""
    driver, node = tmp_path / "driver", tmp_path / "node"
    halves = [
        LabelledImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4).long())
        for _ in range(2)
    ]
    address = share_halves((halves[0], halves[1]), driver)
    with pytest.raises(InputError, match="the same on every machine"):
        mapped_halves(spec, teacher, node, address)


def test_without_labels_nothing_is_shared(
    spec: StudySpec, teacher: LoadedTeacher, tmp_path: Path
) -> None:
    """A study that chooses by agreement has no labelled images, and no file for them."""
    study = spec.study.model_copy(update={"val_data": None})
    spec = spec.model_copy(update={"study": study})
    assert share_labelled(spec, teacher, tmp_path) is None
    assert mapped_halves(spec, teacher, tmp_path) == (None, None)
    assert not (tmp_path / "labelled").exists()
