"""k-bit packing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synq_tune.export.packing import pack, packed_size, unpack


@given(st.data(), st.integers(2, 8))
def test_round_trip_is_exact(data: st.DataObject, bits: int) -> None:
    """Any codes of 2 to 8 bits come back, from exactly k bits each."""
    code = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    codes = torch.tensor(data.draw(st.lists(code, max_size=40)), dtype=torch.int8)
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == packed_size(len(codes), bits)
    assert torch.equal(unpack(packed, bits, tuple(codes.shape)), codes)


def test_bit_order_is_as_documented() -> None:
    """From the lowest bit on: the 3-bit codes -4, -3, 3 are 0, 1, 7, one after the other."""
    assert pack(torch.tensor([-4, -3, 3]), 3).tolist() == [0b11001000, 0b1]


def test_a_code_that_does_not_fit_is_refused() -> None:
    """No silent wrap-around."""
    with pytest.raises(ValueError, match="codes fit 3 bits"):
        pack(torch.tensor([4]), 3)
