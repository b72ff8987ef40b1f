"""Train a bundled digits teacher on its half of the digits, minutes on one core.

    python scripts/train_digits_teacher.py
    python scripts/train_digits_teacher.py --model digits_vit --epochs 300
    python scripts/train_digits_teacher.py --output /tmp/teacher.safetensors --epochs 20
    python scripts/train_digits_teacher.py --output /tmp/other.safetensors --model cifar_resnet20

The other half is never seen here; its accuracy is printed at the end.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from synq_tune.config import Teacher
from synq_tune.data.digits import digits_half
from synq_tune.models.build import BUNDLED_WEIGHTS, build_model
from synq_tune.models.preprocessing import resolve_preprocessing
from synq_tune.store import atomic_path

MODEL = "digits_resnet26"


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate by up to 10°, shift by up to 0.75 pixel, scale by up to 10 %, (N, C, H, W)."""
    count, size = len(images), images.shape[-1]
    angle, dx, dy, zoom = torch.rand(4, count, generator=generator) * 2 - 1
    angle, scale = angle * math.radians(10), 1 + 0.1 * zoom
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = torch.stack((cos, -sin, dx * 1.5 / size, sin, cos, dy * 1.5 / size), dim=1)
    grid = F.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """SGD for networks with BatchNorm; AdamW for transformers, which SGD hardly trains."""
    if any(isinstance(module, nn.LayerNorm) for module in model.modules()):
        return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    return torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
    )


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, seed: int) -> None:
    """Fit `model` to normalised images (N, C, H, W) with a cosine to zero."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = optimizer_of(model)
    steps = epochs * -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in tqdm(range(epochs), desc="epochs", file=sys.stderr):
        for part in torch.randperm(len(images), generator=generator).split(64):
            loss = F.cross_entropy(model(jitter(images[part], generator)), labels[part])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Accuracy in percent."""
    return 100 * (model(images).argmax(1) == labels).float().mean().item()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default=MODEL, help="as teacher.model in a space")
    parser.add_argument("--output", type=Path, help="needed with --model")
    args = parser.parse_args()
    if args.output is None and args.model not in BUNDLED_WEIGHTS:
        parser.error(f"--output is needed with --model {args.model}")
    return args


def main() -> None:
    args = parse_args()
    torch.manual_seed(args.seed)
    own = (
        {}
        if args.model in BUNDLED_WEIGHTS
        else {"input_size": 8, "mean": (0.3049,), "std": (0.3759,)}
    )
    config = Teacher(model=args.model, channels=1, num_classes=10, **own)
    model = build_model(config)
    preprocessing = resolve_preprocessing(config, model)
    halves = {name: digits_half(name) for name in ("train", "test")}
    inputs = {name: preprocessing.normalize(half.images) for name, half in halves.items()}
    train(model, inputs["train"], halves["train"].labels, args.epochs, args.seed)
    for name, half in halves.items():
        print(f"{name}: top1 {top1(model, inputs[name], half.labels):.2f} % on {len(half)} images")
    weights = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    output = args.output or BUNDLED_WEIGHTS[args.model]
    with atomic_path(output) as temporary:
        save_file(weights, temporary)
    print(output)


if __name__ == "__main__":
    main()
