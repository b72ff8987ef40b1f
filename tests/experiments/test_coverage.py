"""A sample of the coverage table: strangers' networks pass the whole chain or are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synq_tune.experiments.coverage import STAGES, check_parity, walk, walk_any_size
from synq_tune.experiments.coverage_table import coverage_command, read_rows, table
from synq_tune.experiments.model_list import look_at, model_names


@pytest.mark.parametrize(
    ("model", "quantizer"),
    [
        ("timm:test_resnet", "minmax"),
        ("timm:test_efficientnet", "deploy"),
        pytest.param("timm:test_resnet", "deploy", marks=pytest.mark.slow),
        pytest.param("timm:test_efficientnet", "minmax", marks=pytest.mark.slow),
    ],
)
@pytest.mark.long
def test_a_network_passes_the_whole_chain(model: str, quantizer: str, tmp_path: Path) -> None:
    """BatchNorm with activation inside, gates, average pooling in shortcuts."""
    passage = walk(model, 64, tmp_path, quantizer=quantizer)
    assert (passage.passed, passage.error) == (list(STAGES), None)


@pytest.mark.parametrize(
    "model",
    ["torchvision:shufflenet_v2_x0_5", "timm:tf_mobilenetv3_small_075", "timm:semnasnet_050",
     "timm:ghostnet_050", "timm:lcnet_035", "timm:dla46x_c", "timm:eca_resnet33ts"],
)  # fmt: skip
@pytest.mark.slow
def test_more_networks_pass_the_whole_chain(model: str, tmp_path: Path) -> None:
    """Shuffles, padding as in TensorFlow, hard activations, cheap maps, trees, 1-D convolutions."""
    assert walk(model, 64, tmp_path).error is None


@pytest.mark.long
def test_a_transformer_passes_the_whole_chain(tmp_path: Path) -> None:
    """Its images come from psaq, its grids are vit_lsq's."""
    passage = walk("timm:test_vit", 64, tmp_path, "transformer")
    assert (passage.passed, passage.error) == (list(STAGES), None)


def test_differential_attention_is_refused_by_name(tmp_path: Path) -> None:
    """It computes a factor from scalars, which are no maps, with `exp`."""
    passage = walk("timm:vit_dwee_patch16_reg1_gap_256", 64, tmp_path, "transformer")
    assert passage.refused and passage.passed == []
    assert "exp at exp" in passage.error


def test_a_network_that_mixes_weights_is_refused_by_name(tmp_path: Path) -> None:
    """CondConv computes its weights per image: one line says where."""
    passage = walk_any_size("timm:tf_efficientnet_cc_b0_4e", tmp_path)
    assert passage.refused and passage.passed == []
    assert "`weights are parameters of one layer`" in passage.error
    assert "conv2d at conv2d_" in passage.error


@pytest.mark.slow
def test_darknet_passes_the_whole_chain(tmp_path: Path) -> None:
    """Its LeakyReLU is an activation like others."""
    assert walk_any_size("timm:darknet17", tmp_path).error is None


def test_who_is_a_stranger() -> None:
    """CNNs with BatchNorm are; a network without BatchNorm and a transformer are not."""
    assert look_at("timm:resnet18") is not None
    assert look_at("timm:resnet18").parameters == 11_689_512
    assert look_at("torchvision:vgg11") is None
    assert look_at("timm:deit_tiny_patch16_224") is None
    assert {"timm:resnet18", "torchvision:resnet18"} <= set(model_names())


def test_a_different_class_fails_parity() -> None:
    """Unless its two largest logits are as near as rounding."""

    def report(margin: float) -> dict:
        logits = {"exceptions": [{"margin": margin}], "max_difference": 1e-4}
        codes = {"mismatches": 0, "where": {}}
        return {"weight_codes": {"onnx": codes}, "logits": {"onnx ALL": logits}}

    check_parity(report(margin=1e-5))
    with pytest.raises(AssertionError):
        check_parity(report(margin=1e-2))


def test_the_walk_goes_on_where_it_was(tmp_path: Path) -> None:
    """A network in the file is not walked again; the table counts rows per library."""
    from argparse import Namespace

    output = tmp_path / "rows.jsonl"
    done = {"model": "timm:a", "parameters": 1, "passed": list(STAGES), "refused": False,
            "seconds": 1.0, "skipped": False, "error": None}  # fmt: skip
    output.write_text(json.dumps(done) + "\n")
    arguments = Namespace(
        output=output, models=["timm:a", "timm:no_such_model"], part="1/1", report=False,
        max_parameters=1e9, quantizer="minmax", family="cnn",
    )  # fmt: skip
    lines = list(coverage_command(arguments))
    assert [row["model"] for row in read_rows(output)] == ["timm:a", "timm:no_such_model"]
    assert lines[-2:] == [
        "| all | 2 | 1 | 1 | 1 | 1 | 1 | 1 | 50.0 % |",
        lines[-1],
    ]
    assert "Unknown timm model" in lines[-1]
    assert table([done])[2] == "| timm | 1 | 1 | 1 | 1 | 1 | 1 | 0 | 100.0 % |"
