"""The speed benchmarks on the small digits network: what they report, and that they are faithful."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from synq_tune.bench.material import bench_source, bench_student, bench_teacher
from synq_tune.bench.released import ReleasedStep
from synq_tune.bench.speed import bench
from synq_tune.config.load import load_space, with_recipe
from synq_tune.errors import InputError
from synq_tune.quantization.student import activation_quantizers

CPU = torch.device("cpu")
SMALL = ["synthesis.num_images=32", "synthesis.num_holdout=8", "study.val_data=null"]
ROOT = Path(__file__).parents[2]


def _numbers(what: str, space: str = "digits_w3a3", *sets: str) -> dict:
    return bench(what, space, [*SMALL, *sets], rounds=1, threads=1, device="cpu", batch_size=16)[1]


def test_a_step_is_compared_with_its_floor_and_the_released_one() -> None:
    """All seconds and ratios are there, and the released passes cost more than ours."""
    numbers = _numbers("step")
    for key in ("floor_seconds", "synq_seconds", "released_seconds", "ratio_to_floor"):
        assert numbers[key] > 0
    assert numbers["ratio_to_released"] > 1
    assert (numbers["threads"], numbers["batch_size"]) == (1, 16)


def test_the_released_step_makes_the_released_codes_passes() -> None:
    """Three forwards of the teacher, three of the student and one of a blank image; the student learns."""
    spec = load_space("digits_w3a3", SMALL, {"finetune": {"batch_size": 8}})
    teacher = bench_teacher(spec, CPU)
    source = bench_source(teacher, spec.finetune, CPU)
    student = bench_student(spec, teacher, source)
    before = student.state_dict()["conv1.weight"].clone()
    config = with_recipe(spec, "synq_code").finetune
    step = ReleasedStep(student, teacher.graph, config)
    sizes: Counter = Counter()
    for name, network in (("student", step.student), ("teacher", step.teacher)):
        network.conv1.register_forward_pre_hook(
            lambda module, inputs, name=name: sizes.update([(name, len(inputs[0]))])
        )
    step(next(iter(source.batches(0))))
    assert sizes == {("teacher", 8): 3, ("student", 8): 3, ("student", 1): 1}
    assert not torch.equal(student.state_dict()["conv1.weight"], before)
    assert all(p.grad is not None for p in step.teacher.parameters())


def test_a_benchmarks_student_is_a_trials() -> None:
    """Its ranges are narrowed and its gradients masked as the recipe says."""
    grids = {}
    for share in (1.0, 0.5):
        spec = load_space("digits_w3a3", [*SMALL, f"finetune.range_share={share}"])
        teacher = bench_teacher(spec, CPU)
        source = bench_source(teacher, spec.finetune, CPU)
        grids[share] = activation_quantizers(bench_student(spec, teacher, source)).values()
    for whole, narrow in zip(grids[1.0], grids[0.5], strict=True):
        assert float(narrow.scale) == 0.5 * float(whole.scale)
        assert (whole.masks_gradient, narrow.masks_gradient) == (False, True)


def test_shares_of_a_trial_add_up() -> None:
    """Quantizing, calibration, updates and evaluation are the whole trial."""
    numbers = _numbers("trial")
    stages = ("quantize", "calibration", "updates", "evaluation")
    assert sum(numbers[f"{stage}_share"] for stage in stages) == pytest.approx(1.0)
    assert numbers["updates"] == load_space("digits_w3a3").finetune.epochs * 2


@pytest.mark.parametrize(
    ("space", "method"),
    [("digits_w3a3", "synq"), ("digits_vit_w4a8", "psaq"), ("digits_w3a3", "genie")],
)
def test_synthesis_is_compared_with_the_teachers_own_passes(space: str, method: str) -> None:
    """Seconds are per iteration; a generator's own passes are part of the floor."""
    numbers = _numbers("synthesis", space, f"synthesis.method={method}")
    assert numbers["floor_seconds"] > 0 and numbers["ratio_to_floor"] > 0
    assert numbers[f"{method}_seconds"] > 0


@pytest.mark.long
def test_memory_is_that_of_a_process_of_its_own() -> None:
    """Stages only add; proportional memory never exceeds the resident one."""
    numbers = _numbers("memory")
    stages = numbers["stages"]
    assert list(stages)[0] == "libraries" and list(stages)[-1] == "evaluated"
    assert all(
        row["private"] <= row["pss"] <= row["rss"] <= row["peak_rss"] * 1.01
        for row in stages.values()
    )
    assert numbers["peak_rss_bytes"] >= stages["libraries"]["rss"]


def test_the_same_seed_gives_the_same_random_teacher() -> None:
    """Two commands without weights time the same network."""
    spec = load_space("cifar_resnet20_w3a3", [])
    first, again = (bench_teacher(spec, CPU).fingerprint for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "--rounds >= 1"),
        ({"threads": 0}, "--threads >= 1"),
        ({"device": "nonsense"}, "nonsense"),
        ({"what": "synthesis", "sets": ["synthesis.method=noise"]}, "one of synq, psaq, genie"),
    ],
    ids=lambda v: str(v),
)
def test_wrong_settings_are_refused(wrong: dict, message: str) -> None:
    """One line says what must hold."""
    with pytest.raises(InputError, match=message):
        bench(**{"what": "step", "space": "digits_w3a3", **wrong})


@pytest.mark.long
def test_the_command_ends_with_one_json_object() -> None:
    """Other programs read the last line."""
    arguments = ["step", "--space", "digits_w3a3", "--rounds", "1", "--batch-size", "4", "--json"]
    command = [sys.executable, str(ROOT / "scripts/bench.py"), *arguments, "--device", "cpu"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(out.stdout.splitlines()[-1])["space"] == "digits_w3a3"


@pytest.mark.long
def test_a_reconstruction_is_compared_with_its_parts() -> None:
    """Seconds, ratio and the number of parts are there; another quantizer is refused."""
    numbers = _numbers("reconstruct", "digits_genie_w2a2")
    assert numbers["genie_seconds"] > 0 and numbers["ratio_to_floor"] > 0
    assert numbers["parts"] == 14
    with pytest.raises(InputError, match="learns its rounding"):
        _numbers("reconstruct", "digits_w3a3")
