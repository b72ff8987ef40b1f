"""CAM on the tokens of transformers: the right layer, the right grid, the oracle's maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from synq_tune.config import Bits, FineTune
from synq_tune.errors import InputError
from synq_tune.finetune.loop import TrainingStep
from synq_tune.graph.taps import CAM_TAP, FEATURE_TAP, insert_taps, record, tap_names
from synq_tune.graph.trace import trace
from synq_tune.models.teacher import LoadedTeacher
from synq_tune.quantization.student import calibrate, quantize_student
from synq_tune.views.cam import cam_tap, normalize_maps, saliency_map
from synq_tune.views.difficulty import difficulty
from synq_tune.views.source import Batch
from synq_tune.views.teacher_cache import explain
from tests.helpers import teacher_of

ORACLES = {"gradcam": GradCAM, "gradcam++": GradCAMPlusPlus}


def perturbed(model: nn.Module) -> nn.Module:
    """Fresh heads and biases are nearly zero: maps would be rounding noise."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


def deit(name: str = "deit_tiny_patch16_224", **kwargs: object) -> nn.Module:
    small = {"img_size": (16, 24), "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
    return perturbed(timm.create_model(name, num_classes=5, **{**small, **kwargs}))


def swin() -> nn.Module:
    return perturbed(timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=5, img_size=16, patch_size=2, window_size=4,
        embed_dim=16, depths=[2, 2], num_heads=[2, 4],
    ))  # fmt: skip


def maps_of(teacher: LoadedTeacher, images: Tensor, labels: Tensor, technique: str) -> Tensor:
    config = FineTune(cam=technique)
    _, maps = explain(teacher, images, labels, [technique], config)
    return maps[technique]


def deit_reshape(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 6))


def swin_reshape(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (4, 4))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], Callable, Callable]] = {
    "deit": (deit, (16, 24), lambda m: m.blocks[-1].norm1, deit_reshape),
    "swin": (swin, (16, 16), lambda m: m.layers[-1].blocks[-1].norm2, swin_reshape),
}


@pytest.mark.parametrize("technique", ORACLES)
@pytest.mark.parametrize("case", CASES)
def test_maps_equal_the_oracles(case: str, technique: str) -> None:
    """By default DeiT's last norm1 and Swin's last norm2, as the grad-cam package explains them."""
    build, size, layer, reshape = CASES[case]
    model = build()
    images, labels = torch.randn(4, 3, *size), torch.tensor([0, 3, 1, 4])
    teacher = teacher_of(model, (3, *size))
    ours = normalize_maps(maps_of(teacher, images, labels, technique))
    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    with ORACLES[technique](
        model=model.requires_grad_(True), target_layers=[layer(model)], reshape_transform=reshape
    ) as oracle:
        # The package's own maps before it resizes them to the image.
        oracle.forward(images, targets)
        layers = oracle.activations_and_grads
        activations, gradients = (
            np.stack(list(values[0].numpy())) for values in (layers.activations, layers.gradients)
        )
        expected = oracle.get_cam_image(
            images, oracle.target_layers[0], targets, activations, gradients, False
        )
    expected = normalize_maps(torch.from_numpy(expected).clamp_min(0).float())
    assert ours.shape[1:] == expected.shape[1:] and expected.amax() > 0.9
    torch.testing.assert_close(ours, expected, atol=2e-3, rtol=0)


def test_cam_of_swin_is_the_classifiers_row() -> None:
    """On the final LayerNorm's map, whose mean the one linear layer reads."""
    model = swin()
    teacher = teacher_of(model, (3, 16, 16))
    images, labels = torch.randn(3, 3, 16, 16), torch.tensor([2, 0, 4])
    features = model.forward_features(images)  # (N, 4, 4, C)
    expected = torch.einsum("nc,nhwc->nhw", model.head.fc.weight[labels], features).relu()
    torch.testing.assert_close(maps_of(teacher, images, labels, "cam"), expected, atol=1e-4, rtol=0)


def test_cam_of_deit_is_refused() -> None:
    """Its classifier reads the class token: there is no pooled map whose channels it weighs."""
    with pytest.raises(InputError, match="global pooling"):
        cam_tap(teacher_of(deit(), (3, 16, 24)).graph, "cam")


def test_prefixes_are_told_from_patches() -> None:
    """A distilled DeiT has two tokens before its patches; the grid follows the image's shape."""
    teacher = teacher_of(deit("deit_tiny_distilled_patch16_224"), (3, 16, 24))
    layout = teacher.graph.get_submodule(CAM_TAP).layout
    assert (layout.prefix, layout.height, layout.width) == (2, 4, 6)


@pytest.mark.parametrize(
    ("build", "size", "layer", "shape"),
    [
        (deit, (16, 24), "blocks.0.norm2", (24, 4, 6)),
        (deit, (16, 24), "patch_embed.proj", (24, 4, 6)),
        (swin, (16, 16), "layers.0.blocks.1.norm1", (16, 8, 8)),
        (swin, (16, 16), "norm", (32, 4, 4)),
    ],
)
def test_the_layer_is_a_field(
    build: Callable[[], nn.Module], size: tuple[int, int], layer: str, shape: tuple[int, ...]
) -> None:
    """Any layer whose tokens lie on a map can be explained, by its name in the library."""
    model = build()
    graph = trace(model.requires_grad_(False), (3, *size))
    insert_taps(graph, layer)
    seen: list[Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda m, i, o: seen.append(o))
    with record(graph, [CAM_TAP]) as values:
        logits = graph(torch.randn(2, 3, *size))
    assert values[CAM_TAP].shape == (2, *shape)
    flat = (
        seen[0]
        if seen[0].dim() == 3
        else seen[0].flatten(1, -2)
        if layer != "patch_embed.proj"
        else seen[0].flatten(2).mT
    )
    patches = flat[:, flat.shape[1] - shape[1] * shape[2] :]
    torch.testing.assert_close(values[CAM_TAP].flatten(2).mT, patches)
    saliency_map(values[CAM_TAP], logits[:, 0], "gradcam")  # the logits' graph goes through the map


def test_recording_changes_no_logits() -> None:
    """Values pass through the map and back unchanged."""
    for build, size in ((deit, (16, 24)), (swin, (16, 16))):
        teacher = teacher_of(build(), (3, *size))
        images = torch.randn(2, 3, *size)
        with record(teacher.graph, [CAM_TAP, *tap_names(teacher.graph, FEATURE_TAP)]) as values:
            logits = teacher(images)
        assert torch.equal(logits, teacher(images))
        assert all(v.dim() == 4 for v in values.values())


def test_feature_taps_are_residual_branches_alone() -> None:
    """Two for each block; the table that Swin's attention adds to its scores is none."""
    for build, size, count in ((deit, (16, 24), 4), (swin, (16, 16), 8)):
        assert len(tap_names(teacher_of(build(), (3, *size)).graph, FEATURE_TAP)) == count


@pytest.mark.parametrize("quantizer", ["vit_minmax", "vit_lsq"])
@pytest.mark.parametrize("technique", ["cam", "gradcam", "gradcam++"])
def test_a_step_aligns_the_students_map(quantizer: str, technique: str) -> None:
    """The CAM loss of a quantized student is positive, and its gradient reaches the weights."""
    teacher = teacher_of(swin(), (3, 16, 16))
    images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    config = FineTune(cam=technique, kd_weight=0.0, lambda_ce=0.0)
    logits, maps = explain(teacher, images, labels, [technique], config)
    student = quantize_student(teacher, Bits(weights=4, activations=4), quantizer)
    calibrate(student, [images])
    batch = Batch(images, labels, logits, maps[technique], difficulty(logits, labels))
    step = TrainingStep(student, config, None)
    losses = dict(zip(step.loss_names, step(batch), strict=True))
    assert losses["cam"] > 0
    losses["cam"].backward()
    assert student.get_submodule("layers.0.blocks.0.mlp.fc1").weight.grad.abs().sum() > 0


def test_cam_works_where_the_pooled_values_have_a_grid() -> None:
    """A grid behind the pooling changes no shape, so that CAM stays what it was (also with deploy)."""
    teacher = teacher_of(swin(), (3, 16, 16))
    student = quantize_student(teacher, Bits(weights=4, activations=8), "vit_lsq")
    assert cam_tap(student, "cam") == cam_tap(teacher.graph, "cam")
