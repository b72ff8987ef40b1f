"""Patch-similarity entropy (PSAQ-ViT, Li et al., 2022): how varied a transformer finds the patches.

In a real image some patches resemble each other and others do not; in noise all are alike. The
entropy of the similarities' density measures this, layer by layer, and synthesis maximises it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

from synq_tune.errors import InputError
from synq_tune.graph.attention import attention_outputs
from synq_tune.graph.nodes import module_of
from synq_tune.graph.operations import is_passthrough
from synq_tune.graph.tokens import BATCH, patch_grid, token_grid
from synq_tune.models.teacher import LoadedTeacher

BANDWIDTH, POINTS, FLOOR = 0.01, 10, 1e-4
_NOTHING = -60.0
"""Exponent below which a kernel does not count: e^-60 is 1e-26."""


@dataclass(frozen=True)
class Attention:
    """Where one attention's output is read."""

    projection: str
    """The Linear that reads all heads side by side, (…, T, heads · d)."""
    heads: int
    prefix: int
    """Tokens that are no patches: DeiT's class token, none in Swin's windows."""


def attentions(teacher: LoadedTeacher) -> list[Attention]:
    """Every attention of the teacher, in call order.

    Raises:
        InputError: it has none whose output a Linear reads.
    """
    graph = teacher.graph
    grid = patch_grid(graph) or teacher.preprocessing.shape[1:]
    found = []
    for node in attention_outputs(graph):
        reader = _reader(graph, node)
        if reader is not None and len(node.meta["shape"]) == 4:
            found.append(Attention(str(reader.target), node.meta["shape"][1], _prefix(node, grid)))
    if not found:
        raise InputError(
            "`the teacher has attention with a projection` must hold for synthesis.method=psaq, but "
            "got none. Use synthesis.method=synq for networks with BatchNorm."
        )
    return found


def _reader(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The Linear that alone reads a node, moves and a norm of all heads (BEiT-3's) passed over."""
    while len(node.users) == 1:
        node = next(iter(node.users))
        module = module_of(graph, node)
        if isinstance(module, nn.Linear):
            return node
        if not is_passthrough(graph, node) and not isinstance(module, nn.LayerNorm):
            return None
    return None


def _prefix(node: fx.Node, grid: tuple[int, int]) -> int:
    rows, _, tokens, _ = node.meta["shape"]
    found = (
        token_grid(tokens, grid) if rows == BATCH else None
    )  # more rows: windows, without prefix
    return found.prefix if found else 0


@contextlib.contextmanager
def head_means(model: nn.Module, places: list[Attention]) -> Iterator[dict[str, Tensor]]:
    """Collect, in each forward inside the block, the heads' mean of every attention's output.

    Yields:
        Projection → (N', T, d), N' windows or images; hooks are gone when the block ends.
    """
    values: dict[str, Tensor] = {}

    def look(place: Attention) -> object:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            heads = inputs[0].unflatten(-1, (place.heads, -1))
            values[place.projection] = heads.mean(-2)[:, place.prefix :]

        return hook

    with contextlib.ExitStack() as stack:
        for place in places:
            layer = model.get_submodule(place.projection)
            stack.callback(layer.register_forward_pre_hook(look(place)).remove)
        yield values


def similarity_entropy(patches: Tensor, images: int) -> Tensor:
    """Differential entropy of the cosine similarities of an image's patches, averaged over images.

    All windows of an image count as one sample. The density is estimated with Gaussians of width
    0.01 at ten points between the batch's smallest and largest similarity, which are constants.

    Args:
        patches: (images · windows, T, d).
        images: number of images.

    Returns:
        Scalar, in nats.
    """
    unit = F.normalize(patches.flatten(2), dim=2)
    similarities = (unit @ unit.mT).reshape(images, -1)
    low, high = torch.aminmax(similarities.detach())
    steps = torch.linspace(0, 1, POINTS, device=patches.device)
    points = low + (high - low) * steps
    density = KernelDensity.apply(similarities, points) + FLOOR
    return torch.trapezoid(-density * density.log(), points, dim=1).mean()


class KernelDensity(torch.autograd.Function):
    """Kernel density (N, K) of values (N, M) at points (K,).

    One point at a time, forward and backward: ten times the similarities of every layer would be
    the largest part of the memory.
    """

    @staticmethod
    def forward(ctx: object, values: Tensor, points: Tensor) -> Tensor:
        ctx.save_for_backward(values, points)
        kernels = [gaussian_kernel(values, point).mean(1) for point in points]
        return torch.stack(kernels, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        values, points = ctx.saved_tensors
        slope = torch.zeros_like(values)
        for number, point in enumerate(points):
            pull = gaussian_kernel(values, point).mul_(point - values)
            slope.addcmul_(pull, grad[:, number, None])
        return slope.div_(values.shape[1] * BANDWIDTH**2), None


def gaussian_kernel(values: Tensor, point: Tensor) -> Tensor:
    exponent = (values - point).square_().mul_(-0.5 / BANDWIDTH**2)
    # Far away a kernel is nothing beside FLOOR; as a denormal number it takes a CPU ten times as
    # long.
    return exponent.clamp_(min=_NOTHING).exp_().mul_(1 / (BANDWIDTH * math.sqrt(2 * math.pi)))
