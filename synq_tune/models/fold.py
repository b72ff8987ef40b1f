"""Turn what training adds to layers into plain layers with the same numbers, in place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from synq_tune.errors import InputError
from synq_tune.models.kinds import place

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
_FROZEN = {"weight", "bias", "running_mean", "running_var"}


def fold(model: nn.Module) -> list[str]:
    """Fold masks and parametrizations into weights; FrozenBatchNorm becomes BatchNorm.

    Returns:
        One line for each kind of change.

    Raises:
        InputError: a parametrization cannot be removed; names its place.
    """
    counts: dict[str, int] = {}
    for path, module in list(model.named_modules()):
        done = [*_fold_hooks(module), *_fold_parametrizations(path, module), *_thaw(module)]
        _own_weights(module)
        for what in done:
            counts[what] = counts.get(what, 0) + 1
    return [f"{what} ({count} of them)" for what, count in counts.items()]


def _fold_hooks(module: nn.Module) -> list[str]:
    """Pruning, and the old weight_norm and spectral_norm, work by a hook in front of the layer."""
    folded = []
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, BasePruningMethod):
            prune.remove(module, hook._tensor_name)
            folded.append("pruning masks folded")
        elif isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
            folded.append("weight norms folded")
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)
            folded.append("spectral norms folded")
    return folded


def _fold_parametrizations(path: str, module: nn.Module) -> list[str]:
    if not parametrize.is_parametrized(module):
        return []
    names = list(module.parametrizations)
    for name in names:
        try:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"`the parametrization of {name} can be folded` must hold at {place(path)}, but "
                f"got: {str(error).splitlines()[0]} Remove it before the network is returned."
            ) from error
    return ["parametrizations folded"] * len(names)


def _own_weights(module: nn.Module) -> None:
    """A weight that a hook computed and left as a plain tensor becomes the layer's parameter."""
    if not isinstance(module, _LAYERS):
        return
    for name in ("weight", "bias"):
        value = vars(module).get(name)
        if isinstance(value, Tensor):
            delattr(module, name)
            module.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))


def _is_frozen(module: nn.Module) -> bool:
    """By name and by what it computes: many libraries have their own copy of it."""
    if not type(module).__name__.startswith("FrozenBatchNorm") or not hasattr(module, "eps"):
        return False
    return set(dict(module.named_buffers(recurse=False))) == _FROZEN


def _thaw(module: nn.Module) -> list[str]:
    """Make it the BatchNorm2d it froze, in place: others may hold it, too."""
    if isinstance(module, nn.SyncBatchNorm):
        return ["SyncBatchNorm became BatchNorm"]  # when it is traced, which tells its rank
    if not _is_frozen(module):
        return []
    has_activation = any(True for _ in module.children())
    if has_activation:
        from timm.layers import BatchNormAct2d as Plain
    else:
        Plain = nn.BatchNorm2d
    for name in ("weight", "bias"):
        value = module._buffers.pop(name)
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    module.register_buffer("num_batches_tracked", torch.tensor(0))
    module.__class__ = Plain
    module.num_features, module.momentum = len(module.weight), 0.1
    module.affine = module.track_running_stats = True
    return ["FrozenBatchNorm became BatchNorm"]


class Normalize(nn.Module):
    """(images - mean) / std, with a mean and a std for each channel, (C, 1, 1)."""

    mean: Tensor
    std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        return (images - self.mean) / self.std


def _is_normalize(kind: type) -> bool:
    """By name: importing torchvision takes a second, and most networks do without."""
    return kind.__name__ == "Normalize" and kind.__module__.startswith("torchvision.transforms")


def open_normalize(model: nn.Module) -> list[str]:
    """Make torchvision's Normalize, which tracing passes over, an operation, in place.

    Returns:
        Place and statistics of each.
    """
    opened = []
    for path, module in model.named_modules():
        if not _is_normalize(type(module)):
            continue
        values = {
            k: torch.as_tensor(vars(module).pop(k)).flatten().float() for k in ("mean", "std")
        }
        module.__class__ = Normalize
        for name, value in values.items():
            module.register_buffer(name, value.view(-1, 1, 1))
        shown = ", ".join(f"{k} {[round(v, 4) for v in t.tolist()]}" for k, t in values.items())
        opened.append(f"{place(path)} normalises the images itself ({shown})")
    return opened
