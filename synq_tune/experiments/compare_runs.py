"""One run of a variant: a trial with a given seed, measured after its last epoch."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import synq_tune
from synq_tune.config import FineTune, StudySpec
from synq_tune.data.labelled import LabelledImages
from synq_tune.data.labelled_cache import load_halves
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.errors import NonFiniteError
from synq_tune.experiments.noise import add_noise
from synq_tune.experiments.paper_table import Noise
from synq_tune.experiments.variants import settings_of
from synq_tune.finetune.divergence import diverges_at
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.seeds import trial_seed
from synq_tune.store import content_address
from synq_tune.synthesis import synthesizer
from synq_tune.synthesis.dataset import synthesize
from synq_tune.trial.assets import Assets, choose_device
from synq_tune.trial.evaluation import AgreementSet, asking_teacher, make_probes, top1
from synq_tune.trial.requirements import check_better_than_chance, check_cams, check_parts
from synq_tune.trial.trial import Trial
from synq_tune.views.source import stores_views
from synq_tune.views.teacher_cache import load_teacher_cache

_MEASURED = (
    "top1", "top1_report", "top1_choose", "agreement", "holdout_kl", "holdout_mse", "updates", "images_seen",
)  # fmt: skip
"""What a run that diverged lacks."""


@dataclass(frozen=True)
class Ground:
    """A teacher, and the labelled images in its input size."""

    teacher: LoadedTeacher
    choose: LabelledImages
    report: LabelledImages
    top1_report: float
    """Full precision on the reporting half, percent."""

    def about(self) -> dict[str, Any]:
        """What a row says of it."""
        teacher = self.teacher
        return {
            "teacher": {
                "model": teacher.config.model,
                "fingerprint": teacher.fingerprint,
                "top1_report": self.top1_report,
            },
            "labelled": {"choose": len(self.choose), "report": len(self.report)},
        }


class Bench:
    """Makes runs; teachers, labelled images and datasets are loaded once for all of them."""

    def __init__(
        self, store: Path, measure: Callable[[Trial], dict[str, Any]] | None = None
    ) -> None:
        """Nothing is loaded yet; datasets and views are kept in `store`.

        `measure` takes a finished trial and gives what its row says beside the accuracies.
        """
        self.store, self.device, self._more = store, choose_device(), measure
        self.noise: Noise | None = None
        """What is added to the images that the next runs train on; None = nothing."""
        # A process's first optimizer imports torch's compiler: seconds that are no run's own.
        torch.optim.SGD([torch.zeros(1)])
        self._grounds: dict[str, Ground] = {}
        self._halves: dict[str, tuple[LabelledImages, LabelledImages]] = {}
        # Only the last one: datasets of large images take gigabytes.
        self._material: tuple[str, SyntheticDataset, AgreementSet] | None = None

    def ground(self, spec: StudySpec) -> Ground:
        """The teacher and the images of a variant; `spec.study.val_data` is given.

        Raises:
            InputError: they do not fit each other.
        """
        key = content_address([spec.teacher.model_dump(mode="json"), spec.finetune.cam_layer])
        if key not in self._grounds:
            teacher = load_teacher(
                spec.teacher, self.device, spec.finetune.cam_layer, store=self.store
            )
            choose, report = self._load_halves(spec, teacher)
            with asking_teacher():
                accuracy = top1(teacher, report, teacher.preprocessing, self.device)
            check_better_than_chance(spec, teacher, accuracy)
            self._grounds[key] = Ground(teacher, choose, report, accuracy)
        return self._grounds[key]

    def _load_halves(
        self, spec: StudySpec, teacher: LoadedTeacher
    ) -> tuple[LabelledImages, LabelledImages]:
        shape = [teacher.preprocessing.as_dict(), teacher.num_classes]
        key = content_address([spec.study.val_data, *shape])
        if key not in self._halves:
            self._halves[key] = load_halves(spec, teacher)
        return self._halves[key]

    def check(self, spec: StudySpec) -> None:
        """Raise InputError unless the variant can run on its teacher; trains nothing."""
        teacher = self.ground(spec).teacher
        check_parts(spec, teacher)
        check_cams(spec, teacher)

    def settings_sha(self, spec: StudySpec) -> str:
        """Content address of everything that decides a run, but for its seed and our own code."""
        about = {
            "settings": settings_of(spec),
            "teacher": self.ground(spec).teacher.fingerprint,
            # Names the content of imported images, of which the settings know the folder only.
            "synthesis": synthesizer(spec.synthesis.method).address(spec.synthesis),
        }
        about |= {"noise": self.noise.model_dump(mode="json")} if self.noise else {}
        return content_address(about)

    def run(self, spec: StudySpec, seed: int) -> dict[str, Any]:
        """Make one run and measure it; one with a number that is not finite ends as `diverged`.

        Args:
            spec: the variant; its `finetune` as it stands is the trial.
            seed: the table's, from 0; the trial's follows from it alone.

        Returns:
            A row without `variant`, `seed`, `settings_sha` and `time`.
        """
        result: dict[str, Any] = {"dataset": None, **dict.fromkeys(_MEASURED)}
        started = time.perf_counter()
        try:
            assets = self._load_assets(spec)
            result["dataset"] = _about_dataset(assets.dataset)
            # Views are shared by later runs: the first does not pay for them.
            if stores_views(spec.finetune):
                load_teacher_cache(assets.teacher, assets.dataset, spec.finetune, self.store)
            started = time.perf_counter()
            result |= {**_measure(assets, seed, self._more), "state": "completed", "error": None}
        except NonFiniteError as error:
            result |= {"state": "diverged", "error": str(error)}
        seconds = round(time.perf_counter() - started, 3)
        return {
            "settings": settings_of(spec),
            **self.ground(spec).about(),
            **result,
            "epochs": spec.finetune.epochs,
            "seconds": seconds,
            "machine": machine(self.device),
            "versions": {"torch": torch.__version__, "synq_tune": synq_tune.__version__},
        }

    def _load_assets(self, spec: StudySpec) -> Assets:
        # No epoch but the last is reported, so none is measured.
        study = spec.study.model_copy(update={"eval_every": max(1, spec.finetune.epochs)})
        ground = self.ground(spec)
        dataset, probes = self._load_material(spec, ground.teacher)
        if self.noise is not None:
            dataset = add_noise(dataset, self.noise, ground.teacher.preprocessing)
        return Assets(
            spec.model_copy(update={"study": study}),
            ground.teacher,
            dataset,
            probes,
            ground.choose,
            ground.report,
            self.store,
            self.device,
        )

    def _load_material(
        self, spec: StudySpec, teacher: LoadedTeacher
    ) -> tuple[SyntheticDataset, AgreementSet]:
        settings = settings_of(spec)
        decisive = [settings[key] for key in ("synthesis", "bits", "quantizer")]
        key = content_address([teacher.fingerprint, *decisive])
        if self._material is None or self._material[0] != key:
            self._material = None
            dataset, _ = synthesize(teacher, spec, self.store)
            self._material = (key, dataset, make_probes(teacher, dataset))
        return self._material[1:]


def _measure(
    assets: Assets, seed: int, more: Callable[[Trial], dict[str, Any]] | None
) -> dict[str, Any]:
    """Train one trial; percentages after its last epoch, and what it cost."""
    trial = Trial(assets, assets.spec.finetune, trial_seed(seed, 0))
    *_, last = trial.run()  # a reconstruction's own row comes first
    metrics = last.metrics
    choose, report = assets.choose, assets.report
    with diverges_at(last.epoch, assets.spec.finetune):
        reported = top1(trial.student, report, assets.teacher.preprocessing, assets.device)
    total = metrics["top1"] * len(choose) + reported * len(report)
    updates, images_seen = cost(assets.spec.finetune, len(assets.dataset.train_images))
    return {
        "top1": total / (len(choose) + len(report)),
        "top1_report": reported,
        "top1_choose": metrics["top1"],
        "agreement": metrics["agreement"],
        "holdout_kl": metrics["holdout_kl"],
        "holdout_mse": metrics["holdout_mse"],
        "updates": updates,
        "images_seen": images_seen,
        **(more(trial) if more else {}),
    }


def cost(config: FineTune, num_images: int) -> tuple[int, int]:
    """Optimizer steps of a trial, and the images they see, each as often as it is seen."""
    per_pass = math.ceil(num_images / config.batch_size)
    steps = config.steps_per_epoch or per_pass
    passes, rest = divmod(steps, per_pass)
    images = passes * num_images + rest * config.batch_size
    return config.epochs * steps, config.epochs * images


def _about_dataset(dataset: SyntheticDataset) -> dict[str, Any]:
    return {
        "method": dataset.method,
        "address": dataset.address,
        "num_images": len(dataset.train_images),
        "num_holdout": dataset.num_holdout,
    }


def machine(device: torch.device) -> str:
    """The GPU's name, or the processor's with the cores it has and those torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {os.cpu_count()} cores ({torch.get_num_threads()} used)"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
