"""Images that are too many to be floats at once."""

from __future__ import annotations

import torch
from torch import Tensor

from synq_tune.data.batches import MOST_IMAGES, ImageBatches, ImagePart


def test_batches_hold_every_image_once_in_order() -> None:
    """Parts follow each other, rows choose, no batch is larger than the most."""
    images = torch.arange(MOST_IMAGES + 3, dtype=torch.uint8)[:, None]
    parts = (
        ImagePart(images, torch.tensor([1, 4]), Tensor.double),
        ImagePart(images, None, Tensor.float),
    )
    batches = list(ImageBatches(parts))
    assert [len(b) for b in batches] == [2, MOST_IMAGES, 3]
    assert torch.cat(batches).flatten().tolist() == [1, 4, *images.flatten().tolist()]
    assert [b.dtype for b in batches] == [torch.float64, torch.float32, torch.float32]
    assert len(ImageBatches(parts)) == MOST_IMAGES + 5
