"""What `scripts/inspect.py` prints."""

from __future__ import annotations

from synq_tune import own_code
from synq_tune.config import StudySpec
from synq_tune.config.overrides import overrides_line
from synq_tune.errors import stage
from synq_tune.inspection.table import layer_lines, part_lines, summary_lines, tensor_lines
from synq_tune.models.build import build_model
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.reconstruction.parts import units_of
from synq_tune.trial.memory import memory_line
from synq_tune.trial.requirements import check_parts


def inspect_space(spec: StudySpec, random_weights: bool = False) -> list[str]:
    """Lines to print: every layer, every tensor, the parts of a reconstruction, the summary.

    Args:
        spec: names network, bits and quantizer.
        random_weights: do not ask for a checkpoint: what is quantized depends on shapes alone.

    Raises:
        InputError: the network cannot be quantized, or has no BatchNorm or attention for the
            synthesis asked.
    """
    with stage("building the network", f"teacher.model={spec.teacher.model}", runs_code=True):
        model = build_model(spec.teacher) if random_weights else None
    teacher = load_teacher(spec.teacher, cam_layer=spec.finetune.cam_layer, model=model)
    inspection = check_parts(spec, teacher)
    head = f"{spec.teacher.model}, {teacher.num_classes} classes, input {_input(teacher)}"
    head += f", quantizer {own_code.label(spec.quantizer)}"
    return [
        head,
        *teacher.note_lines,
        "",
        *layer_lines(inspection),
        "",
        *tensor_lines(inspection),
        "",
        *part_lines(units_of(teacher.graph, spec.reconstruct.blocks)),
        "",
        *summary_lines(inspection, spec.bits),
        memory_line(spec, teacher),
        overrides_line(spec),
    ]


def _input(teacher: LoadedTeacher) -> str:
    return "×".join(map(str, teacher.preprocessing.shape))
