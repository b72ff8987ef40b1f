"""Codes of k bits in k bits: a little-endian bit stream without gaps."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` take."""
    return math.ceil(count * bits / 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Signed codes -2^(k-1) … 2^(k-1) - 1 of any shape → uint8 (packed_size,).

    Code i, counted from 0, fills bits i·k … i·k + k - 1 of the stream, lowest bit first.

    Raises:
        ValueError: a code does not fit.
    """
    unsigned = codes.detach().cpu().flatten().to(torch.int16) + 2 ** (bits - 1)
    if unsigned.numel() and (unsigned.min() < 0 or unsigned.max() >= 2**bits):
        raise ValueError(
            f"`codes fit {bits} bits` must hold, but got {int(codes.min())} … {int(codes.max())}."
        )
    column = unsigned.to(torch.uint8).numpy()[:, None]
    stream = np.unpackbits(column, axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(stream, bitorder="little"))


def unpack(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """Inverse of `pack`: int8 codes of `shape`."""
    count = math.prod(shape)
    stream = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little")
    unsigned = np.packbits(stream.reshape(count, bits), axis=1, bitorder="little").reshape(-1)
    signed = torch.from_numpy(unsigned).to(torch.int16) - 2 ** (bits - 1)
    return signed.to(torch.int8).view(shape)
