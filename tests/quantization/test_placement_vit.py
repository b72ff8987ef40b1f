"""Vision transformers: what gets a grid, on which grid, and that everything can be trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, fx, nn

from synq_tune.config import Bits, Teacher
from synq_tune.errors import InputError
from synq_tune.graph.attention import attention_outputs, open_attention
from synq_tune.graph.branches import Branch
from synq_tune.graph.trace import trace
from synq_tune.inspection.student import inspect_student
from synq_tune.models.teacher import LoadedTeacher, load_teacher
from synq_tune.quantization.student import (
    ACTIVATION_PREFIX,
    activation_quantizers,
    calibrate,
    quantize_student,
)
from synq_tune.quantization.vit_minmax import VitMinMaxActivation, VitMinMaxWeight
from tests.helpers import teacher_of

BITS = Bits(weights=4, activations=8)
FAMILIES = ("vit_minmax", "vit_lsq")


def deit(**kwargs: object) -> nn.Module:
    """DeiT of two blocks for 16×16 images: 16 patches and a class token."""
    small = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
    return timm.create_model("deit_tiny_patch16_224", num_classes=5, **{**small, **kwargs})


def swin() -> nn.Module:
    """Swin of two stages with shifted windows for 16×16 images."""
    torch.manual_seed(0)
    return timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=5, img_size=16, patch_size=2, window_size=4,
        embed_dim=16, depths=[2, 2], num_heads=[2, 4],
    )  # fmt: skip


@pytest.fixture(scope="module", params=["deit", "swin"])
def teacher(request: pytest.FixtureRequest) -> LoadedTeacher:
    model = {"deit": deit, "swin": swin}[request.param]()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))  # fresh biases and tables are all zero
    return teacher_of(model, (3, 16, 16))


def grids_of(teacher: LoadedTeacher, quantizer: str) -> list[str]:
    student = quantize_student(teacher, BITS, quantizer)
    return [name.removeprefix(ACTIVATION_PREFIX) for name in activation_quantizers(student)]


def test_written_out_attention_is_the_fused_one() -> None:
    """The explicit products give the fused operation's values to float rounding."""
    model = deit().eval()
    graph = trace(model, (3, 16, 16))
    assert len(attention_outputs(graph)) == 2
    before = [n.target for n in graph.graph.nodes]
    assert torch.nn.functional.scaled_dot_product_attention in before
    open_attention(graph)
    after = [n.target for n in graph.graph.nodes]
    assert torch.nn.functional.scaled_dot_product_attention not in after
    assert len(attention_outputs(graph)) == 2
    images = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(graph(images), model(images), rtol=1e-5, atol=1e-5)


def test_written_out_attention_keeps_its_mask_and_scale() -> None:
    """Additive masks and a scale of one's own are part of the written-out form."""

    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            q = x.flatten(2)[:, None]
            mask = q.mean(1, keepdim=True).mean(-1, keepdim=True).transpose(-2, -1)
            fused = nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask, scale=0.3)
            return fused.flatten(1)

    graph = trace(Masked(), (4, 2, 3))
    open_attention(graph)
    images = torch.randn(3, 4, 2, 3)
    torch.testing.assert_close(graph(images), Masked()(images), rtol=1e-5, atol=1e-6)


def test_a_causal_attention_is_refused() -> None:
    """What cannot be written out as softmax(qk)v is named."""

    class Causal(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            q = x.flatten(2)
            return nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).flatten(1)

    with pytest.raises(InputError, match="is_causal=True at scaled_dot_product_attention"):
        open_attention(trace(Causal(), (4, 2, 3)))


def test_psaq_list_of_deit() -> None:
    """PSAQ-ViT's ten tensors of each block, and those around the blocks."""
    found = grids_of(teacher_of(deit(), (3, 16, 16)), "vit_minmax")
    fused = "scaled_dot_product_attention"
    block = [
        "blocks_0_norm1", "blocks_0_attn_qkv", f"{fused}_scores", f"{fused}_mixed",
        "blocks_0_attn_proj", "add_1", "blocks_0_norm2", "blocks_0_mlp_act", "blocks_0_mlp_fc2",
        "add_2",
    ]  # fmt: skip
    assert found[:15] == ["x", "patch_embed_proj", "pos_embed", "cat", "add", *block]
    assert len(found) == 5 + 2 * 10 + 2
    assert found[-1] == "head"
    assert found[-2].startswith("getitem")  # the class token alone, of the final LayerNorm


def test_psaq_list_of_swin() -> None:
    """Tables, merging and the pooled vector are on the list; masked scores and softmax are not."""
    teacher = teacher_of(swin(), (3, 16, 16))
    found = grids_of(teacher, "vit_minmax")
    assert found[:8] == [
        "x", "patch_embed_proj", "patch_embed_norm", "layers_0_blocks_0_norm1",
        "layers_0_blocks_0_attn_qkv", "matmul",
        "layers_0_blocks_0_attn_relative_position_bias_table", "add",
    ]  # fmt: skip
    assert found[-3:] == ["norm", "mean", "head_fc"]
    merging = [n for n in found if "downsample" in n]
    assert merging == ["layers_1_downsample_norm", "layers_1_downsample_reduction"]
    assert not [n for n in found if "softmax" in n or "fc1" in n]
    masks = [n for n in teacher.graph.graph.nodes if n.op == "get_attr" and "constant" in n.name]
    masked = {u.name for m in masks for u in m.users if len(m.meta["shape"]) > 1}
    assert masked and not masked & set(found)


def test_every_multiplication_reads_a_grid(teacher: LoadedTeacher) -> None:
    """With vit_lsq only the patch embedding reads floats; both sides of each product are on grids."""
    inspection = inspect_student(quantize_student(teacher, BITS, "vit_lsq"))
    assert [row.name for row in inspection.layers if row.reads is None] == ["patch_embed.proj"]
    products = [row for row in inspection.layers if row.kind == "product"]
    assert len(products) == 2 * len(attention_outputs(teacher.graph))
    assert {(row.bits, row.reads) for row in products} == {(8, 8)}
    floats = {row.name for row in inspection.tensors if row.bits is None}
    sums = {row.name for row in inspection.tensors if row.kind == "add"}
    assert sums and sums <= floats
    assert any("norm1" in row.name and row.bits == 8 for row in inspection.tensors)


def test_a_stream_that_layers_read_too_stays_float() -> None:
    """Where a layer reads the residual stream itself, its grid stands in a port of its own."""

    class PostNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8)
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.head = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x).flatten(2).transpose(1, 2)
            x = x + self.norm(self.first(x))
            x = x + self.norm(self.second(x))
            return self.head(x.mean(1))

    teacher = teacher_of(PostNorm(), (3, 16, 16))
    student = quantize_student(teacher, BITS, "vit_lsq")
    ports = [n for n in student.graph.nodes if n.op == "call_module"]
    ports = [n.name for n in ports if type(student.get_submodule(n.target)) is Branch]
    assert len(ports) == 2
    rows = {row.name: row.bits for row in inspect_student(student).tensors}
    assert rows["add"] is None and rows["add_port"] == 8
    calibrate(student, [torch.randn(4, 3, 16, 16)])
    images = torch.randn(4, 3, 16, 16)
    assert (student(images) - teacher(images)).abs().max() < 0.2


@pytest.mark.parametrize("quantizer", FAMILIES)
def test_eight_bits_are_close_to_the_teacher(teacher: LoadedTeacher, quantizer: str) -> None:
    """At W8A8 a calibrated student's logits are within a few percent of the teacher's spread."""
    student = quantize_student(teacher, Bits(weights=8, activations=8), quantizer)
    images = torch.randn(16, 3, 16, 16)
    calibrate(student, [images])
    with torch.no_grad():
        wanted = teacher(images)
        error = (student(images) - wanted).std() / wanted.std()
    assert error < 0.1


@pytest.mark.parametrize("quantizer", FAMILIES)
def test_everything_learns(teacher: LoadedTeacher, quantizer: str) -> None:
    """Weights, biases, tables, tokens and learned steps get a finite gradient."""
    student = quantize_student(teacher, BITS, quantizer)
    calibrate(student, [torch.randn(8, 3, 16, 16)])
    student(torch.randn(8, 3, 16, 16)).square().mean().backward()
    without = [n for n, p in student.named_parameters() if p.grad is None or p.grad.isnan().any()]
    assert without == []


def test_psaq_weights_to_the_letter() -> None:
    """s = amax / ((2^k - 1) / 2); +amax is clipped to the largest code, 7 of the 7.5 it would need."""
    weight = torch.tensor([[1.0, -0.5, 0.1], [2.0, 0.3, -1.99]])
    quantizer = VitMinMaxWeight(weight, 4)
    scale = torch.tensor([[1.0], [2.0]]) / 7.5
    codes = (weight / scale).round().clamp(-8, 7)
    assert codes[0, 0] == 7 and codes[1, 2] == -7
    torch.testing.assert_close(quantizer(weight), codes * scale)


@pytest.mark.parametrize("batches", [((-1.0, 3.0), (-2.0, 1.0)), ((1.0, 2.0), (1.5, 4.0))])
def test_psaq_activations_to_the_letter(batches: tuple[tuple[float, float], ...]) -> None:
    """Global min and max over batches, and zero; no average; the zero point is held in 0 … 2^k - 1."""
    grid = VitMinMaxActivation(4)
    for low, high in batches:
        grid.observe(torch.tensor([low, high, 0.5 * (low + high)]))
    grid.end_calibration()
    low, high = min(0.0, *(b[0] for b in batches)), max(0.0, *(b[1] for b in batches))
    scale = (high - low) / 15
    zero = min(max(-round(low / scale), 0), 15)
    x = torch.linspace(low - 1, high + 1, 101)
    expected = ((x / scale).add(zero).round().clamp(0, 15) - zero) * scale
    torch.testing.assert_close(grid(x[None])[0], expected)


def test_psaq_ranges_are_those_of_the_float_network(teacher: LoadedTeacher) -> None:
    """While ranges are observed neither weights nor activations are rounded, and afterwards both are."""
    images = torch.randn(8, 3, 16, 16)
    student = quantize_student(teacher, Bits(weights=2, activations=2), "vit_minmax")
    calibrate(student, [images])
    logits = list(activation_quantizers(student).values())[-1]
    wanted = teacher(images)
    torch.testing.assert_close(logits.observer.high, wanted.max())
    assert (student(images) - wanted).abs().max() > 0.1


def test_an_unsupported_layer_is_named() -> None:
    """torch's own attention module hides its products; the message says where it is."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = (
                nn.MultiheadAttention(4, 2, batch_first=True),
                nn.Linear(4, 5),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(2).transpose(1, 2)
            return self.head(self.attention(x, x, x)[0].mean(1))

    with pytest.raises(InputError, match="MultiheadAttention at attention with in_proj_weight"):
        quantize_student(teacher_of(Own(), (4, 4, 4)), BITS, "vit_lsq")


def shared_teacher(folder: Path, name: str) -> LoadedTeacher:
    """A real transformer beside the project."""
    about = json.loads((folder / f"{name}_micro_cifar10_jpeg.json").read_text())
    kwargs = {k: v for k, v in about["kwargs"].items() if k != "num_classes"}
    weights = str(folder / f"{name}_micro_cifar10_jpeg.safetensors")
    return load_teacher(
        Teacher(model=f"timm:{about['model']}", kwargs=kwargs, num_classes=10, weights=weights)
    )


@pytest.mark.parametrize("name", ["deit", "swin"])
def test_real_transformers_keep_their_classes(shared_data: Path, name: str) -> None:
    """Trained weights at W8A8: nearly every noise image keeps its class, with both families."""
    teacher = shared_teacher(shared_data, name)
    images = torch.randn(32, 3, 32, 32)

    def agreement(student: fx.GraphModule) -> float:
        return (student(images).argmax(1) == teacher(images).argmax(1)).float().mean().item()

    for quantizer in FAMILIES:
        student = quantize_student(teacher, Bits(weights=8, activations=8), quantizer)
        calibrate(student, [images])
        with torch.no_grad():
            assert agreement(student) > 0.9, quantizer
