"""Memory of a trial's process, stage by stage, in a fresh process."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from synq_tune.bench.material import (
    SEED,
    Report,
    bench_student,
    bench_teacher,
    common,
    heading,
    noise_dataset,
)
from synq_tune.config import FineTune, StudySpec
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.errors import InputError
from synq_tune.evaluation import make_probes
from synq_tune.finetune.looks import draw_looks
from synq_tune.finetune.loop import finetune
from synq_tune.finetune.source import ViewSource
from synq_tune.finetune.views import Views, make_views
from synq_tune.memory import trial_bytes
from synq_tune.models.teacher import LoadedTeacher

_SMAPS = Path("/proc/self/smaps_rollup")
_STATUS = Path("/proc/self/status")
_MIB = 2**20


def bench_memory(spec: StudySpec, rounds: int, device: torch.device) -> Report:
    """Resident, proportional (PSS) and private memory after each stage, and the peak.

    The dataset has the space's size; the teacher's answers are those of one batch, repeated.

    Args:
        spec: its `finetune` as it stands is the trial.
        rounds: updates made.
        device: where they run.

    Raises:
        InputError: the system has no /proc, or the space does not fit its network.
    """
    if not _SMAPS.is_file():
        raise InputError(
            f"`{_SMAPS} is there` (Linux) must hold for this benchmark, but it is not."
        )
    threads = torch.get_num_threads()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        stages, estimate = pool.submit(_run, spec, rounds, device, threads).result()
    return _report(spec, stages, estimate, device)


def _run(
    spec: StudySpec, rounds: int, device: torch.device, threads: int
) -> tuple[dict[str, dict[str, int]], int]:
    """Memory after each stage of a short trial, and what a study expects a trial to take."""
    torch.set_num_threads(threads)
    stages = {"libraries": _now(device)}
    teacher = bench_teacher(spec, device)
    stages["teacher"] = _now(device)
    dataset = noise_dataset(teacher, spec.synthesis.num_images, spec.synthesis.num_holdout)
    probes = make_probes(teacher, dataset)
    stages["dataset"] = _now(device)
    config = spec.finetune.model_copy(update={"epochs": 1, "steps_per_epoch": rounds})
    views = _views(teacher, dataset, config)
    images, labels = dataset.train_images, dataset.train_labels
    source = ViewSource(images, labels, views, config, SEED, device)
    stages["views"] = _now(device)
    student = bench_student(spec, teacher, source)
    stages["calibrated"] = _now(device)
    list(finetune(student, source, config, teacher=teacher.graph))
    stages["trained"] = _now(device)
    probes.compare(student, device)
    stages["evaluated"] = _now(device)
    return stages, trial_bytes(spec, teacher)


def _views(teacher: LoadedTeacher, dataset: SyntheticDataset, config: FineTune) -> Views:
    """Views of the whole dataset with the answers about one batch, repeated."""
    count = len(dataset.train_images)
    few = noise_dataset(teacher, min(count, config.batch_size), 0)
    part = make_views(teacher, few, config.model_copy(update={"num_views": 1}))

    def repeated(values: Tensor) -> Tensor:
        times = -(-count // values.shape[1])
        shape = (config.num_views, times, *[1] * (values.dim() - 2))
        return values.repeat(shape)[:, :count].clone()

    maps = {name: repeated(values) for name, values in part.saliency.items()}
    looks = draw_looks(count, config, SEED)
    return Views(looks, repeated(part.logits), repeated(part.difficulty), maps)


def _now(device: torch.device) -> dict[str, int]:
    """Bytes of this process: resident, proportional, private, the peak so far; the GPU's peak."""
    rollup, status = _fields(_SMAPS), _fields(_STATUS)
    private = rollup["Private_Clean"] + rollup["Private_Dirty"]
    values = {"rss": rollup["Rss"], "pss": rollup["Pss"], "private": private}
    # Not ru_maxrss, which a new process inherits from the one that started it.
    values["peak_rss"] = status["VmHWM"]
    if device.type == "cuda":
        values["cuda_peak"] = torch.cuda.max_memory_allocated(device)
    return values


def _fields(path: Path) -> dict[str, int]:
    """Bytes by name, of the lines `name:  number kB`."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {r[0].rstrip(":"): 1024 * int(r[1]) for r in rows if len(r) == 3 and r[2] == "kB"}


def _report(
    spec: StudySpec, stages: dict[str, dict[str, int]], estimate: int, device: torch.device
) -> Report:
    batch_size, last = spec.finetune.batch_size, list(stages.values())[-1]
    numbers = common(spec, batch_size, device) | {
        "stages": stages, "peak_rss_bytes": last["peak_rss"], "pss_bytes": last["pss"],
        "estimated_bytes": estimate,
    }  # fmt: skip
    if "cuda_peak" in last:
        numbers["cuda_peak_bytes"] = last["cuda_peak"]
    lines = [*heading("Memory of a trial", spec, batch_size, device), ""]
    lines.append(f"{'MiB after':12}" + "".join(f"{key:>10}" for key in last))
    lines += [
        f"{name:12}" + "".join(f"{value / _MIB:10.0f}" for value in row.values())
        for name, row in stages.items()
    ]
    lines += ["", f"peak {last['peak_rss'] / _MIB:.0f} MiB, expected {estimate / _MIB:.0f} MiB"]
    return Report(lines, numbers)
