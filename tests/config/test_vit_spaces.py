"""The transformers of the paper's ViT table: the right checkpoints, input and settings."""

from __future__ import annotations

import pytest
import timm

from synq_tune.config.load import load_space
from synq_tune.models.build import build_model

PARAMETERS = {
    "deit_tiny": 5_717_416,
    "deit_small": 22_050_664,
    "swin_tiny": 28_288_354,
    "swin_small": 49_606_258,
}
BITS = ("w4a8", "w8a8", "w4a4")
SPACES = [f"{network}_{bits}" for network in PARAMETERS for bits in BITS]


@pytest.mark.parametrize("name", SPACES)
def test_a_space_has_the_papers_setup(name: str) -> None:
    """PSAQ-ViT's images, learned steps, the paper's crop, and a default that can be searched."""
    spec = load_space(name)
    width, value = (int(c) for c in name if c.isdigit())
    assert (spec.bits.weights, spec.bits.activations) == (width, value)
    assert (spec.quantizer, spec.synthesis.method, spec.synthesis.flip) == ("vit_lsq", "psaq", True)
    assert (spec.synthesis.batch_size, spec.synthesis.iterations) == (32, 1000)
    is_deit = name.startswith("deit")
    assert spec.synthesis.lr == (0.2 if is_deit else 0.25)
    assert spec.teacher.crop_pct == (0.875 if is_deit else 0.9)
    assert spec.teacher.interpolation == "bicubic"
    assert ("cam" in spec.search["cam"].values) == (not is_deit)
    for key, domain in spec.search.items():
        assert domain.contains(getattr(spec.finetune, key)), key


@pytest.mark.parametrize("network", PARAMETERS)
def test_the_checkpoint_is_the_papers(network: str) -> None:
    """timm publishes weights under the exact tag; look-alikes have other ones."""
    teacher = load_space(f"{network}_w4a8").teacher
    name = teacher.model.removeprefix("timm:")
    assert name in timm.list_models(pretrained=True)
    assert name.endswith(".fb_in1k" if network.startswith("deit") else ".ms_in1k")
    assert sum(p.numel() for p in build_model(teacher).parameters()) == PARAMETERS[network]


@pytest.mark.parametrize("network", PARAMETERS)
def test_bit_widths_share_one_dataset(network: str) -> None:
    """Teacher and synthesis do not depend on the bits."""
    specs = [load_space(f"{network}_{bits}") for bits in BITS]
    assert all((s.teacher, s.synthesis) == (specs[0].teacher, specs[0].synthesis) for s in specs)


def test_the_papers_own_grids_are_two_words_away() -> None:
    """What each space's head says to type is valid, and is PSAQ-ViT's scheme on 32 images."""
    words = ["recipe=synq_paper", "quantizer=vit_minmax", "synthesis.num_images=32"]
    spec = load_space("swin_tiny_w4a8", words)
    assert (spec.recipe, spec.quantizer, spec.synthesis.num_images) == (
        "synq_paper", "vit_minmax", 32,
    )  # fmt: skip
    assert (spec.finetune.temperature, spec.finetune.cam_reduction) == (1.0, "sum")
