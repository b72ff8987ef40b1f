"""What a CAM technique promises."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Technique = Callable[[Tensor, Tensor], Tensor]


def check_cam(function: Technique) -> None:
    """Check a technique `(activations, gradients) → channel weights`.

    Weights (N, C) of inputs (N, C, H, W); finite, also where all gradients or all activations are
    zero; an image's weights do not depend on the other images; the inputs stay unchanged.

    Raises:
        AssertionError: a promise is broken; the text says which.
    """
    generator = torch.Generator().manual_seed(0)
    activations = torch.rand(5, 3, 4, 6, generator=generator)
    gradients = torch.randn(5, 3, 4, 6, generator=generator)
    before = activations.clone(), gradients.clone()
    weights = _weights(function, activations, gradients)
    assert torch.equal(before[0], activations) and torch.equal(before[1], gradients), (
        "`activations and gradients stay unchanged` must hold, but the technique wrote to them."
    )
    _weights(function, activations, torch.zeros_like(gradients), "where all gradients are zero")
    _weights(function, torch.zeros_like(activations), gradients, "where all activations are zero")
    for i in range(len(activations)):
        alone = _weights(function, activations[i : i + 1], gradients[i : i + 1])
        assert torch.allclose(alone[0], weights[i], rtol=1e-4, atol=1e-6), (
            "`an image's weights do not depend on the other images` must hold, but image "
            f"{i} alone gives {alone[0].tolist()} and in its batch {weights[i].tolist()}."
        )


def _weights(
    function: Technique, activations: Tensor, gradients: Tensor, where: str = "on random maps"
) -> Tensor:
    weights = function(activations, gradients)
    assert isinstance(weights, Tensor) and weights.is_floating_point(), (
        f"`weights are a float tensor` must hold, but got {type(weights).__name__} {where}."
    )
    assert weights.shape == activations.shape[:2], (
        "`weights.shape == (N, C)` must hold, but got "
        f"{tuple(weights.shape)} for maps {tuple(activations.shape)}."
    )
    assert weights.isfinite().all(), (
        f"`weights are finite` must hold, but got {weights.flatten()[:4].tolist()} {where}."
    )
    return weights
