"""The rows of a teacher's classifier, from which a generator's classes can start."""

from __future__ import annotations

from torch import Tensor

from synq_tune.config.generator_source import GeneratorSourceSettings
from synq_tune.errors import InputError
from synq_tune.graph.classifier import last_layer
from synq_tune.models.teacher import LoadedTeacher


def classifier_rows(teacher: LoadedTeacher) -> Tensor:
    """(K, D): what the teacher's last layer multiplies each feature with, for each class.

    Raises:
        InputError: the last layer gives no logits.
    """
    layer = last_layer(teacher.graph)
    weight = None if layer is None else layer.weight.detach()
    if weight is None or weight.flatten(1).shape[0] != teacher.num_classes:
        raise InputError(
            "`the teacher's last layer gives the logits` must hold for a generator that starts from "
            f"its rows, but got {None if weight is None else tuple(weight.shape)}. Set "
            "finetune.generator_latent=100 and finetune.generator_embedding=random."
        )
    return weight.flatten(1)


def latent_length(teacher: LoadedTeacher, config: GeneratorSourceSettings) -> int:
    """Length of a latent: as set, or that of a row of the classifier."""
    asked = config.generator_latent
    return classifier_rows(teacher).shape[1] if asked == "features" else asked


def first_vectors(teacher: LoadedTeacher, config: GeneratorSourceSettings) -> Tensor | None:
    """(K, D) that the classes' vectors start from; None: to be drawn.

    Raises:
        InputError: the rows are of another length than a latent.
    """
    if config.generator_embedding == "random":
        return None
    rows, latent = classifier_rows(teacher), latent_length(teacher, config)
    if rows.shape[1] != latent:
        raise InputError(
            f"finetune.generator_latent: `it is {rows.shape[1]}, a row of the classifier` must hold "
            f"with generator_embedding=classifier, but got {latent}. Set it to features."
        )
    return rows
