"""Students exported once and looked at by many tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, fx

from synq_tune.config import Bits, StudySpec
from synq_tune.export.best import export_student
from synq_tune.models.teacher import LoadedTeacher
from tests.export import networks


@dataclass(frozen=True)
class Exported:
    """An exported student with everything it was made from."""

    teacher: LoadedTeacher
    student: fx.GraphModule
    images: Tensor
    """Normalised."""
    spec: StudySpec
    folder: Path
    report: dict[str, Any]

    @property
    def python_model(self) -> str:
        return self.teacher.config.model


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """`export(network, quantizer, bits, size, skip)`, made once per session."""

    @cache
    def make(
        network: str, quantizer: str, bits: int, size: int = 8, skip: int | None = None
    ) -> Exported:
        teacher = networks.teacher(network, (3, size, size))
        widths = Bits(weights=bits, activations=bits, skip=skip)
        student, images = networks.student(teacher, quantizer, bits, skip=skip)
        spec = StudySpec(
            name="test", teacher=teacher.config, quantizer=quantizer, bits=widths
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("best")
        report = export_student(student, teacher, spec, folder, images, images)
        return Exported(teacher, student, images, spec, folder, report)

    return make
