"""The Gaussian low-pass filter of SynQ's first idea (Eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor


def _squared_frequencies(count: int, num_kept: int, device: torch.device) -> Tensor:
    index = torch.arange(num_kept, device=device, dtype=torch.float32)
    return torch.minimum(index, count - index).square()


def gaussian_gain(height: int, width: int, d0: float, device: torch.device | str = "cpu") -> Tensor:
    """Gain exp(-D² / (2 D0²)) of each bin of a real 2-D FFT, (H, W//2 + 1).

    D is the distance in bins from the zero frequency, so one D0 means different things at different
    image sizes: 80 is nearly all-pass at 32 px and severe at 224 px.
    """
    device = torch.device(device)
    rows = _squared_frequencies(height, height, device)
    columns = _squared_frequencies(width, width // 2 + 1, device)
    return torch.exp(-(rows[:, None] + columns[None, :]) / (2.0 * d0**2))


def low_pass(images: Tensor, d0: float | None) -> Tensor:
    """Filter each channel in the frequency domain: F⁻¹(G ⊙ F(x)).

    Args:
        images: (N, C, H, W), normalised; float16 is filtered in float32.
        d0: cut-off in frequency bins, > 0; None returns the images as they are.

    Returns:
        (N, C, H, W) float32; each channel's mean is kept.
    """
    if d0 is None:
        return images.float()
    gain = gaussian_gain(*images.shape[-2:], d0, images.device)
    spectrum = torch.fft.rfft2(images.float()) * gain
    return torch.fft.irfft2(spectrum, s=images.shape[-2:])


def energy_kept(images: Tensor, d0: float | None) -> float:
    """Share of the images' energy around their mean that the filter lets through, in [0, 1]."""

    def energy(x: Tensor) -> Tensor:
        return (x - x.mean((-2, -1), keepdim=True)).square().sum()

    return float(energy(low_pass(images, d0)) / energy(images.float()).clamp_min(1e-12))
