"""What the teacher says about every view of the dataset: asked once, shared by every trial.

A view of an image is a crop box, a flip and a blend with another image. Its pixels are remade on
the device whenever they are needed; stored are these, the teacher's logits, and the saliency map of
each CAM technique.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from synq_tune import own_code
from synq_tune.config import FineTune, ViewSettings
from synq_tune.data.synthetic import SyntheticDataset
from synq_tune.errors import InputError, stage
from synq_tune.graph.taps import map_cells, record
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.names import known
from synq_tune.seeds import address_seed
from synq_tune.store import content_address, once
from synq_tune.views.cam import cam_tap, saliency_map
from synq_tune.views.difficulty import difficulty
from synq_tune.views.transforms import ViewTransforms, base_images, draw_transforms


@dataclass(frozen=True)
class TeacherCache:
    """V views of each of N images."""

    transforms: ViewTransforms
    logits: Tensor
    """(V, N, K) float16, the teacher's."""
    difficulty: Tensor
    """(V, N) in [0, 1], of the image's label."""
    saliency: dict[str, Tensor]
    """Technique → (V, N, h, w), the teacher's maps before any normalisation."""

    def to(self, device: torch.device | str) -> TeacherCache:
        """The same views on another device."""
        maps = {name: m.to(device) for name, m in self.saliency.items()}
        rest = (self.transforms, self.logits, self.difficulty)
        return TeacherCache(*(part.to(device) for part in rest), maps)


def load_teacher_cache(
    teacher: LoadedTeacher, dataset: SyntheticDataset, config: FineTune, store: Path
) -> TeacherCache:
    """The views of the dataset's training part, made by the first trial that needs them."""
    about = {
        "dataset": dataset.address,
        "sha256": dataset.sha256,
        "teacher": teacher.fingerprint,
        "settings": config.part(ViewSettings).model_dump(mode="json"),
        "format": 3,
    }
    own = _own_technique(config)
    if own:
        about["technique"] = own_code.identity(own)
    path = store / "views" / f"{content_address(about)}.safetensors"
    with stage("making the views", f"teacher.model={teacher.config.model}, {path}"):
        once(path, lambda temporary: _save(make_views(teacher, dataset, config), temporary))
        views = _load(path)
    # In the file the user's technique has its label: the same code in another folder finds it.
    return replace(views, saliency={own: views.saliency[own_code.label(own)]}) if own else views


def _own_technique(config: FineTune) -> str | None:
    """The user's own technique, if that is what the trial aligns; it has views of its own."""
    is_asked = config.lambda_cam > 0 and own_code.is_own_code(config.cam)
    return config.cam if is_asked else None


def make_views(teacher: LoadedTeacher, dataset: SyntheticDataset, config: FineTune) -> TeacherCache:
    """Draw the views of the training part and ask the teacher about each of them once."""
    shown = config.part(ViewSettings)
    device = next(teacher.graph.parameters()).device
    images = base_images(dataset.train_images, shown).to(device)
    transforms = draw_transforms(len(images), shown, seed=address_seed(dataset.address))
    techniques = _techniques(teacher, config)
    rows = [
        _ask(teacher, images, dataset.train_labels, transforms.to(device), view, shown, techniques)
        for view in range(shown.num_views)
    ]
    logits = torch.stack([row[0] for row in rows])
    labels = dataset.train_labels
    hard = torch.stack([difficulty(view, labels) for view in logits])
    maps = {t: torch.stack([row[1][t] for row in rows]) for t in techniques}
    return TeacherCache(transforms, logits.half(), hard, maps)


def _techniques(teacher: LoadedTeacher, config: FineTune) -> list[str]:
    """Whose maps are stored: all of ours, as trials differ in them, or the user's own."""
    own = _own_technique(config)
    return [own] if own else _possible_techniques(teacher)


def _possible_techniques(teacher: LoadedTeacher) -> list[str]:
    """The CAM techniques this network has a place for."""

    def has_place(technique: str) -> bool:
        try:
            cam_tap(teacher.graph, technique)
        except InputError:
            return False
        return True

    return [technique for technique in known("CAM technique") if has_place(technique)]


def bytes_per_view(teacher: LoadedTeacher, config: FineTune) -> int:
    """What one view of one image takes in the store: its transforms, logits, difficulty, saliency
    maps."""
    transforms, difficulty_ = (
        4 * 4 + 1 + 8 + 4 + 4 * 4,
        4,
    )  # boxes, flips, partners, weights, patches
    techniques = _techniques(teacher, config)
    maps = sum(map_cells(teacher.graph, cam_tap(teacher.graph, t)) for t in techniques)
    return transforms + 2 * teacher.num_classes + difficulty_ + 4 * maps


def _ask(
    teacher: LoadedTeacher,
    images: Tensor,
    labels: Tensor,
    transforms: ViewTransforms,
    view: int,
    config: ViewSettings,
    techniques: list[str],
    batch_size: int = 256,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (N, K) and maps by technique (N, h, w) of one view of every image, on the CPU."""
    logits: list[Tensor] = []
    maps: dict[str, list[Tensor]] = {technique: [] for technique in techniques}
    for part in torch.arange(len(images)).split(batch_size):
        pixels = transforms.pixels(images, view, part.to(images.device), config)
        batch_logits, batch_maps = explain(
            teacher, pixels, labels[part].to(images.device), techniques, config
        )
        logits.append(batch_logits.cpu())
        for technique, values in batch_maps.items():
            maps[technique].append(values.cpu())
    return torch.cat(logits), {t: torch.cat(parts) for t, parts in maps.items()}


def explain(
    teacher: LoadedTeacher,
    pixels: Tensor,
    labels: Tensor,
    techniques: list[str],
    config: ViewSettings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The teacher's logits (N, K) and saliency maps by technique (N, h, w), from one forward."""
    taps = {technique: cam_tap(teacher.graph, technique) for technique in techniques}
    with record(teacher.graph, sorted(set(taps.values()))) as values:
        logits = teacher(pixels)
    classes = logits.argmax(1) if config.cam_class == "argmax" else labels
    scores = logits.gather(1, classes[:, None])[:, 0]
    maps = {
        technique: saliency_map(values[tap], scores, technique, config.cam_floor).detach()
        for technique, tap in taps.items()
    }
    return logits.detach(), maps


def _save(views: TeacherCache, path: Path) -> None:
    tensors = {**vars(views.transforms), "logits": views.logits, "difficulty": views.difficulty}
    tensors |= {f"saliency.{own_code.label(t)}": maps for t, maps in views.saliency.items()}
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def _load(path: Path) -> TeacherCache:
    tensors = load_file(path)
    maps = {k.removeprefix("saliency."): v for k, v in tensors.items() if k.startswith("saliency.")}
    transforms = ViewTransforms(
        **{field.name: tensors[field.name] for field in fields(ViewTransforms)}
    )
    return TeacherCache(transforms, tensors["logits"], tensors["difficulty"], maps)
