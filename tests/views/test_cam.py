"""CAM techniques: the grad-cam package as oracle, and the traps of the released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18

from synq_tune.config import Teacher
from synq_tune.errors import InputError
from synq_tune.graph.taps import CAM_TAP, FINAL_MAP_TAP, record
from synq_tune.models.build import build_model
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.names import known
from synq_tune.views.cam import cam_tap, normalize_maps, saliency_map, technique_weights
from tests.helpers import teacher_of

ORACLES = {"gradcam": GradCAM, "gradcam++": GradCAMPlusPlus}


class Net(nn.Module):
    """Two convolutions, BatchNorm, pooling, a linear classifier; float64 for the oracle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv2(torch.relu(self.conv1(x)))))
        return self.fc(self.pool(x).flatten(1))


def _maps(teacher: LoadedTeacher, images: Tensor, labels: Tensor, technique: str) -> Tensor:
    with record(teacher.graph, [cam_tap(teacher.graph, technique)]) as values:
        logits = teacher(images)
    scores = logits.gather(1, labels[:, None])[:, 0]
    (activations,) = values.values()
    return saliency_map(activations, scores, technique)


@pytest.mark.parametrize("technique", ORACLES)
def test_maps_equal_the_oracles(technique: str) -> None:
    """Same maps as the grad-cam package up to its min-max, for the same layer and class."""
    net = Net().double().eval()
    images = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    labels = torch.tensor([0, 3, 1, 4])
    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    with ORACLES[technique](model=net, target_layers=[net.conv2]) as oracle:
        expected = oracle(input_tensor=images.clone(), targets=targets)
    teacher = _float64_teacher(net)
    ours = normalize_maps(_maps(teacher, images, labels, technique)).detach().numpy()
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def _float64_teacher(net: Net) -> LoadedTeacher:
    net = net.float()
    teacher = teacher_of(net, (3, 12, 12))
    teacher.graph.double()
    return teacher


def test_cam_uses_the_classifiers_row() -> None:
    """CAM is the class's row of the linear layer on the final map."""
    teacher = _float64_teacher(Net())
    images = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    labels = torch.tensor([2, 0, 4])
    with record(teacher.graph, [FINAL_MAP_TAP]) as values:
        teacher(images)
    rows = teacher.graph.fc.weight[labels]
    expected = torch.einsum("nc,nchw->nhw", rows, values[FINAL_MAP_TAP]).relu()
    torch.testing.assert_close(_maps(teacher, images, labels, "cam"), expected)


@pytest.mark.parametrize("technique", known("CAM technique"))
def test_maps_are_per_image(technique: str) -> None:
    """An image's map does not depend on its batch; it is non-negative and has the layer's size."""
    teacher = teacher_of(Net(), (3, 12, 12))
    images, labels = torch.randn(4, 3, 12, 12), torch.tensor([0, 1, 2, 3])
    whole = _maps(teacher, images, labels, technique)
    alone = _maps(teacher, images[2:3], labels[2:3], technique)
    torch.testing.assert_close(whole[2:3], alone, rtol=1e-4, atol=1e-7)
    assert whole.shape == (4, 12, 12)
    assert (whole >= 0).all()


@pytest.mark.parametrize("technique", known("CAM technique"))
def test_channel_weights_are_constants(technique: str) -> None:
    """First order: the gradient of a map is that of Σ a_k A_k with a_k fixed (finite differences)."""
    activations = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    head = torch.rand(3, dtype=torch.float64)
    scores = (activations.mean((2, 3)) * head).sum(1)
    gradients = torch.autograd.grad(scores.sum(), activations, retain_graph=True)[0]
    weights = technique_weights(technique)(activations.detach(), gradients)
    saliency_map(activations, scores, technique).sum().backward()
    positive = torch.einsum("nc,nchw->nhw", weights, activations) > 0
    expected = weights[:, :, None, None] * positive[:, None]
    torch.testing.assert_close(activations.grad, expected.expand_as(activations))


def test_a_constant_map_normalises_to_zeros() -> None:
    """Rounding noise is not blown up (a 1×1 map would be nothing but noise)."""
    noisy = torch.full((2, 3, 3), 1e-3) + 1e-11 * torch.rand(2, 3, 3)
    assert float(normalize_maps(noisy).max()) < 1e-2
    assert torch.equal(normalize_maps(torch.zeros(1, 3, 3)), torch.zeros(1, 3, 3))


def test_normalised_maps_fill_zero_to_one() -> None:
    """Per-image min-max, whatever the scale."""
    maps = torch.rand(5, 4, 4) * torch.tensor([1e-6, 1e-2, 1, 1e2, 1e6]).view(-1, 1, 1)
    low, high = normalize_maps(maps).flatten(1).aminmax(dim=1)
    torch.testing.assert_close(low, torch.zeros(5))
    torch.testing.assert_close(high, torch.ones(5), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "layer"), [(resnet18, "layer4.1.conv2"), (mobilenet_v2, "features.18.0")]
)
def test_the_layer_is_the_last_convolution_with_a_map(model: object, layer: str) -> None:
    """Not a 1×1 classifier; the convolution's output before its BatchNorm."""
    graph = teacher_of(model(), (3, 64, 64)).graph
    node = next(n for n in graph.graph.nodes if n.target == CAM_TAP)
    assert node.args[0].target == layer


def test_cam_needs_pooling_and_a_linear_layer() -> None:
    """CAM is refused where the head is anything else; Grad-CAM still works."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    graph = teacher_of(net, (3, 8, 8)).graph
    with pytest.raises(InputError, match=r"global pooling \+ linear"):
        cam_tap(graph, "cam")
    assert cam_tap(graph, "gradcam") == CAM_TAP


def test_no_hook_survives() -> None:
    """Recording ends with its block, also after an error."""
    graph = teacher_of(build_model(Teacher(model="digits_resnet26", channels=1)), (1, 8, 8)).graph
    with pytest.raises(ZeroDivisionError), record(graph, [CAM_TAP]):
        raise ZeroDivisionError
    assert not any(m._forward_hooks for m in graph.modules())


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet20_cifar10", "features.stage3.unit3.body.conv2.conv"),
     ("resnet18", "features.stage4.unit2.body.conv2.conv"),
     ("mobilenetv2_w1", "features.final_block.conv")],
)  # fmt: skip
def test_the_papers_networks_have_a_place_for_every_technique(name: str, layer: str) -> None:
    """pytorchcv pools by a window of the map's size, and MobileNetV2's classifier is a convolution."""
    size = 32 if "cifar" in name else 224
    teacher = teacher_of(build_model(Teacher(model=f"pytorchcv:{name}")), (3, size, size))
    assert {cam_tap(teacher.graph, technique) for technique in known("CAM technique")} == {
        CAM_TAP,
        FINAL_MAP_TAP,
    }
    tap = next(node for node in teacher.graph.graph.nodes if node.target == CAM_TAP)
    assert tap.args[0].target == layer
