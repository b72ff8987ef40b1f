"""Synthetic datasets made from the teacher alone: the methods by name."""

from synq_tune.errors import lookup
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.own_code import is_own_code
from synq_tune.synthesis import images as import_images
from synq_tune.synthesis import noise, psaq, synq
from synq_tune.synthesis.method import Synthesizer
from synq_tune.synthesis.own import own_synthesizer
from synq_tune.synthesis.patch_similarity import attentions
from synq_tune.synthesis.statistics import remembered


def _has_batchnorm(teacher: LoadedTeacher) -> None:
    remembered(teacher.graph)


SYNTHESIZERS: dict[str, Synthesizer] = {
    "synq": Synthesizer(synq.synthesize, synq.settings, _has_batchnorm),
    "psaq": Synthesizer(psaq.synthesize, psaq.settings, attentions),
    "noise": Synthesizer(noise.synthesize, noise.settings, _has_batchnorm),
    "images": Synthesizer(import_images.synthesize, import_images.settings),
}


def synthesizer(method: str) -> Synthesizer:
    """The method of that name, or the user's own.

    Raises:
        InputError: there is no such method; the message says which there are.
    """
    if is_own_code(method):
        return own_synthesizer(method)
    return SYNTHESIZERS[lookup("synthesis method", method, SYNTHESIZERS)]
