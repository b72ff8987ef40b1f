"""A blend of two tensors is `torch.where`, forwards and backwards."""

from __future__ import annotations

import torch

from synq_tune.quantization.mixed import mixed


def test_it_is_where() -> None:
    """Values are exact, also where the two are of very different sizes; so are the gradients."""
    generator = torch.Generator().manual_seed(0)
    sizes = 10.0 ** torch.randint(-30, 30, (2, 400), generator=generator)
    x, other = torch.randn(2, 400, generator=generator) * sizes
    mask = torch.rand(400, generator=generator) < 0.5
    grad = torch.randn(400, generator=generator)
    ends = []
    for function in (torch.where, mixed):
        leaves = [x.clone().requires_grad_(), other.clone().requires_grad_()]
        out = function(mask, *leaves)
        out.backward(grad)
        ends.append([out.detach(), *(leaf.grad for leaf in leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
