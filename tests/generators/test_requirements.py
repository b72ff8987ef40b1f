"""What a generator needs is known before it trains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from synq_tune.config import FineTune
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.generators import requirements
from synq_tune.generators.network import Generator
from synq_tune.generators.requirements import check, check_memory, num_weights, training_bytes
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.trial.memory import memory_line, source_bytes, trial_bytes, views_bytes
from tests.helpers import teacher_of

FEATURES = {"generator_latent": "features", "generator_conditioning": "add_norm"}


def _teacher(features: int, classes: int, shape: tuple[int, int, int]) -> LoadedTeacher:
    net = nn.Sequential(
        nn.Conv2d(3, features, 1, 4), nn.BatchNorm2d(features), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(features, classes),
    )  # fmt: skip
    return teacher_of(net, shape)


@pytest.mark.parametrize("norm", [False, True])
def test_weights_are_those_of_the_generator(norm: bool) -> None:
    """Counted without making one."""
    teacher = _teacher(7, 4, (3, 9, 8))
    config = FineTune(**FEATURES, generator_conditional_norm=norm)
    made = sum(p.numel() for p in Generator(config, 7, 4, (3, 9, 8)).parameters())
    assert num_weights(teacher, config) == made
    assert training_bytes(teacher, config) > 4 * 4 * made


def test_what_a_batch_keeps_is_counted() -> None:
    """In proportion to the batch; a found generator's more nodes take more."""
    teacher = _teacher(2, 4, (3, 16, 16))
    code = {"generator_code": "000010|606546635666245|002001111222"}
    taken = []
    for more in ({}, code):
        small, twice = (FineTune(batch_size=size, **more) for size in (8, 16))
        weights = 16 * num_weights(teacher, small)
        kept = [training_bytes(teacher, config) - weights for config in (small, twice)]
        assert kept[0] > 0 and kept[1] == pytest.approx(2 * kept[0], rel=0.01)
        taken.append(kept[0])
    # A trunk's maps: doubled ones, those of convolutions and norms, 128 and 64 wide.
    assert 8 * 4 * 16 * 16 * 200 < taken[0] < 8 * 4 * 16 * 16 * 500 < taken[1]


def test_qimeras_generator_for_resnet50_takes_12_gib() -> None:
    """822 million weights: 2,048 features to 128 maps of 56×56."""
    teacher = _teacher(2048, 10, (3, 224, 224))
    config = FineTune(**FEATURES, batch_size=1)
    assert num_weights(teacher, config) == pytest.approx(822e6, rel=0.01)
    assert training_bytes(teacher, config) / 1e9 == pytest.approx(13.2, rel=0.02)


def test_too_large_a_generator_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The line says weights, memory and the fix; a large one that fits is a note."""
    teacher = _teacher(2048, 10, (3, 224, 224))
    config = FineTune(**FEATURES, batch_size=1)
    message = r"823 million weights take 12.* GiB .*8\.0 GiB\. Set finetune\.generator_latent"
    with pytest.raises(InputError, match=message):
        check_memory(teacher, config, 8 * 2**30)
    check_memory(teacher, config, 64 * 2**30)
    assert "each trial trains a generator of its own: 823 million" in capsys.readouterr().err


def test_what_it_takes_is_part_of_a_trial(teacher: LoadedTeacher) -> None:
    """A trial has no views then, and its memory line names the generator."""
    stored = load_space("digits_w4a4")
    along = load_space("digits_w4a4", ["finetune.source=generator"])
    assert source_bytes(stored, teacher) == 0 == views_bytes(along, teacher)
    difference = trial_bytes(along, teacher) - trial_bytes(stored, teacher)
    assert difference == source_bytes(along, teacher) - views_bytes(stored, teacher)
    assert "its generator" in memory_line(along, teacher)
    assert "generator" not in memory_line(stored, teacher)


def test_a_teacher_without_statistics_is_refused() -> None:
    """Unless they have no weight."""
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    teacher = teacher_of(nn.Sequential(net, nn.Linear(2, 3)), (3, 8, 8))
    with pytest.raises(InputError, match="`the teacher has BatchNorm layers` must hold"):
        check(teacher, FineTune())
    check(teacher, FineTune(generator_bns=0))


def test_one_image_of_one_cell_is_refused() -> None:
    """It would be its own mean."""
    teacher = _teacher(2, 3, (3, 4, 4))
    with pytest.raises(InputError, match="`finetune.batch_size >= 2` must hold"):
        check(teacher, FineTune(batch_size=1))
    check(teacher, FineTune(batch_size=2))


def test_the_devices_memory_is_read() -> None:
    """All of it, more than a gigabyte on any machine that runs this."""
    teacher = _teacher(2, 3, (3, 4, 4))
    assert requirements._device_bytes(teacher) > 2**30
    assert next(teacher.graph.parameters()).device == torch.device("cpu")
