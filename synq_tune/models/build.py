"""Build the module of a teacher by name: our own, the user's own, or a library's behind a
prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from synq_tune import own_code
from synq_tune.config import Teacher
from synq_tune.errors import InputError, lookup
from synq_tune.models.kinds import refuse_unfit
from synq_tune.names import resolve

BUNDLED_WEIGHTS = {
    name: Path(__file__).parent / f"weights/{name}.safetensors"
    for name in ("digits_resnet26", "digits_vit")
}


def _own(name: str, config: Teacher, pretrained: bool) -> nn.Module:
    shape = {"in_channels": config.channels}
    if config.num_classes is not None:
        shape["num_classes"] = config.num_classes
    return resolve("model", name)(**{**shape, **config.kwargs})


def _timm(name: str, config: Teacher, pretrained: bool) -> nn.Module:
    import timm

    lookup("timm model", name.split(".")[0], timm.list_models())
    shape: dict[str, Any] = {"in_chans": config.channels}
    if config.num_classes is not None:
        shape["num_classes"] = config.num_classes
    return timm.create_model(name, pretrained=pretrained, **{**shape, **config.kwargs})


def _torchvision(name: str, config: Teacher, pretrained: bool) -> nn.Module:
    from torchvision import models

    lookup("torchvision model", name, models.list_models(module=models))
    shape = {} if config.num_classes is None else {"num_classes": config.num_classes}
    weights = "DEFAULT" if pretrained else None
    return models.get_model(name, weights=weights, **{**shape, **config.kwargs})


def _pytorchcv(name: str, config: Teacher, pretrained: bool) -> nn.Module:
    from pytorchcv.model_provider import _models, get_model

    lookup("pytorchcv model", name, _models)
    shape = {"in_channels": config.channels}
    if config.num_classes is not None:
        shape["num_classes"] = config.num_classes
    # Its own download reads a pickle with all that is in it: models/published.py fetches instead.
    return get_model(name, pretrained=False, **{**shape, **config.kwargs})


def _users_own(config: Teacher) -> nn.Module:
    """What the user's own function returns for `kwargs`; it runs because the user named it."""
    model = own_code.load(config.model)(**config.kwargs)
    refuse_unfit(model, config.model)
    return model


_LIBRARIES = {
    "timm": _timm,
    "torchvision": _torchvision,
    "pytorchcv": _pytorchcv,
}


def build_model(config: Teacher, pretrained: bool = False) -> nn.Module:
    """The network of a teacher, in evaluation mode, on the CPU.

    Args:
        config: names the model and its constructor's arguments.
        pretrained: let timm or torchvision load its own published weights.

    Raises:
        InputError: the library knows no such model or argument; the message says which.
    """
    prefix, colon, name = config.model.partition(":")
    try:
        if own_code.is_own_code(config.model):
            return _users_own(config).eval()
        if not colon:
            return _own(config.model, config, pretrained).eval()
        return _LIBRARIES[prefix](name, config, pretrained).eval()
    except (TypeError, ModuleNotFoundError) as error:
        raise InputError(
            f"`the model can be built` must hold, but got model={config.model!r}, "
            f"kwargs={config.kwargs}: {error}."
        ) from error
