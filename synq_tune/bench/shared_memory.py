"""What a second trial on a machine adds to the memory of the first: two processes, one store."""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synq_tune.bench.material import SEED, bench_teacher, noise_dataset
from synq_tune.bench.process_memory import pages
from synq_tune.config import StudySpec
from synq_tune.data.images import LabelledImages
from synq_tune.data.labelled_cache import share_halves, shared_halves
from synq_tune.data.synthetic import load_dataset, save_dataset
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.trial.evaluation import load_agreement_set
from synq_tune.views.teacher_cache import load_teacher_cache

_WORKERS = 2
_barrier: Barrier


def shared_memory(spec: StudySpec) -> dict[str, int]:
    """Bytes of what all trials read, and what reading it costs each of two processes.

    Dataset, views (one of each image), probes and `eval_images` labelled images per half, as noise
    in a temporary store; every byte of them is read by both processes.

    Returns:
        `shared_bytes`, the sum of the files; `private_bytes_per_worker` and `pss_bytes_per_worker`,
        the mean growth of a worker's private and proportional memory.
    """
    config = spec.finetune.model_copy(update={"num_views": 1})
    spec = spec.model_copy(update={"finetune": config})
    torch_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="synq_tune_bench_") as folder:
        store = Path(folder)
        address = _fill(spec, store)
        grown = _read_by_all(spec, store, address, torch_threads)
        size = sum(file.stat().st_size for file in store.rglob("*.safetensors"))
    means = {key: sum(row[key] for row in grown) // len(grown) for key in grown[0]}
    return {"shared_bytes": size, **{f"{key}_bytes_per_worker": v for key, v in means.items()}}


def _fill(spec: StudySpec, store: Path) -> str:
    """Write noise of the study's sizes; returns the address of the labelled images."""
    teacher = _teacher(spec)
    dataset = noise_dataset(teacher, spec.synthesis.num_images, spec.synthesis.num_holdout)
    about = {"method": "noise", "address": "0" * 32}
    save_dataset(store / "dataset", dataset.images, dataset.labels, dataset.num_holdout, about)
    halves = [_noise_half(spec, teacher) for _ in range(2)]
    _read(spec, store, teacher)
    return share_halves((halves[0], halves[1]), store)


def _teacher(spec: StudySpec) -> LoadedTeacher:
    return bench_teacher(spec, torch.device("cpu"))


def _noise_half(spec: StudySpec, teacher: LoadedTeacher) -> LabelledImages:
    shape = (spec.study.eval_images, *teacher.preprocessing.shape)
    generator = torch.Generator().manual_seed(SEED)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return LabelledImages(images, torch.zeros(len(images), dtype=torch.int64))


def _read(spec: StudySpec, store: Path, teacher: LoadedTeacher) -> list[Tensor]:
    """What a trial maps of a study, views and probes made if they are not there."""
    dataset = load_dataset(store / "dataset")
    views = load_teacher_cache(teacher, dataset, spec.finetune, store)
    probes = load_agreement_set(teacher, dataset, store)
    maps = list(views.saliency.values())
    looks = list(vars(views.transforms).values())
    return [dataset.images, views.logits, views.difficulty, *maps, *looks, *vars(probes).values()]


def _read_by_all(spec: StudySpec, store: Path, address: str, threads: int) -> list[dict[str, Any]]:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(_WORKERS)
    with ProcessPoolExecutor(_WORKERS, spawn, _remember, (barrier,)) as pool:
        jobs = [pool.submit(_worker, spec, store, address, threads) for _ in range(_WORKERS)]
        return [job.result() for job in jobs]


def _remember(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _worker(spec: StudySpec, store: Path, address: str, threads: int) -> dict[str, int]:
    """Growth of this process while it reads everything; both hold it when they look."""
    torch.set_num_threads(threads)
    teacher = _teacher(spec)
    before = pages()
    held = _read(spec, store, teacher)
    halves = shared_halves(address, store)
    assert halves is not None
    held += [tensor for half in halves for tensor in (half.images, half.labels)]
    for tensor in held:
        for part in tensor.flatten().split(2**20):
            part.max()
    _barrier.wait()
    after = pages()
    _barrier.wait()
    return {key: after[key] - before[key] for key in after}
