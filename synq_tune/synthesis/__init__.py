"""Synthetic datasets made from the teacher alone: the methods by name."""

from synq_tune.synthesis import import_images, noise, synq
from synq_tune.synthesis.method import Synthesizer

SYNTHESIZERS: dict[str, Synthesizer] = {
    "synq": Synthesizer(synq.synthesize, synq.settings),
    "noise": Synthesizer(noise.synthesize, noise.settings),
    "images": Synthesizer(import_images.synthesize, import_images.settings),
}
