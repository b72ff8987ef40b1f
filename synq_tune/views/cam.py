"""Class activation maps of a batch on the graph of its one forward (SynQ's second idea, Eq. 5)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from synq_tune import own_code
from synq_tune.errors import InputError
from synq_tune.graph.taps import CAM_TAP, FINAL_MAP_TAP
from synq_tune.names import check, resolve
from synq_tune.quantization.student import activation_quantizers

_EPS = 1e-6


def cam_weights(activations: Tensor, gradients: Tensor) -> Tensor:
    """The class's row of the classifier: behind average pooling, d score / d map is row / (H·W)."""
    return gradients.sum((2, 3))


def gradcam_weights(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al., 2017): the mean gradient of each channel."""
    return gradients.mean((2, 3))


def gradcam_plus_plus_weights(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al., 2018), Eq. 19: positive gradients weighted per pixel."""
    squared = gradients.square()
    total = activations.sum((2, 3), keepdim=True)
    alpha = squared / (2 * squared + total * squared * gradients + _EPS)
    alpha = torch.where(gradients != 0, alpha, torch.zeros_like(alpha))
    return (gradients.clamp_min(0) * alpha).sum((2, 3))


def technique_weights(technique: str) -> Callable[[Tensor, Tensor], Tensor]:
    """(activations, gradients), each (N, C, H, W) → channel weights (N, C) of a technique.

    Raises:
        InputError: there is no such technique, or the user's function cannot be loaded.
    """
    if own_code.is_own_code(technique):
        return own_code.load(technique)
    return resolve("CAM technique", technique)


def check_technique(technique: str, shape: tuple[int, int, int, int] = (2, 3, 4, 5)) -> None:
    """Call the user's own technique once on random maps of `shape` (N, C, H, W).

    Raises:
        InputError: its weights are not a finite float tensor (N, C).
    """
    if not own_code.is_own_code(technique):
        return
    generator = torch.Generator().manual_seed(0)
    activations = torch.rand(shape, generator=generator)
    gradients = torch.randn(shape, generator=generator)
    weights = technique_weights(technique)(activations, gradients)
    if not isinstance(weights, Tensor) or tuple(weights.shape) != shape[:2]:
        found = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise InputError(
            f"finetune.cam {technique}: `it returns channel weights (N, C)` must hold, but got "
            f"{found} for activations and gradients of shape {shape}."
        )
    if not weights.is_floating_point() or not weights.isfinite().all():
        raise InputError(
            f"finetune.cam {technique}: `channel weights are finite floats` must hold, but got "
            f"{weights.dtype} {weights.flatten()[:4].tolist()}."
        )


def cam_tap(graph: fx.GraphModule, technique: str) -> str:
    """Name of the tap a technique transforms at.

    Raises:
        InputError: the technique is unknown, or the network has no such place.
    """
    check("CAM technique", technique)
    name = FINAL_MAP_TAP if technique == "cam" else CAM_TAP
    names = dict(graph.named_children())
    if name not in names or (technique == "cam" and not _ends_in_pool_and_linear(graph)):
        places = "a convolution with H·W > 1 or a transformer's LayerNorm"
        needs = "global pooling + linear" if technique == "cam" else places
        raise InputError(
            f"`the network has {needs}` must hold for cam={technique!r}, but it has none. "
            "Choose another technique or set lambda_cam=0."
        )
    return name


_HEAD_MODULES = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten, nn.Dropout, nn.Identity)


def _ends_in_pool_and_linear(graph: fx.GraphModule) -> bool:
    """Whether only pooling, reshaping and one linear layer follow the final map."""
    nodes = list(graph.graph.nodes)
    start = next((i for i, n in enumerate(nodes) if n.target == FINAL_MAP_TAP), None)
    if start is None:
        return False
    grids = activation_quantizers(graph)  # a student's, which change no shape
    called = [
        (n, graph.get_submodule(n.target))
        for n in nodes[start + 1 :]
        if n.op == "call_module" and n.target not in grids
    ]
    is_linear = [_is_linear(node, module) for node, module in called]
    return sum(is_linear) == 1 and all(
        linear or isinstance(module, _HEAD_MODULES)
        for linear, (_, module) in zip(is_linear, called, strict=True)
    )


def _is_linear(node: fx.Node, module: nn.Module) -> bool:
    """A linear layer, also as a convolution over what pooling left, as in pytorchcv's
    MobileNetV2."""
    is_one_pixel = (node.meta.get("shape") or ())[2:] == (1, 1)
    return isinstance(module, nn.Linear) or isinstance(module, nn.Conv2d) and is_one_pixel


def saliency_map(
    activations: Tensor, scores: Tensor, technique: str, floor: bool = False
) -> Tensor:
    """ReLU(Σ_k a_k A_k) of each image for its class.

    The channel weights a_k are constants (first order): the gradient of the map reaches the network
    through the activations alone. Only the head between the map and the scores is walked.

    Args:
        activations: (N, C, H, W), part of the graph of `scores`.
        scores: (N,), each image's logit of the class to explain.
        technique: one of the table's names, or the user's own function's.
        floor: floor channel weights at 1e-10 (released code).

    Returns:
        (N, H, W), non-negative, differentiable through `activations`.
    """
    (gradients,) = torch.autograd.grad(scores.sum(), activations, retain_graph=True)
    weights = technique_weights(technique)(activations.detach(), gradients)
    if floor:
        weights = weights.clamp_min(1e-10)
    return torch.einsum("nc,nchw->nhw", weights, activations).relu()


def normalize_maps(maps: Tensor) -> Tensor:
    """Per-image min-max of (N, H, W) to [0, 1]; the epsilon is relative to the maximum.

    A constant map becomes zeros: an absolute epsilon would blow rounding noise up instead.
    """
    low = maps.amin((1, 2), keepdim=True)
    high = maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low + _EPS * high + 1e-12)


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, h, w) → (N, H, W), bilinear."""
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
