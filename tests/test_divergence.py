"""What stops being finite, wherever it shows, ends a trial as diverged; the study goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from synq_tune.commands.evaluate import file_top1
from synq_tune.config import StudySpec
from synq_tune.config.load import load_space
from synq_tune.data.images import LabelledImages
from synq_tune.data.synthetic import SyntheticDataset, load_dataset, save_dataset
from synq_tune.errors import InputError, NonFiniteError
from synq_tune.export.best import export_student
from synq_tune.quantization import ready
from synq_tune.search.calibration import run_calibration
from synq_tune.search.ladder import build_ladder
from synq_tune.search.tune_adapter import LedgerCallback
from synq_tune.search.worker import TrialWorker
from synq_tune.study.console import ladder_lines, no_trial_line
from synq_tune.study.ledger import Ledger
from synq_tune.study.stages import Ladder
from synq_tune.study.summary import best_run, write_summary
from synq_tune.synthesis.perturbation import perturb
from synq_tune.trial.assets import Assets
from synq_tune.trial.evaluation import AgreementSet, make_probes
from synq_tune.trial.trial import Trial
from tests.helpers import teacher_of

SMALL = [
    "finetune.epochs=2", "finetune.batch_size=8", "finetune.num_views=1", "finetune.steps_per_epoch=2",
    "finetune.calibration_batches=1", "finetune.d0=8", "finetune.warmup=0", "finetune.grad_clip=null",
    "study.val_data=null", "study.eval_every=1", "finetune.lr=0.001",
]  # fmt: skip


def _spec(*sets: str) -> StudySpec:
    return load_space("digits_w4a4", [*SMALL, *sets])


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip


def _assets(store: Path, *sets: str, labelled: bool = False) -> Assets:
    teacher = teacher_of(_network(), (1, 8, 8))
    folder = store / "datasets" / ("1" * 32)
    images, labels = torch.randn(24, 1, 8, 8), torch.randint(10, (24,))
    save_dataset(folder, images, labels, 8, {"method": "noise", "address": "1" * 32})
    dataset: SyntheticDataset = load_dataset(folder)
    pixels = torch.randint(255, (20, 1, 8, 8), dtype=torch.uint8)
    half = LabelledImages(pixels, torch.arange(20) % 10) if labelled else None
    probes = make_probes(teacher, dataset)
    device = torch.device("cpu")
    return Assets(_spec(*sets), teacher, dataset, probes, half, half, store, device)


# --- how: each breaks a trial somewhere; `after` is called once the student is calibrated


def _no_change(student: fx.GraphModule) -> None: ...


def _nan_gradient(student: fx.GraphModule) -> None:
    """The loss is finite; the gradient of one weight is not."""
    weight = next(student.parameters())
    weight.register_hook(lambda grad: torch.full_like(grad, float("nan")))


def _poison(start: str, end: str, value: float) -> Callable[[fx.GraphModule], None]:
    def change(student: fx.GraphModule) -> None:
        name = next(n for n in student.state_dict() if n.startswith(start) and n.endswith(end))
        tensor = student.state_dict()[name]
        tensor.copy_(torch.full_like(tensor, value))

    return change


WAYS = {
    "loss": (["finetune.lr=1e30"], _no_change),
    "last update": (["finetune.lr=1e36", "finetune.epochs=1", "finetune.steps_per_epoch=1"], _no_change),
    "last update of learned steps": (
        ["quantizer=lsq", "finetune.lr=1e36", "finetune.epochs=1", "finetune.steps_per_epoch=1"],
        _no_change,
    ),
    "gradient": (["finetune.epochs=1", "finetune.steps_per_epoch=1"], _nan_gradient),
    "clipped gradient": (
        ["finetune.epochs=1", "finetune.steps_per_epoch=1", "finetune.grad_clip=1.0"], _nan_gradient,
    ),
    "range": ([], _poison("quantize_", "scale", float("nan"))),
    "infinite range": ([], _poison("quantize_", "scale", float("inf"))),
    "metric": (["finetune.epochs=0"], _poison("8.", "weight", 3e37)),
}  # fmt: skip
"""Where it shows → settings, and what is done to the calibrated student."""


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable], None]:
    """Have every student changed right behind its calibration."""

    def install(after: Callable[[fx.GraphModule], None]) -> None:
        calibrate = ready.calibrate

        def calibrate_and_break(student: fx.GraphModule, batches: Any) -> None:
            calibrate(student, batches)
            with torch.no_grad():
                after(student)

        monkeypatch.setattr(ready, "calibrate", calibrate_and_break)

    return install


@pytest.mark.parametrize("way", WAYS)
def test_a_trial_ends_with_epoch_and_parameters(way: str, broken: Any, tmp_path: Path) -> None:
    """Whatever broke, the error is the one that `diverged` is made of, with what the user can change."""
    sets, after = WAYS[way]
    broken(after)
    assets = _assets(tmp_path, *sets)
    with pytest.raises(NonFiniteError, match=r" at epoch [012].*\(lr=.*, lambda_ce=.*lambda_cam="):
        for row in Trial(assets, assets.spec.finetune, 0).run():
            json.dumps([row.metrics, row.losses], allow_nan=False)


def test_a_zero_width_range_is_no_divergence(tmp_path: Path) -> None:
    """A network whose activations are all zero calibrates, trains and is measured."""
    assets = _assets(tmp_path)
    with torch.no_grad():
        dict(assets.teacher.graph.named_parameters())["4.bias"].fill_(-1e6)
    *_, last = Trial(assets, assets.spec.finetune, 0).run()
    assert last.epoch == 2


def _worker(assets: Assets, kind: str, params: dict[str, Any]) -> TrialWorker:
    """A trial's Ray side without Ray: what `setup` would have made."""
    worker = object.__new__(TrialWorker)
    worker.context = {"metric": "agreement"}
    worker.folder = assets.store
    worker._assets = lambda: assets
    worker.take({
        "key": "trial-0000", "kind": kind, "params": params, "seed": 0, "epoch": 0, "state": None,
    })  # fmt: skip
    return worker


def _record(ledger: Ledger, key: str, kind: str, results: list[dict[str, Any]]) -> None:
    params = {"lr": 1e36} if kind != "ladder" else {"recipe": "synq_paper"}
    number = 0 if kind != "ladder" else None
    ledger.append(
        "proposed",
        key=key,
        kind=kind,
        number=number,
        params=params,
        seed=0,
        label="the paper's defaults",
    )
    callback = LedgerCallback(ledger, lambda key: None)
    trial = SimpleNamespace(config={"run": {"key": key, "epoch": 0}})
    callback.on_trial_start(0, [], trial)
    for result in results:
        callback.on_trial_result(0, [], trial, result)


@pytest.mark.parametrize("kind", ["search", "confirm"])
@pytest.mark.parametrize("way", ["last update", "gradient", "range"])
def test_the_ledger_says_diverged(way: str, kind: str, broken: Any, tmp_path: Path) -> None:
    """For search trials and repeats alike, without a number that is NaN anywhere in it."""
    sets, after = WAYS[way]
    broken(after)
    assets = _assets(tmp_path / "store", *sets)
    ledger = Ledger.create(tmp_path / "study", assets.spec)
    lr = assets.spec.finetune.lr
    _record(ledger, "trial-0000", kind, [_worker(assets, kind, {"lr": lr}).step()])
    run = Ledger.open(tmp_path / "study").state.runs["trial-0000"]
    assert (run.state, run.metrics) == ("diverged", {}) and f"lr={lr}" in run.error
    assert best_run(ledger.state) is None
    write_summary(ledger.state, ledger.folder)
    assert "NaN" not in (ledger.folder / "summary.json").read_text()
    if kind == "search":
        assert "(1 diverged)" in no_trial_line(ledger.state) and run.error in no_trial_line(
            ledger.state
        )


def test_a_repeat_that_breaks_on_the_reporting_half_is_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that chose nothing count as well."""
    assets = _assets(tmp_path, "finetune.epochs=1", labelled=True)
    worker = _worker(assets, "confirm", {})
    worker._finish = lambda: (_ for _ in ()).throw(NonFiniteError("logits are not finite."))
    assert worker.step()["state"] == "diverged"


def test_a_calibration_that_breaks_is_a_diverged_trial(broken: Any, tmp_path: Path) -> None:
    """Trial 0 of a study that only calibrates; the driver goes on to say that none completed."""
    broken(_poison("quantize_", "scale", float("nan")))
    assets = _assets(tmp_path / "store", "finetune.epochs=0")
    ledger = Ledger.create(tmp_path / "study", assets.spec)
    told: list[str] = []
    run_calibration(ledger, lambda: assets, ledger.folder, told.append)
    run = ledger.state.runs["trial-0000"]
    assert run.state == "diverged" and "at epoch 0" in run.error and told
    run_calibration(ledger, lambda: assets, ledger.folder, told.append)  # on resume: nothing


def _nan(images: Tensor) -> Tensor:
    return torch.full((len(images), 10), float("nan"))


def test_a_rung_that_breaks_does_not_take_the_ladder_along(broken: Any, tmp_path: Path) -> None:
    """It says diverged where the others have numbers; so does the paper's run."""
    broken(_poison("quantize_", "scale", float("nan")))
    assets = _assets(tmp_path / "store", labelled=True)
    ledger = Ledger.create(tmp_path / "study", assets.spec)
    _record(ledger, "ladder-paper", "ladder", [
        {"state": "diverged", "error": "kd loss is nan", "seconds": 1.0, "done": True}
    ])  # fmt: skip
    rungs = build_ladder(assets, ledger.state, _nan)
    assert [rung.diverged is not None for rung in rungs] == [False, True, True, True, True]
    assert [line.endswith("diverged") for line in ladder_lines(rungs)[1:]] == [False, *[True] * 4]
    ledger.record(Ladder(tuple(rungs)))  # NaN would be refused


def test_nan_logits_agree_with_nobody(tmp_path: Path) -> None:
    """The arg-max of NaN is class 0, which a teacher may say, too."""
    probes = AgreementSet(torch.zeros(4, 1, 8, 8).half(), torch.eye(10)[:1].repeat(4, 1))
    with pytest.raises(NonFiniteError, match="not finite on 4 of 4 images"):
        probes.compare(_nan)


def test_a_teacher_without_finite_logits_is_the_users_mistake(tmp_path: Path) -> None:
    """No trial can be diverged against it: the input is wrong."""
    assets = _assets(tmp_path)
    teacher = assets.teacher
    dict(teacher.graph.named_parameters())["8.bias"].data.fill_(float("nan"))
    with pytest.raises(InputError, match="teacher: `its logits are finite` must hold"):
        make_probes(teacher, assets.dataset)


def test_a_broken_student_is_not_exported(tmp_path: Path) -> None:
    """Nothing is written."""
    assets = _assets(tmp_path / "store", "finetune.epochs=0")
    trial = Trial(assets, assets.spec.finetune, 0)
    list(trial.run())
    next(trial.student.parameters()).data.fill_(float("nan"))
    images = torch.zeros(2, 1, 8, 8)
    with pytest.raises(NonFiniteError, match="of the student is not finite"):
        export_student(trial.student, assets.teacher, assets.spec, tmp_path / "out", images, images)
    assert not (tmp_path / "out").exists()


def test_a_model_file_with_nan_logits_has_no_accuracy() -> None:
    """`evaluate.py` names the file."""
    file = SimpleNamespace(path="m.onnx", num_classes=10, logits=_nan)
    file.preprocessing, file.metadata = SimpleNamespace(), {}
    import synq_tune.commands.evaluate as module

    data = LabelledImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.zeros(3).long())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_labelled", lambda *arguments: data)
        with pytest.raises(InputError, match="m.onnx: `the model's logits are finite`"):
            file_top1(file, "somewhere", 2)


def test_a_perturbation_that_breaks_makes_no_images(tmp_path: Path) -> None:
    """Synthesis that diverged, not a dataset with NaN in it."""
    assets = _assets(tmp_path)
    dict(assets.teacher.graph.named_parameters())["8.bias"].data.fill_(float("nan"))
    images = assets.dataset.train_images
    with pytest.raises(NonFiniteError, match="gradient of the perturbation is not finite"):
        perturb(assets.teacher, images, assets.spec.bits, "minmax", 0.01, 8)
