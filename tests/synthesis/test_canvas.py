"""A whole synthesis method of the user's own: latents and a generator in one short file."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from synq_tune import own_code
from synq_tune.errors import ForeignError, InputError
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.synthesis import synthesizer
from synq_tune.synthesis.dataset import synthesize
from synq_tune.testing import check_synthesizer
from synq_tune.trial.requirements import prepare
from tests.synthesis.conftest import MakeSpec

ROOT = Path(__file__).parents[2]

GENERATOR = """
import torch
from torch import nn
from synq_tune.config.synthesis import NoiseSettings
from synq_tune.synthesis.canvas import Canvas
from synq_tune.synthesis.method import SynthesisMethod
from synq_tune.synthesis.noise import objective


class Generated(Canvas):
    def __init__(self, teacher, config, count, generator):
        channels, height, width = teacher.preprocessing.shape
        device = next(teacher.graph.parameters()).device
        self.latents = torch.randn(count, 16, generator=generator).to(device).requires_grad_()
        self.generator = nn.Sequential(
            nn.Linear(16, 8 * height * width), nn.Unflatten(1, (8, height, width)),
            nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.Conv2d(8, channels, 3, padding=1),
        ).to(device)

    def parameters(self):
        return [
            {"params": [self.latents]},
            {"params": list(self.generator.parameters()), "lr": 0.01},
        ]

    def images(self):
        return self.generator(self.latents)


METHOD = SynthesisMethod(
    settings=NoiseSettings, needs=("batchnorm", "labels"), canvas=Generated, objective=objective
)
"""
UNLABELLED = (
    GENERATOR
    + """

from contextlib import contextmanager
from synq_tune.config.synthesis import CanvasSettings
from synq_tune.synthesis.method import Objective
from synq_tune.synthesis.optimize import Descent


@contextmanager
def brighter(batch):
    assert batch.labels is None
    yield lambda shown, logits: -logits.square().mean()


METHOD = SynthesisMethod(
    settings=CanvasSettings, needs=(), canvas=Generated, objective=lambda work: Objective(brighter),
    descent=lambda config: Descent(config.iterations, LR),
)
"""
)

KILLED = (
    GENERATOR.replace("canvas=Generated", "canvas=killed")
    .replace(
        "METHOD =",
        """
def killed(teacher, config, count, generator, made=[]):
    made.append(count)
    if len(made) == int(os.environ.get("KILLED_AT", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    return Generated(teacher, config, count, generator)


METHOD =""",
    )
    .replace("import torch\n", "import os\nimport signal\nimport torch\n", 1)
)


def _name(folder: Path, text: str = GENERATOR) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text(text)
    return f"{folder / 'mine.py'}:METHOD"


def _class_loss(teacher: LoadedTeacher, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        return F.cross_entropy(teacher(images.float()), labels).item()


@pytest.mark.long
def test_a_generators_images_become_the_dataset(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Stored and found like ours; latents and generator learn, each at its own rate."""
    name = _name(tmp_path)
    ends = []
    for iterations in (1, 60):
        spec = make_spec(method=name, iterations=iterations, lr=0.1)
        made, reused = synthesize(teacher, spec, tmp_path / "store", progress=False)
        again, reused_again = synthesize(teacher, spec, tmp_path / "store", progress=False)
        assert not reused and reused_again and made.sha256 == again.sha256
        ends.append(_class_loss(teacher, made.images, made.labels))
    assert made.images.shape == (16, 1, 8, 8) and made.method == "mine.py:METHOD"
    assert len(made.provenance["losses"]) == 3
    assert ends[1] < 0.5 * ends[0]


def test_it_keeps_the_contract_and_is_short(tmp_path: Path) -> None:
    """The check that we offer takes a method as it takes a function."""
    check_synthesizer(own_code.find_object(_name(tmp_path)))
    assert 20 <= len([line for line in GENERATOR.splitlines() if line.strip()]) <= 40


def test_a_killed_run_makes_only_the_batches_that_are_missing(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """A batch's own layers start alike, whether the batches before it were made or found."""
    method = own_code.find_object(_name(tmp_path))
    config = make_spec(method=_name(tmp_path)).synthesis
    whole = method.synthesize(teacher, config, tmp_path / "a", False)
    for file in (tmp_path / "a").glob("images-00001.*"):
        (tmp_path / "b").mkdir(exist_ok=True)
        shutil.copy2(file, tmp_path / "b" / file.name)
    kept = tmp_path / "b" / "images-00001.safetensors"
    before = kept.stat().st_mtime_ns
    resumed = method.synthesize(teacher, config, tmp_path / "b", False)
    assert torch.equal(whole.images, resumed.images) and torch.equal(whole.labels, resumed.labels)
    assert kept.stat().st_mtime_ns == before and len(list((tmp_path / "b").glob("*.json"))) == 3


def test_its_address_is_its_settings_and_its_source(make_spec: MakeSpec, tmp_path: Path) -> None:
    """Settings that it does not name change nothing; another text is another dataset."""
    name = _name(tmp_path)
    one = synthesizer(name).address(make_spec(method=name).synthesis)
    assert one == synthesizer(name).address(make_spec(method=name, center_lr=1.0).synthesis)
    assert one != synthesizer(name).address(make_spec(method=name, alpha_bns=1.0).synthesis)
    other = _name(tmp_path / "other", GENERATOR + "\n")
    assert one != synthesizer(other).address(make_spec(method=other).synthesis)


def test_without_labels_the_teacher_gives_them(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """A method that asks for none is given none; each image has the class that the teacher sees."""
    name = _name(tmp_path, UNLABELLED.replace("LR", "config.lr"))
    made, _ = synthesize(teacher, make_spec(method=name), tmp_path / "store", progress=False)
    assert torch.equal(made.labels, teacher(made.images.float()).argmax(1))


def test_a_setting_that_is_not_its_own_cannot_be_read(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """It would change images without changing their address."""
    name = _name(tmp_path, UNLABELLED.replace("LR", "config.center_lr"))
    with pytest.raises(ForeignError, match="CanvasSettings.*center_lr"):
        synthesize(teacher, make_spec(method=name), tmp_path / "store", progress=False)


def test_a_setting_that_it_would_ignore_is_refused(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """In the words in which our own methods refuse it."""
    name = _name(tmp_path, UNLABELLED.replace("LR", "config.lr"))
    spec = make_spec(method=name, precision="bfloat16")
    with pytest.raises(InputError, match="`precision is float32` must hold.*bfloat16"):
        synthesize(teacher, spec, tmp_path / "store", progress=False)


def test_it_is_perturbed_where_it_says_so(
    teacher: LoadedTeacher, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The training part moves by ε, the hold-out stays; without the word nothing moves."""
    text = GENERATOR.replace("objective=objective", "objective=objective, is_perturbed=True")
    made = [
        synthesize(teacher, make_spec(method=name), tmp_path / "store", progress=False)[0]
        for name in (_name(tmp_path / "a"), _name(tmp_path / "b", text))
    ]
    moved = (made[1].images.float() - made[0].images.float()).abs()
    assert moved[:12].max() == pytest.approx(0.01, abs=2e-3) and moved[12:].max() == 0


def test_its_needs_are_asked_first(make_spec: MakeSpec, tmp_path: Path) -> None:
    """A teacher without BatchNorm is refused before a store exists; a need that nobody knows, too."""
    spec = make_spec("digits_vit_w4a8", method=_name(tmp_path))
    with pytest.raises(InputError, match="has BatchNorm layers"):
        prepare(spec.model_copy(update={"study": spec.study.model_copy(update={"val_data": None})}),
                torch.device("cpu"))  # fmt: skip
    wrong = _name(tmp_path / "wrong", re.sub('"batchnorm"', '"batchnorms"', GENERATOR))
    with pytest.raises(InputError, match="Did you mean 'batchnorm'"):
        synthesizer(wrong)


def _synthesize(name: str, folder: Path, *more: str, killed_at: int = 0) -> int:
    """Run `scripts/synthesize.py` on a small set, in three batches; returns its exit code."""
    small = ("num_images=12", "num_holdout=4", "batch_size=6", "iterations=3", f"method={name}")
    sets = [text for setting in small for text in ("--set", f"synthesis.{setting}")]
    command = [sys.executable, str(ROOT / "scripts/synthesize.py"), "--space", "digits_w4a4"]
    places = ["--store", str(folder), *more]
    environment = {**os.environ, "KILLED_AT": str(killed_at)}
    return subprocess.run([*command, *sets, *places], env=environment, check=False).returncode


@pytest.mark.slow
def test_the_command_goes_on_with_the_batch_at_which_it_was_killed(tmp_path: Path) -> None:
    """What a killed command had made stays, and its dataset is that of one that ran through."""
    name = _name(tmp_path, KILLED)
    assert _synthesize(name, tmp_path / "a", killed_at=3) == -signal.SIGKILL
    shards = sorted((tmp_path / "a" / "datasets").glob("*.partial/images-*.safetensors"))
    assert [file.stem for file in shards] == ["images-00000", "images-00001"]
    # A second canvas would kill it again: it makes one alone.
    exported = ("--export", "npy", "--output", str(tmp_path / "out"))
    assert _synthesize(name, tmp_path / "a", *exported, killed_at=2) == 0
    assert _synthesize(name, tmp_path / "b") == 0
    files = [next((tmp_path / store).glob("datasets/*/images.safetensors")) for store in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].parent.name == files[1].parent.name
    images = np.load(tmp_path / "out" / "images.npy")
    assert images.shape == (12, 1, 8, 8) and np.isfinite(images).all() and images.std() > 0
