"""Name → object: one table a family, where a built-in resolves as the user's own code does.

A table holds text, `module:object`, so that a name is checked without importing what stands behind
it. To add a member write its file and one line here; nothing else lists it.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from synq_tune import own_code
from synq_tune.errors import lookup

FAMILIES: dict[str, dict[str, str]] = {
    "model": {
        "cifar_resnet20": "synq_tune.models.cifar_resnet:cifar_resnet20",
        "cifar_resnet32": "synq_tune.models.cifar_resnet:cifar_resnet32",
        "cifar_resnet44": "synq_tune.models.cifar_resnet:cifar_resnet44",
        "cifar_resnet56": "synq_tune.models.cifar_resnet:cifar_resnet56",
        "digits_resnet26": "synq_tune.models.cifar_resnet:digits_resnet26",
        "digits_vit": "synq_tune.models.digits_vit:digits_vit",
    },
    "synthesis method": {
        "synq": "synq_tune.synthesis.synq:METHOD",
        "psaq": "synq_tune.synthesis.psaq:METHOD",
        "genie": "synq_tune.synthesis.genie:METHOD",
        "zeroq": "synq_tune.synthesis.zeroq:METHOD",
        "noise": "synq_tune.synthesis.noise:METHOD",
        "images": "synq_tune.synthesis.images:METHOD",
    },
    "CAM technique": {
        "cam": "synq_tune.views.cam:cam_weights",
        "gradcam": "synq_tune.views.cam:gradcam_weights",
        "gradcam++": "synq_tune.views.cam:gradcam_plus_plus_weights",
    },
    "source": {
        "views": "synq_tune.views.source:view_source",
        "generator": "synq_tune.generators.source:GENERATOR",
    },
    "reconstruction": {
        "genie": "synq_tune.reconstruction.genie:METHOD",
    },
    "quantizer": {
        "minmax": "synq_tune.quantization.minmax:MINMAX",
        "lsq": "synq_tune.quantization.lsq:LSQ",
        "deploy": "synq_tune.quantization.lsq:DEPLOY",
        "deploy_symmetric": "synq_tune.quantization.lsq:DEPLOY_SYMMETRIC",
        "vit_minmax": "synq_tune.quantization.vit_minmax:VIT_MINMAX",
        "vit_lsq": "synq_tune.quantization.lsq:VIT_LSQ",
        "genie": "synq_tune.quantization.genie:GENIE",
        "genie_deploy": "synq_tune.quantization.genie:GENIE_DEPLOY",
    },
}
"""Family → name → where its object is."""


def known(family: str) -> tuple[str, ...]:
    """The built-in names of a family, in the order of its table."""
    return tuple(FAMILIES[family])


def check(family: str, name: str) -> str:
    """Return `name` if it is a built-in's or has the form of the user's own code.

    Raises:
        InputError: it is neither; the message says which names there are.
    """
    if own_code.is_own_code(name):
        own_code.parse(name)
        return name
    return lookup(family, name, FAMILIES[family])


def resolve(family: str, name: str) -> Any:
    """The object behind a name: of the family's table, or from the user's file or module.

    Raises:
        InputError: there is no such name, or the user's code cannot be loaded.
    """
    if own_code.is_own_code(name):
        return own_code.find_object(name)
    return _builtin(FAMILIES[family][lookup(family, name, FAMILIES[family])])


@cache
def _builtin(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
