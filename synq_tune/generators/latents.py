"""How classes enter the latents of an image, and how those of several classes are mixed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synq_tune.generators.draws import Draw


class Latents(nn.Module):
    """A draw → one latent (N, D) for each image."""

    def __init__(
        self, conditioning: str, num_classes: int, latent: int, rows: Tensor | None = None
    ) -> None:
        """Start from vectors of N(0, 1), or from `rows` (K, D); `none` has no vectors."""
        super().__init__()
        self.conditioning = conditioning
        if conditioning != "none":
            self.vectors = nn.Embedding(num_classes, latent)
            if rows is not None:
                self.vectors.weight.data.copy_(rows)

    def forward(self, draw: Draw) -> Tensor:
        """(N, D): the latents of an image's classes by their shares."""
        z = draw.latents
        if self.conditioning == "multiply":
            z = self.vectors(draw.classes) * z
        elif self.conditioning == "add_norm":
            # Each vector by itself. Qimera's code standardises those of mixed images over the whole
            # batch, so that one image depends on the others'.
            z = F.layer_norm(self.vectors(draw.classes) + z, z.shape[-1:])
        return mixed(z, draw.shares)


class Norm(nn.Module):
    """BatchNorm over the batch at hand, with factors and shifts of each class where asked."""

    def __init__(self, channels: int, eps: float, num_classes: int | None) -> None:
        """Start from factors 1 and shifts 0; `num_classes` None: the same for all classes."""
        super().__init__()
        self.eps, self.is_conditional = eps, num_classes is not None
        rows = num_classes or 1
        self.factors = nn.Embedding.from_pretrained(torch.ones(rows, channels), freeze=False)
        self.shifts = nn.Embedding.from_pretrained(torch.zeros(rows, channels), freeze=False)

    def forward(self, x: Tensor, draw: Draw) -> Tensor:
        """(N, C, H, W) → the same shape."""
        tables = self.factors, self.shifts
        if not self.is_conditional:
            one = (table.weight[0] for table in tables)
            return F.batch_norm(x, None, None, *one, training=True, eps=self.eps)
        # By the classes' shares: Qimera's code divides this sum by their number once more.
        factor, shift = (mixed(t(draw.classes), draw.shares)[..., None, None] for t in tables)
        return F.batch_norm(x, None, None, training=True, eps=self.eps) * factor + shift


def mixed(values: Tensor, shares: Tensor) -> Tensor:
    """(N, M, D) by shares (N, M) → (N, D)."""
    return (values * shares[..., None]).sum(1)
