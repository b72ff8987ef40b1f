"""How much memory and disk a study's parts take, computed from shapes."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import fx

from synq_tune.config import StudySpec
from synq_tune.graph.attention import attention_outputs
from synq_tune.graph.tokens import BATCH
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.names import resolve
from synq_tune.synthesis import synthesizer
from synq_tune.views.source import stores_views
from synq_tune.views.teacher_cache import bytes_per_view

_BYTES = {"float16": 2, "float32": 4}
_LIBRARIES = 600 * 2**20
"""torch, Ray and their threads in one process."""

# What autograd keeps over the values themselves, measured on ResNet-18 at 224 px: 1.16 in
# synthesis; in fine-tuning 1.15 with minmax, 1.95 with lsq, 2.3 with deploy.
_SYNTHESIS_COPIES = 1.25
_TRIAL_COPIES = 2.5
_CACHES = 4
"""Of a reconstruction: what a part reads, of teacher and student, what the teacher's gives, and
what is being made."""


def dataset_bytes(spec: StudySpec, teacher: LoadedTeacher) -> int:
    """The synthetic images in half precision."""
    channels, height, width = teacher.preprocessing.shape
    images = spec.synthesis.num_images + spec.synthesis.num_holdout
    return images * channels * height * width * _BYTES["float16"]


def views_bytes(spec: StudySpec, teacher: LoadedTeacher) -> int:
    """The stored views of one D0; none where the source makes its images itself."""
    if not stores_views(spec.finetune):
        return 0
    rows = spec.synthesis.num_images * spec.finetune.num_views
    return rows * bytes_per_view(teacher, spec.finetune)


def source_bytes(spec: StudySpec, teacher: LoadedTeacher) -> int:
    """What a source that trains along takes in each trial: its weights, gradients and moments."""
    count = getattr(resolve("source", spec.finetune.source), "training_bytes", None)
    return 0 if count is None else count(teacher, spec.finetune)


def model_bytes(teacher: LoadedTeacher) -> int:
    """The network's parameters in float32."""
    return sum(p.numel() for p in teacher.graph.parameters()) * _BYTES["float32"]


def activation_bytes(teacher: LoadedTeacher, batch_size: int) -> int:
    """Every value a forward of one batch makes, in float32; a fused attention as if written out."""
    nodes = [node for node in teacher.graph.graph.nodes if node.op != "get_attr"]
    values = sum(math.prod(shape) for node in nodes if (shape := node.meta.get("shape")))
    values += sum(_written_out(node) for node in attention_outputs(teacher.graph))
    return values // BATCH * batch_size * _BYTES["float32"]


def _written_out(node: fx.Node) -> int:
    """Scores and softmax, (N, heads, T, T) each, that a fused attention keeps to itself."""
    is_fused = node.target is F.scaled_dot_product_attention
    *batch, tokens, _ = node.meta["shape"]
    return 2 * math.prod(batch) * tokens**2 if is_fused else 0


def trial_bytes(spec: StudySpec, teacher: LoadedTeacher) -> int:
    """One trial: libraries, dataset, one set of views, four copies of the weights, activations, and
    what a reconstruction or a source that trains along keeps."""
    data = dataset_bytes(spec, teacher) + views_bytes(spec, teacher)
    weights = 4 * model_bytes(teacher)
    values = activation_bytes(teacher, spec.finetune.batch_size)
    kept = reconstruction_bytes(spec, teacher)
    trained = int(_TRIAL_COPIES * values)
    return _LIBRARIES + data + weights + max(kept, trained) + source_bytes(spec, teacher)


def reconstruction_bytes(spec: StudySpec, teacher: LoadedTeacher) -> int:
    """What parts read and give for all images, in memory, at most; 0 without a reconstruction.

    Four tensors are alive at once; each is as large as the network's largest value at most.
    """
    config = spec.reconstruct
    if not config.is_on:
        return 0
    shapes = (node.meta.get("shape") for node in teacher.graph.graph.nodes)
    largest = max(math.prod(shape) for shape in shapes if shape) // BATCH
    images = config.num_images or spec.synthesis.num_images
    kept = _CACHES * largest * images * _BYTES["float32"]
    return int(min(config.memory_budget * 1e9, kept))


def synthesis_bytes(spec: StudySpec, teacher: LoadedTeacher) -> int:
    """Making the dataset: libraries, weights, the finished images, one batch's values and canvas."""
    values = activation_bytes(teacher, spec.synthesis.batch_size)
    data = model_bytes(teacher) + dataset_bytes(spec, teacher)
    canvas = synthesizer(spec.synthesis.method).canvas_bytes_of(teacher, spec.synthesis)
    return _LIBRARIES + data + canvas + int(_SYNTHESIS_COPIES * values)


def study_disk_bytes(spec: StudySpec, teacher: LoadedTeacher) -> int:
    """The dataset, views of every D0, kept checkpoints, states of running trials, exported files.

    A state is the student with Adam's two moments, and a source that trains along with its own;
    `max_concurrent: auto` counts as two trials.
    """
    domain = spec.search.get("d0")
    d0s = len(domain.values) if domain else 1
    concurrent = 2 if spec.study.max_concurrent == "auto" else spec.study.max_concurrent
    checkpoints = (spec.study.keep_checkpoints + 2 + 3 * concurrent) * model_bytes(teacher)
    checkpoints += concurrent * source_bytes(spec, teacher)
    return dataset_bytes(spec, teacher) + d0s * views_bytes(spec, teacher) + checkpoints


def memory_line(spec: StudySpec, teacher: LoadedTeacher) -> str:
    """What synthesis and one trial take, in GiB."""
    synthesis, trial = (f(spec, teacher) / 2**30 for f in (synthesis_bytes, trial_bytes))
    along = source_bytes(spec, teacher) / 2**30
    source = f", {along:.1f} GiB of it its generator" if along else ""
    return (
        f"memory    synthesis about {synthesis:.1f} GiB at batch {spec.synthesis.batch_size}, a "
        f"trial about {trial:.1f} GiB at batch {spec.finetune.batch_size}{source}"
    )
