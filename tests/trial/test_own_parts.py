"""A source, a quantizer and a reconstruction from a file of the user's own take part as ours do."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.config.paths import own_names
from synq_tune.errors import InputError
from synq_tune.export.best import export_student
from synq_tune.finetune.training_state import about
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import weight_layers
from synq_tune.trial.requirements import prepare
from tests.helpers import digits_trial, goes_on_where_it_was

EPOCHS = 3

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional as F

from synq_tune.seeds import derive_seed
from synq_tune.views.source import Batch, Source


class Along(Source):
    """A generator that learns, after each step of the student, to make what the student gets wrong."""

    def __init__(self, material, config, seed):
        self.teacher, self.config, self.seed = material.teacher, config, seed
        self.net = nn.Sequential(nn.Linear(12, 64), nn.Unflatten(1, (1, 8, 8)), nn.BatchNorm2d(1))
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-2)

    @property
    def steps_per_epoch(self):
        return 3

    def batches(self, epoch):
        generator = torch.Generator().manual_seed(derive_seed("along", self.seed, epoch))
        for _ in range(self.steps_per_epoch):
            latents = torch.randn(self.config.batch_size, 12, generator=generator)
            with torch.no_grad():
                images = self.net(latents)
                logits = self.teacher(images)
            easy = torch.zeros(len(images))
            yield Batch(images, logits.argmax(1), logits, None, easy)

    def calibration_images(self):
        return (batch.images for batch in self.batches(0))

    def after_step(self, student, batch):
        images = self.net(torch.randn(len(batch.images), 12))
        gap = F.mse_loss(student(images), self.teacher(images))
        self.optimizer.zero_grad()
        (-gap).backward(inputs=list(self.net.parameters()))
        self.optimizer.step()
        self.gap = gap.detach()

    def losses(self):
        return {"gap": float(self.gap)}

    def state(self):
        slots = self.optimizer.state_dict()["state"].items()
        moments = {f"{i}/{name}": v for i, slot in slots for name, v in slot.items()}
        return {**{f"net/{k}": v for k, v in self.net.state_dict().items()}, **moments}

    def restore(self, state):
        self.net.load_state_dict({k[4:]: v for k, v in state.items() if k.startswith("net/")})
        moments = {}
        for key, value in state.items():
            number, _, name = key.partition("/")
            if number != "net":
                moments.setdefault(int(number), {})[name] = value
        about = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**about, "state": moments})
'''

QUANTIZER = '''
import torch

from synq_tune.quantization.affine import per_channel
from synq_tune.quantization.base import Quantizer, WeightQuantizer
from synq_tune.quantization.minmax import MinMaxActivation
from synq_tune.quantization.placement import after_activations


class Floor(WeightQuantizer):
    """Rounds down, but for the rows of even number, which it rounds up: no code is round(w / s)."""

    has_zero_points = False

    def __init__(self, weight, bits):
        super().__init__(bits)
        largest = weight.detach().flatten(1).abs().amax(1) / self.limits[1]
        self.register_buffer("scale", largest.clamp_min(1e-8))

    def qparams(self, weight):
        return self.scale, torch.zeros_like(self.scale)

    def codes(self, weight):
        scaled = weight.detach() / per_channel(self.scale, weight)
        even = per_channel(torch.arange(len(weight)) % 2 == 0, weight)
        return torch.where(even, scaled.ceil(), scaled.floor()).clamp_(*self.limits)

    def forward(self, weight):
        value = self.codes(weight) * per_channel(self.scale, weight)
        return value + (weight - weight.detach())


FLOOR = Quantizer(Floor, MinMaxActivation, after_activations)
'''

RECONSTRUCTION = '''
import torch
from torch.nn import functional as F

from synq_tune.quantization.student import weight_layers
from synq_tune.trial.stages import Progress


def layer_by_layer(student, source, assets, config, position):
    """Move each layer's weights so that the student's logits come nearer to the teacher's."""
    images = torch.cat(list(source.calibration_images()))[: config.batch_size]
    wanted = assets.teacher(images)
    layers = list(weight_layers(student).values())[:3]
    moment = position.state.get("moment", torch.zeros(()))
    for number, layer in enumerate(layers[position.parts :], position.parts + 1):
        for _ in range(config.iterations):
            gap = F.mse_loss(student(images), wanted)
            (gradient,) = torch.autograd.grad(gap, layer.weight)
            moment = 0.5 * moment + gradient.abs().mean()
            layer.weight.data -= config.lr * gradient / moment
        yield Progress(number, lambda: {"moment": moment}, {"gap": gap.item()})
'''


def _spec(folder: Path, text: str, *sets: str) -> StudySpec:
    (folder / "my.py").write_text(text)
    small = ["finetune.batch_size=16", "finetune.num_views=1", "finetune.calibration_batches=1",
             "study.eval_every=1", f"finetune.epochs={EPOCHS}"]  # fmt: skip
    named = [setting.replace("my.py", f"{folder}/my.py") for setting in sets]
    return load_space("digits_w3a3", [*small, *named])


def _goes_on(spec: StudySpec, teacher: LoadedTeacher, store: Path) -> None:
    """Taken up from every place at which a state can be taken, a trial ends as if never stopped."""
    whole = digits_trial(spec, teacher, store)
    expected = [vars(row) for row in whole.run(is_kept=lambda epoch: True)]
    make = partial(digits_trial, spec, teacher, store)
    goes_on_where_it_was(make, expected, whole, range(1, len(expected)))


@pytest.mark.long
def test_a_source_that_trains_along_goes_on_where_it_was(
    teacher: LoadedTeacher, tmp_path: Path
) -> None:
    """Its weights, its moments and the generator it draws from are in the training state."""
    spec = _spec(tmp_path, SOURCE, "finetune.source=my.py:Along", "finetune.lambda_cam=0")
    assert own_names(spec) == [f"{tmp_path}/my.py:Along"]
    rows = list(digits_trial(spec, teacher, tmp_path).run())
    assert all("source/gap" in row.losses for row in rows)
    assert len({row.losses["source/gap"] for row in rows}) == EPOCHS
    _goes_on(spec, teacher, tmp_path)


def test_a_source_is_checked(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """What is no source is said before anything trains."""
    spec = _spec(tmp_path, "def none(*given): return 3", "finetune.source=my.py:none")
    with pytest.raises(
        InputError, match=r"my\.py:none: `it returns .*Source` must hold, but got int"
    ):
        next(digits_trial(spec, teacher, tmp_path).run())


@pytest.mark.long
def test_codes_need_not_be_of_rounding_to_nearest(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """What a quantizer calls its codes is what trains, what is frozen and what every file holds."""
    spec = _spec(tmp_path, QUANTIZER, "quantizer=my.py:FLOOR", "bits.weights=4")
    trial = digits_trial(spec, teacher, tmp_path)
    list(trial.run())
    (layer, *_) = weight_layers(trial.student).values()
    codes, scale, _ = layer.integer_weight()
    nearest = (layer.weight / scale.view(-1, 1, 1, 1)).round()
    assert not torch.equal(codes.float(), nearest)
    images = trial.assets.dataset.images.float()
    report = export_student(
        trial.student, teacher, spec, tmp_path / "best", images[:8], iter([images])
    )
    assert report["weight_codes"] and all(
        entry["mismatches"] == 0 for entry in report["weight_codes"].values()
    )
    assert all(entry["agreement"] == 100 for entry in report["logits"].values())
    written = json.loads((tmp_path / "best" / "parity.json").read_text())
    assert str(tmp_path) not in json.dumps(written)


@pytest.mark.long
def test_a_reconstruction_goes_on_where_it_was(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """It yields its parts, changes what training starts from, and resumes behind any of them."""
    asked = ("reconstruct.method=my.py:layer_by_layer", "reconstruct.iterations=2",
             "reconstruct.batch_size=16", "reconstruct.lr=1e-2")  # fmt: skip
    spec = _spec(tmp_path, RECONSTRUCTION, *asked)
    trial = digits_trial(spec, teacher, tmp_path)
    rows = list(trial.run(is_kept=lambda epoch: True))
    assert [(row.epoch, row.position) for row in rows] == [
        (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0), (3, 0),
    ]  # fmt: skip
    assert [bool(row.metrics) for row in rows[2:5]] == [False, True, bool(rows[4].metrics)]
    _goes_on(spec, teacher, tmp_path)
    plain = digits_trial(_spec(tmp_path, RECONSTRUCTION), teacher, tmp_path)
    assert list(plain.run())[-1].losses != rows[-1].losses


def test_a_state_names_its_stage(teacher: LoadedTeacher, tmp_path: Path) -> None:
    """A checkpoint is a stage and a position in it."""
    asked = ("reconstruct.method=my.py:layer_by_layer", "reconstruct.iterations=1")
    trial = digits_trial(_spec(tmp_path, RECONSTRUCTION, *asked), teacher, tmp_path)
    rows = trial.run(is_kept=lambda epoch: True)
    next(rows), next(rows)
    found = about(trial.state())
    assert (found["stage"], found["position"], found["epoch"]) == ("reconstruct", 2, 0)


def test_a_reconstruction_alone_counts_as_training(tmp_path: Path) -> None:
    """With no epoch but a reconstruction a study searches; `reconstruct.X` can be searched."""
    asked = (
        "finetune.epochs=0",
        "reconstruct.method=my.py:layer_by_layer",
        "reconstruct.iterations=2",
    )
    spec = _spec(tmp_path, RECONSTRUCTION, *asked, "search.reconstruct.lr={choice: [0.1, 0.2]}")
    assert spec.is_trained and not spec.of_trial({"reconstruct.iterations": 0}).is_trained
    assert spec.of_trial({"reconstruct.lr": 0.2}).reconstruct.lr == 0.2


def test_searched_names_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A choice of own reconstructions is made absolute, and its file goes to the workers."""
    (tmp_path / "my.py").write_text(RECONSTRUCTION)
    monkeypatch.chdir(tmp_path)
    choice = "search.reconstruct.method={choice: ['my.py:layer_by_layer']}"
    spec = load_space("digits_w3a3", [choice])
    assert own_names(spec) == [f"{tmp_path}/my.py:layer_by_layer"]


@pytest.mark.parametrize("key", ["finetune.source", "reconstruct.method"])
def test_a_name_that_nothing_has_is_refused_before_any_work(tmp_path: Path, key: str) -> None:
    """The driver finds out, not the first worker."""
    spec = _spec(tmp_path, "", f"{key}=my.py:nothing")
    with pytest.raises(InputError, match=r"my\.py defines nothing"):
        prepare(spec, torch.device("cpu"))
