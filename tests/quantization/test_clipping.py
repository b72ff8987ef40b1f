"""Weights and ranges of values clipped before training."""

from __future__ import annotations

import torch

from synq_tune.config import Bits, Teacher
from synq_tune.models.teacher import load_teacher
from synq_tune.quantization.affine import affine_parameters, dequantize, quantize
from synq_tune.quantization.clipping import clip_weights, mask_gradients, narrow_ranges
from synq_tune.quantization.mse_range import least_error_clip
from synq_tune.quantization.student import (
    activation_quantizers,
    calibrate,
    quantize_student,
    weight_layers,
)


def _rounding_error(rows: torch.Tensor, true: torch.Tensor, bits: int) -> torch.Tensor:
    grid = affine_parameters(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), bits)
    return (dequantize(quantize(rows, *grid, bits), *grid) - true).square().sum(1)


def test_the_min_max_grid_of_clipped_weights_errs_less() -> None:
    """Per channel, never more than unclipped; far less where one weight lies far out."""
    rows = torch.randn(6, 200, generator=torch.Generator().manual_seed(0))
    rows[0, 0] = 12.0
    clipped = least_error_clip(rows, 3)
    before, after = _rounding_error(rows, rows, 3), _rounding_error(clipped, rows, 3)
    # A share's rounded zero point is not exactly the clipped range's own.
    assert bool((after <= 1.05 * before).all())
    assert float(after.sum()) < 0.8 * float(before.sum())
    inside = (rows >= clipped.amin(1, keepdim=True)) & (rows <= clipped.amax(1, keepdim=True))
    assert torch.equal(clipped[inside], rows[inside])


def test_learned_steps_keep_their_weights() -> None:
    """`lsq` starts from the least error already; `minmax` is changed, its teacher is not."""
    teacher = load_teacher(Teacher(model="digits_resnet26", channels=1))
    for quantizer, is_changed in (("minmax", True), ("lsq", False)):
        student = quantize_student(teacher, Bits(weights=3, activations=3), quantizer)
        clip_weights(student)
        for name, layer in weight_layers(student).items():
            own = teacher.graph.get_submodule(name).weight
            assert layer.weight.abs().max() <= own.abs().max()
            assert torch.equal(layer.weight, own) != is_changed or layer.weight.numel() < 50


def test_a_narrow_range_covers_its_share_with_finer_steps() -> None:
    """`minmax`: 0.6 of the largest value seen, zero still on the grid; learned steps stay."""
    teacher = load_teacher(Teacher(model="digits_resnet26", channels=1))
    images = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for quantizer, share in (("minmax", 0.6), ("lsq", 1.0)):
        student = quantize_student(teacher, Bits(weights=3, activations=3), quantizer)
        calibrate(student, [images])
        grids = activation_quantizers(student).values()
        before = [grid(torch.tensor([1e6])) for grid in grids]
        narrow_ranges(student, 0.6, bits=3)
        for grid, largest in zip(grids, before, strict=True):
            torch.testing.assert_close(grid(torch.tensor([1e6])), share * largest)
            assert grid(torch.zeros(1)) == 0


def test_clipped_values_pass_no_gradient_once_masked() -> None:
    """Identity until asked; a network whose values are all clipped then learns nothing."""
    teacher = load_teacher(Teacher(model="digits_resnet26", channels=1))
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sizes = []
    for is_masked in (False, True):
        student = quantize_student(teacher, Bits(weights=3, activations=3), "minmax")
        calibrate(student, [images])
        narrow_ranges(student, 1e-4, bits=3)
        if is_masked:
            mask_gradients(student, bits=3)
        student(images).square().sum().backward()
        sizes.append(float(student.conv1.weight.grad.abs().sum()))
    assert sizes[0] > 0
    assert sizes[1] < 0.01 * sizes[0]


def test_wider_grids_keep_their_range_and_gradient() -> None:
    """What sums read in 8 bits, and the first activation of 5, have steps enough."""
    teacher = load_teacher(Teacher(model="digits_resnet26", channels=1))
    bits = Bits(weights=3, activations=3, skip=8, first=5)
    student = quantize_student(teacher, bits, "minmax")
    calibrate(student, [torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))])
    before = {n: float(m.scale) for n, m in activation_quantizers(student).items()}
    narrow_ranges(student, 0.5, bits=3)
    mask_gradients(student, bits=3)
    widths = set()
    for name, grid in activation_quantizers(student).items():
        is_narrow = grid.bits == 3
        widths.add(grid.bits)
        assert grid.masks_gradient == is_narrow
        assert float(grid.scale) == before[name] * (0.5 if is_narrow else 1.0)
    assert widths == {3, 5, 8}


def test_narrower_grids_are_narrowed_too() -> None:
    """A tensor of 2 bits beside others of 3 has fewer steps still."""
    teacher = load_teacher(Teacher(model="digits_resnet26", channels=1))
    bits = Bits(weights=3, activations=3, overrides={"relu": {"activations": 2}})
    student = quantize_student(teacher, bits, "minmax")
    calibrate(student, [torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))])
    grid = activation_quantizers(student)["quantize_relu"]
    before = float(grid.scale)
    narrow_ranges(student, 0.5, bits=3)
    assert grid.bits == 2 and float(grid.scale) == before / 2
