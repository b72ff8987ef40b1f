"""The shapes of a study: frozen, validated settings in which an unknown key is an error.

Importing this package loads neither torch nor Ray, so that a wrong space is refused in milliseconds
and a study's header is on disk before anything heavy starts.
"""

from synq_tune.config.bits import Bits
from synq_tune.config.domain import Domain
from synq_tune.config.finetune import FineTune, ViewSettings
from synq_tune.config.reconstruct import Reconstruct
from synq_tune.config.settings import FORMAT, Settings
from synq_tune.config.spec import StudySpec
from synq_tune.config.study import Confirm, Study
from synq_tune.config.synthesis import Synthesis
from synq_tune.config.teacher import Teacher, Weights

__all__ = [
    "FORMAT",
    "Bits",
    "Confirm",
    "Domain",
    "FineTune",
    "Reconstruct",
    "Settings",
    "Study",
    "StudySpec",
    "Synthesis",
    "Teacher",
    "ViewSettings",
    "Weights",
]
