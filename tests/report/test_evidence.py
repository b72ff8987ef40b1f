"""What a page shows of a study's networks and images is measured on them, not made up."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.data.digits import digits_half
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.layers import QuantizedConv2d
from synq_tune.report import page
from synq_tune.report.evidence import Evidence, Model, gather
from synq_tune.report.material import Material
from synq_tune.report.measured.layer_noise import layer_noise
from synq_tune.report.measured.mistakes import mistakes
from synq_tune.report.measured.synthetic import synthetic
from synq_tune.report.page import MAX_BYTES, write_page
from synq_tune.report.pixels import picture_of
from synq_tune.trial.assets import Assets
from synq_tune.trial.trial import Trial
from tests.helpers import digits_trial
from tests.report.studies import Page, add_trials, begun, end

SPACES = {"CNN": "digits_w3a3", "ViT": "digits_vit_w4a8"}


def _trial(spec: StudySpec, teacher: LoadedTeacher, store: Path) -> Trial:
    config = spec.finetune.model_copy(update={"epochs": 0})
    trial = digits_trial(spec.model_copy(update={"finetune": config}), teacher, store)
    for _ in trial.run():
        pass
    return trial


@pytest.fixture(scope="module", params=SPACES)
def calibrated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trial, Assets]:
    """A student of each kind of network, and what it was made from, with labels."""
    spec = load_space(SPACES[request.param])
    trial = _trial(spec, load_teacher(spec.teacher), tmp_path_factory.mktemp("store"))
    data = digits_half("test").subset(torch.arange(100))
    return trial, replace(trial.assets, report=data)


def _model(trial: Trial) -> Model:
    config = trial.assets.spec.finetune
    return Model(trial.student, config, lambda: trial.student)


@pytest.fixture
def evidence(calibrated: tuple[Trial, Assets], tmp_path: Path) -> Evidence:
    """All parts of it."""
    return gather(calibrated[1], _model(calibrated[0]), tmp_path)


@pytest.mark.long
def test_a_part_that_fails_leaves_the_others(
    calibrated: tuple[Trial, Assets], tmp_path: Path
) -> None:
    """It says why in a sentence, and the traceback is kept; all others are there."""

    def broken() -> None:
        raise ZeroDivisionError("no such luck")

    model = replace(_model(calibrated[0]), calibrated=broken)
    found = gather(calibrated[1], model, tmp_path)
    assert [name for name, part in vars(found).items() if part is None] == ["cams"]
    assert "no such luck" in found.why("cams")
    assert "Traceback" in (tmp_path / "errors" / "report-cams.log").read_text()


def test_the_page_shows_it_and_a_copy_without_images_does_not(
    evidence: Evidence, calibrated: tuple[Trial, Assets], tmp_path: Path
) -> None:
    """Pictures of images, and of labelled ones, are in the page of the folder only."""
    ledger = begun(tmp_path / "study", space=calibrated[1].spec.name)
    add_trials(ledger, 5)
    end(ledger)
    material = Material(ledger.state, ledger.folder, {}, evidence)
    pages = []
    for is_private in (True, False):
        path = tmp_path / f"{is_private}.html"
        write_page(material, path, is_private)
        assert path.stat().st_size <= MAX_BYTES
        pages.append(Page(path.read_text("utf-8")))
    pictures = [[a for t, a in read.tags if t == "img"] for read in pages]
    assert len(pictures[0]) > 60 and pictures[1] == []
    assert all(a["src"].startswith("data:image/png;base64,") for a in pictures[0])
    assert "Images are left out of this copy" in pages[1].text
    for said in ("Near-duplicates", "Class by class", "Signal to noise", "Weights on their grid"):
        assert said in pages[0].text and said in pages[1].text
    for text in pages[0].scripts:
        if text.startswith("{"):
            go.Figure(json.loads(text))


def test_a_page_that_would_be_too_large_leaves_pictures_out(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so where they would stand, and keeps every number."""
    ledger = begun(tmp_path / "study")
    monkeypatch.setattr(page, "MAX_BYTES", 1_000_000)
    write_page(Material(ledger.state, ledger.folder, {}, evidence), tmp_path / "page.html")
    written = Page((tmp_path / "page.html").read_text("utf-8"))
    assert not any(tag == "img" for tag, _ in written.tags)
    assert "Images are left out: the page would be larger than 1 MB." in written.text
    assert "Class by class" in written.text


def test_histograms_add_up_and_lie_on_their_grids(evidence: Evidence) -> None:
    """Shares are of all numbers; a grid of k bits has 2^k points, or its two ends are shown."""
    for found in [*evidence.weights, *evidence.values]:
        assert sum(found.shares) == pytest.approx(100, abs=1e-3)
        assert len(found.lines) == (2**found.bits if found.bits <= 4 else 2)
        half = (found.centers[1] - found.centers[0]) / 2 + 1e-4
        assert found.centers[0] - half <= found.lines[0]
        assert found.lines[-1] <= found.centers[-1] + half
    assert all(h.lines[0] == -(2 ** (h.bits - 1)) for h in evidence.weights)


def test_noise_is_the_students_own(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """A student whose first layer is exact has no noise there; one that is doubled has 0 dB."""
    trial = _trial(load_space("digits_w3a3"), teacher, tmp_path)
    images = torch.randn(4, 1, 8, 8)
    first = next(m for m in trial.student.modules() if isinstance(m, QuantizedConv2d))
    weight = teacher.graph.get_submodule("conv1").weight
    first.weight_quantizer.forward = lambda _: weight
    assert layer_noise(teacher, trial.student, images)[0].decibels == 99.0
    first.weight_quantizer.forward = lambda _: 2 * weight
    assert layer_noise(teacher, trial.student, images)[0].decibels == pytest.approx(0, abs=1e-4)


def test_energy_and_duplicates(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """A smaller D0 keeps less; a copy of an image is found, and so is no other."""
    trial = _trial(load_space("digits_w3a3"), teacher, tmp_path)
    dataset = trial.assets.dataset
    images = dataset.images.clone()
    images[5] = 1.5 * images[2]
    found = synthetic(teacher, replace(dataset, images=images), (2, 80))
    assert [f.d0 for f in found.filtered] == [None, 2, 80]
    kept = [f.energy for f in found.filtered]
    assert kept[0] == pytest.approx(100) and kept[1] < kept[2] < 100
    assert found.duplicates == 2 and found.pairs[0].cosine == pytest.approx(1, abs=1e-3)
    assert sum(c.count for c in found.classes) == found.count == 32
    assert sum(found.confidences) == pytest.approx(100)


def test_mistakes_are_counted_right(teacher: LoadedTeacher) -> None:
    """A student that always says class 3 is right on the threes alone."""
    data = digits_half("test").subset(torch.arange(200))

    def student(images: torch.Tensor) -> torch.Tensor:
        return torch.eye(10)[3].repeat(len(images), 1)

    found = mistakes(teacher, student, data)
    threes = int((data.labels == 3).sum())
    assert found.num_wrong == 200 - threes and len(found.worst) == 12
    assert {c.name: c.student for c in found.classes}["class 3"] == 100
    assert sum(c.count for c in found.classes) == 200
    assert all(said == "class 3" and truth != "class 3" for truth, said, _ in found.confusions)
    sure = 100 * float(torch.eye(10)[3].softmax(0)[3])
    assert found.student_gap == pytest.approx(abs(sure - 100 * threes / 200), abs=1e-3)


def test_a_picture_holds_the_pixels() -> None:
    """A small one exactly; a large one reduced, in few bytes."""
    pixels = torch.rand(3, 8, 8)
    small = picture_of(pixels, "x")
    read = np.asarray(Image.open(io.BytesIO(small.data)))
    assert np.array_equal(read, (pixels * 255).round().byte().permute(1, 2, 0).numpy())
    assert small.width == 96 and small.is_pixelated and small.is_private
    large = picture_of(torch.rand(3, 224, 224), "x")
    assert large.media == "image/jpeg" and large.width == 112 and len(large.data) < 20_000


def test_without_a_model_the_images_are_shown(
    calibrated: tuple[Trial, Assets], tmp_path: Path
) -> None:
    """A study in which nothing has completed still has its images."""
    found = gather(calibrated[1], None, tmp_path)
    assert found.synthetic is not None and found.inspection is not None
    assert found.why("noise") == "This part is left out: there is no model yet."
