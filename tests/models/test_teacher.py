"""Teachers: built, loaded, traced, frozen; the real ones give the accuracy they are known for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from synq_tune.config import Teacher
from synq_tune.errors import InputError
from synq_tune.graph.taps import CAM_TAP, FEATURE_TAP, FINAL_MAP_TAP, tap_names
from synq_tune.graph.trace import trace
from synq_tune.models.build import build_model
from synq_tune.models.teacher import load_teacher
from synq_tune.names import known
from tests.helpers import teacher_of


@pytest.mark.parametrize("name", known("model"))
def test_tracing_changes_nothing(name: str) -> None:
    """The traced network computes what the module does, for any batch size."""
    channels, size = (1, 8) if name.startswith("digits") else (3, 32)
    model = build_model(Teacher(model=name, channels=channels))
    images = torch.randn(3, channels, size, size)
    graph = trace(model, (channels, size, size))
    assert torch.equal(graph(images), model(images))


def test_the_shortcut_pads_equally_before_and_after() -> None:
    """Option A: every second pixel, zero channels on both sides."""
    block = build_model(Teacher(model="cifar_resnet20")).layer2[0]
    out = block._shortcut(torch.ones(1, 16, 4, 4))
    assert out.shape == (1, 32, 2, 2)
    assert out[0, :, 0, 0].tolist() == [0.0] * 8 + [1.0] * 16 + [0.0] * 8


def test_the_teacher_is_frozen_and_named() -> None:
    """No parameter requires a gradient; two loads have one fingerprint, other inputs another."""
    config = Teacher(model="digits_resnet26", channels=1)
    teacher, again = load_teacher(config), load_teacher(config)
    assert not any(p.requires_grad for p in teacher.graph.parameters())
    assert teacher.fingerprint == again.fingerprint
    other = load_teacher(config.model_copy(update={"mean": (0.5,)}))
    assert other.fingerprint != teacher.fingerprint
    assert (teacher.num_classes, teacher.preprocessing.shape) == (10, (1, 8, 8))


NET = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 5),
    )
"""


@pytest.mark.parametrize(("given", "is_said"), [({}, True), ({"input_size": 64}, False)])
def test_an_own_network_says_at_what_size_it_runs(
    tmp_path: Path, given: dict[str, int], is_said: bool
) -> None:
    """Where nobody gave one: it may have been trained at another."""
    (tmp_path / "net.py").write_text(NET)
    teacher = load_teacher(Teacher(model=f"{tmp_path}/net.py:net", **given))
    said = "teacher   runs at 224 x 224 pixels, since nobody gave a size; teacher.input_size is the"
    assert any(line.startswith(said) for line in teacher.note_lines) is is_said


def test_a_bundled_network_needs_no_such_note() -> None:
    """Its size is known."""
    assert load_teacher(Teacher(model="digits_resnet26", channels=1)).notes == ()


def test_taps_are_where_the_losses_look() -> None:
    """One per residual block, one at the last convolution, one at the final map."""
    graph = teacher_of(resnet18(), (3, 64, 64)).graph
    names = tap_names(graph, "tap_")
    assert names.count(CAM_TAP) == names.count(FINAL_MAP_TAP) == 1
    assert len(tap_names(graph, FEATURE_TAP)) == 8


def test_a_named_cam_layer_must_exist() -> None:
    """A mistyped layer is answered with the ones there are."""
    with pytest.raises(InputError, match=r"'layer9'.*layer3\.3"):
        load_teacher(Teacher(model="digits_resnet26", channels=1), cam_layer="layer9")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": "timm:resnet18x"}, "Did you mean"),
        ({"model": "torchvision:resnet19"}, "Did you mean 'resnet"),
        ({"model": "pytorchcv:resnet20_cifar11"}, "Did you mean 'resnet20_cifar10"),
        ({"model": "cifar_resnet20"}, "Pass --weights FILE"),
        ({"model": "digits_resnet26", "channels": 1, "num_classes": 11}, "do not fit|must hold"),
        ({"model": "digits_resnet26", "channels": 1, "kwargs": {"depth": 3}}, "depth"),
        ({"model": "digits_resnet26"}, "1 wrong shape \\(conv1.weight"),
        ({"model": "python:nowhere:net"}, "nowhere"),
        ({"model": "nowhere.py:net"}, "nowhere.py"),
        (
            {"model": "digits_resnet26", "channels": 1, "class_names": ("a", "b")},
            "len\\(class_names\\) == 10",
        ),
    ],
    ids=str,
)
def test_a_wrong_teacher_is_refused(config: dict[str, object], message: str) -> None:
    """Before any work, in one line."""
    with pytest.raises(InputError, match=message):
        load_teacher(Teacher(**config))


OWN_NET = """
from torch import nn
def make(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))
"""


def test_the_users_own_file(tmp_path: Path) -> None:
    """`path/net.py:function` runs the user's code because the user named it."""
    path = tmp_path / "net.py"
    path.write_text(OWN_NET)
    teacher = load_teacher(Teacher(model=f"{path}:make", kwargs={"width": 6}, input_size=16))
    assert teacher(torch.zeros(2, 3, 16, 16)).shape == (2, 4)


def test_own_code_is_known_by_its_text_not_its_folder(tmp_path: Path) -> None:
    """One file in two folders is one teacher; the same weights under other code are another."""
    sums = []
    for folder, text in (("a", OWN_NET), ("b", OWN_NET), ("c", OWN_NET + "# changed")):
        path = tmp_path / folder / "net.py"
        path.parent.mkdir()
        path.write_text(text)
        torch.manual_seed(0)
        config = Teacher(model=f"{path}:make", kwargs={"width": 6}, input_size=16)
        sums.append(load_teacher(config).fingerprint)
    assert sums[0] == sums[1] != sums[2]


def test_a_library_network_loads_with_its_own_input_contract() -> None:
    """timm's data config fills what the space leaves open; image sizes of kwargs win."""
    from synq_tune.models.preprocessing import resolve_preprocessing

    config = Teacher(model="timm:deit_tiny_patch16_224", kwargs={"img_size": 96}, num_classes=10)
    preprocessing = resolve_preprocessing(config, build_model(config))
    assert (preprocessing.height, preprocessing.width) == (96, 96)
    assert preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.slow
def test_the_real_cifar_teacher_has_its_accuracy(shared_data: Path) -> None:
    """CIFAR ResNet-20 reaches the top-1 it is shipped with."""
    from synq_tune.data.labelled import load_labelled
    from synq_tune.trial.evaluation import top1

    teacher = load_teacher(
        Teacher(
            model="cifar_resnet20",
            num_classes=10,
            weights=str(shared_data / "resnet20_cifar10_jpeg.safetensors"),
        )
    )
    source = str(shared_data / "cifar10_jpeg_test.zip")
    data = load_labelled(source, teacher.preprocessing, 10)
    assert len(data) == 10_000
    assert top1(teacher, data, teacher.preprocessing) == pytest.approx(88.24, abs=0.05)
