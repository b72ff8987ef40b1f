"""Other people's networks: timm's and torchvision's CNNs with BatchNorm, timm's ViT, DeiT and
Swin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

_ATTENTION = {
    "EfficientAdditiveAttention", "HSMSSD", "LinearSelfAttention", "LiteMLA", "LowFormerBlock",
    "RelativePositionalMultiHeadAttention", "SHMA", "SHSA",
}  # fmt: skip
"""Layers that mix tokens without saying so by an attribute `num_heads`."""


@dataclass(frozen=True)
class ListedModel:
    """One network of a library."""

    model: str
    """As in teacher.model."""
    parameters: int
    kinds: frozenset[str]
    """Class names of its modules, of a transformer what it does with its tokens, too: networks of
    one family share them."""


def transformers() -> Iterator[ListedModel]:
    """timm's ViT, DeiT and Swin classifiers, in its own order; nothing is allocated."""
    import timm

    for module in ("vision_transformer", "deit", "swin_transformer"):
        for name in timm.list_models(module=module):
            modules = list(_skeleton(f"timm:{name}").modules())
            yield _stranger(f"timm:{name}", modules, _of_tokens(modules[0]))


def _of_tokens(root: nn.Module) -> frozenset[str]:
    """How a transformer pools, and which of its tokens are no patches."""
    names = ("global_pool", "num_prefix_tokens", "no_embed_class")
    return frozenset(f"{name}={getattr(root, name, None)}" for name in names)


def listed_cnns() -> Iterator[ListedModel]:
    """The CNNs with BatchNorm of both libraries, in their own order; nothing is allocated."""
    for model in model_names():
        stranger = look_at(model)
        if stranger is not None:
            yield stranger


def model_names() -> list[str]:
    """Every classifier timm and torchvision list, as in teacher.model."""
    import timm
    from torchvision import models

    own = [f"torchvision:{name}" for name in models.list_models(module=models)]
    return [*own, *(f"timm:{name}" for name in timm.list_models())]


def look_at(model: str) -> ListedModel | None:
    """The network if it is a CNN with BatchNorm, else None."""
    modules = list(_skeleton(model).modules())
    return _stranger(model, modules) if is_cnn_with_batchnorm(modules) else None


def _stranger(
    model: str, modules: list[nn.Module], more: frozenset[str] = frozenset()
) -> ListedModel:
    kinds = frozenset(type(module).__name__ for module in modules)
    return ListedModel(model, sum(p.numel() for p in modules[0].parameters()), kinds | more)


def is_cnn_with_batchnorm(modules: list[nn.Module]) -> bool:
    """Convolutions, running statistics, and no layer that mixes tokens by attention."""
    has_attention = any(hasattr(m, "num_heads") or type(m).__name__ in _ATTENTION for m in modules)
    has_convolution = any(isinstance(m, nn.Conv2d) for m in modules)
    norms = (m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return has_convolution and not has_attention and any(m.running_mean is not None for m in norms)


def _skeleton(model: str) -> nn.Module:
    library, _, name = model.partition(":")
    # torchvision's RegNets compute with their first weights, which a skeleton does not have.
    device = "cpu" if library == "torchvision" and name.startswith("regnet") else "meta"
    with torch.device(device):
        if library == "timm":
            import timm

            return timm.create_model(name)
        from torchvision import models

        return models.get_model(name)
