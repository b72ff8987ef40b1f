"""What an export of a study's trial refuses before it loads anything."""

from __future__ import annotations

import pytest

from synq_tune.commands.export import refuse_shifted_weights
from synq_tune.config.load import load_space
from synq_tune.errors import InputError
from synq_tune.names import known
from synq_tune.quantization.base import quantizer_family


@pytest.mark.parametrize("name", known("quantizer"))
def test_a_hardware_file_of_shifted_weights_is_refused_before_work(name: str) -> None:
    """By the family's own word, so that a new one needs no list here."""
    space = "digits_vit_w4a8" if name.startswith("vit") else "digits_w3a3"
    spec = load_space(space, [f"quantizer={name}"])
    if not quantizer_family(name).weight.has_zero_points:
        refuse_shifted_weights(spec, "hardware")
        return
    with pytest.raises(InputError, match=f"zero point 0.*quantizer={name}"):
        refuse_shifted_weights(spec, "hardware")
