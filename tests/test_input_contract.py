"""Anybody's network with its own input, from a file of theirs to an exported model (design §5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from synq_tune.commands.evaluate import evaluate_file
from synq_tune.commands.finetune import run_one_trial
from synq_tune.config.load import build_spec, read_recipe
from synq_tune.export.runtime import load_model_file
from synq_tune.models.teacher import load_teacher

NET = """
from torch import nn

def small_net(width, channels, classes):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
    )
"""
CLASSES = ("2", "10", "1")
"""Folder names; as numbers their order is 1, 2, 10."""
INPUTS = {1: (8, 8), 4: (32, 32), 3: (96, 160)}
"""Channels → (height, width)."""
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def _write_classes(folder: Path, channels: int, size: tuple[int, int]) -> None:
    """Bright, medium and dark images with noise, twice as large as the input, one folder per class."""
    rng = np.random.default_rng(0)
    height, width = 2 * size[0], 2 * size[1]
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        level = {"1": 40, "2": 130, "10": 220}[name]
        for number in range(6):
            pixels = np.clip(rng.normal(level, 12, (height, width, channels)), 0, 255)
            pixels = (
                pixels.astype(np.uint8).squeeze(-1) if channels == 1 else pixels.astype(np.uint8)
            )
            Image.fromarray(pixels, _MODES[channels]).save(folder / name / f"{number}.png")


def _train(path: Path, tree: dict, channels: int, size: tuple[int, int]) -> Path:
    """Real weights: a few steps on brightness, nested as training scripts save them."""
    from synq_tune.config import Teacher
    from synq_tune.models.build import build_model

    torch.manual_seed(0)
    model = build_model(Teacher.model_validate(tree)).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        labels = torch.randint(3, (24,))
        levels = torch.tensor([40.0, 130.0, 220.0])[labels] / 255
        noise = torch.randn(24, channels, *size) * 0.05
        images = (levels.view(-1, 1, 1, 1) + noise - 0.4) / 0.3
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    file = path / "trained.safetensors"
    save_file({f"module.{k}": v for k, v in model.state_dict().items()}, file)
    return file


@pytest.mark.parametrize("channels", INPUTS)
@pytest.mark.long
def test_a_network_of_ones_own(channels: int, tmp_path: Path) -> None:
    """1, 3 and 4 channels, 96×160, own mean, std and crop; the exported file is as accurate."""
    size = INPUTS[channels]
    (tmp_path / "net.py").write_text(NET)
    _write_classes(tmp_path / "val", channels, size)
    teacher = {
        "model": f"{tmp_path / 'net.py'}:small_net",
        "kwargs": {"width": 8, "channels": channels, "classes": 3},
        "channels": channels, "input_size": list(size), "num_classes": 3, "crop_pct": 0.8,
        "mean": [0.4] * channels, "std": [0.3] * channels, "interpolation": "bicubic",
        "class_names": ["dark", "medium", "bright"],
    }  # fmt: skip
    teacher["weights"] = {"file": str(_train(tmp_path, teacher, channels, size))}
    spec = build_spec({
        **read_recipe("synq"), "name": "own", "teacher": teacher, "quantizer": "lsq",
        "bits": {"weights": 4, "activations": 4},
        "synthesis": {"num_images": 24, "num_holdout": 6, "batch_size": 30, "iterations": 20,
                      "center_iterations": 5},
        "finetune": {"epochs": 1, "batch_size": 12, "num_views": 1, "d0": 8},
        "study": {"val_data": str(tmp_path / "val")},
    }, "test")  # fmt: skip
    assert load_teacher(spec.teacher).preprocessing.shape == (channels, *size)
    rows = list(run_one_trial(spec, tmp_path / "store", tmp_path / "out"))
    assert rows[-1].metrics["top1"] > 60  # chance is 33
    model = tmp_path / "out" / "model.onnx"
    last = evaluate_file(str(model), str(tmp_path / "val"))[-1]
    assert last.endswith("on 18 images")
    assert float(last.split()[1]) > 60
    metadata = load_model_file(model).metadata
    assert metadata["input_size"] == list(size) and metadata["channels"] == channels
    assert metadata["class_names"] == ["dark", "medium", "bright"]
    assert metadata["crop_pct"] == 0.8
