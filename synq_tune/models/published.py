"""The weights libraries publish: where they lie, and one line where they cannot be had."""

from __future__ import annotations

import os
from collections.abc import Callable
from urllib.error import URLError

from torch import nn

from synq_tune.config import Teacher, Weights
from synq_tune.errors import InputError
from synq_tune.models.build import build_model
from synq_tune.models.download import is_reachable
from synq_tune.models.fetch_first import TIMM_FILES


def pretrained(config: Teacher) -> nn.Module:
    """A timm or torchvision network with its published weights, which the library downloads.

    Raises:
        InputError: the library publishes none, they do not fit (another number of classes), or
            they cannot be fetched; says from where.
    """
    prefix, _, name = config.model.partition(":")
    origin = "its library"
    try:
        build_model(config)  # a wrong name or argument is refused without any connection
        origin = PUBLISHERS[prefix](name)
        return build_model(config, pretrained=True)
    except (URLError, OSError, RuntimeError) as error:
        raise _unavailable(config.model, origin, str(error).splitlines()[0]) from error
    except InputError:
        raise
    except ValueError as error:  # torchvision's, for another number of classes
        raise InputError(
            f"`the published weights of {config.model} fit its settings` must hold, but got: "
            f"{str(error).splitlines()[0].rstrip('.')}. Pass --weights FILE."
        ) from error


def pytorchcv_weights(name: str) -> Weights:
    """Url and SHA-1 of the checkpoint that the installed pytorchcv publishes for a model.

    Raises:
        InputError: its table has none.
    """
    from pytorchcv.models.common.model_store import get_model_metainfo_dict, imgclsmob_repo_url

    _, error, sha1, tag = get_model_metainfo_dict().get(name, (0, "NA", "NA", "NA"))
    if "NA" in (error, sha1, tag):
        raise InputError(
            f"`pytorchcv publishes weights` must hold, but got model='pytorchcv:{name}', which has "
            "none. Give teacher.weights.url and sha1, or pass --weights FILE."
        )
    file = f"{name}-{error}-{sha1[:8]}.pth.zip"
    return Weights(url=f"{imgclsmob_repo_url}/releases/download/{tag}/{file}", sha1=sha1)


def _timm_origin(name: str) -> str:
    """Where timm would fetch a model from; an unreachable hub is an error before its retries."""
    from huggingface_hub import constants, try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    about = get_pretrained_cfg(name, allow_unregistered=True)
    if about is None or not (about.hf_hub_id or about.url):
        return "its library, which names no address"
    if not about.hf_hub_id:
        return about.url
    repository = about.hf_hub_id
    files = (try_to_load_from_cache(repository, file) for file in TIMM_FILES)
    is_cached = any(isinstance(file, str) and os.path.exists(file) for file in files)
    address = f"{constants.ENDPOINT}/{repository}"
    # The hub's client retries for minutes where there is no network at all.
    if not is_cached and not is_reachable(constants.ENDPOINT):
        raise _unavailable(f"timm:{name}", address, "no answer")
    return address


def _torchvision_origin(name: str) -> str:
    from torchvision import models

    try:
        return models.get_model_weights(name).DEFAULT.url
    except (ValueError, AttributeError, KeyError) as error:
        raise InputError(
            f"`torchvision publishes weights` must hold, but got model='torchvision:{name}', which "
            "has none. Pass --weights FILE."
        ) from error


PUBLISHERS: dict[str, Callable[[str], str]] = {
    "timm": _timm_origin,
    "torchvision": _torchvision_origin,
}
"""Library that downloads by itself → address of a model's published weights."""


def _unavailable(model: str, origin: str, reason: str) -> InputError:
    return InputError(
        f"`the published weights of {model} can be downloaded` must hold, but got: {reason} from "
        f"{origin}. Fetch them elsewhere and pass --weights FILE."
    )
