"""The Gaussian low-pass filter."""

from __future__ import annotations

import pytest
import torch

from synq_tune.views.low_pass import energy_kept, gaussian_gain, low_pass


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (32, 32), (5, 12)])
@pytest.mark.parametrize("d0", [1.0, 3.0, 20.0])
def test_it_equals_the_shifted_form(size: tuple[int, int], d0: float) -> None:
    """Same as the paper's: shift the spectrum, multiply by exp(-D²/(2 D0²)), shift back."""
    height, width = size
    images = torch.randn(2, 3, height, width)
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    squared = (v - height // 2) ** 2 + (u - width // 2) ** 2
    shifted = torch.fft.fftshift(torch.fft.fft2(images), dim=(-2, -1))
    filtered = shifted * torch.exp(-squared / (2 * d0**2))
    expected = torch.fft.ifft2(torch.fft.ifftshift(filtered, dim=(-2, -1))).real
    torch.testing.assert_close(low_pass(images, d0), expected, rtol=1e-4, atol=1e-5)


def test_no_cutoff_is_the_identity() -> None:
    """None switches the idea off; a huge cut-off comes to the same."""
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(low_pass(images, None), images)
    torch.testing.assert_close(low_pass(images, 1e4), images)


def test_the_mean_is_kept_and_energy_falls_with_d0() -> None:
    """Gain 1 at frequency zero; a lower cut-off keeps less."""
    images = torch.randn(8, 3, 32, 32) + 2
    torch.testing.assert_close(low_pass(images, 2.0).mean((2, 3)), images.mean((2, 3)))
    kept = [energy_kept(images, d0) for d0 in (2, 8, 20, 80, None)]
    assert kept == sorted(kept)
    assert kept[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(("d0", "share"), [(8, 0.19), (20, 0.68), (40, 0.90), (80, 0.97)])
def test_share_of_white_noise_kept_at_32_pixels(d0: float, share: float) -> None:
    """The paper's whole range of D0 is nearly all-pass at 32 px."""
    assert energy_kept(torch.randn(64, 3, 32, 32), d0) == pytest.approx(share, abs=0.01)


def test_the_gain_is_that_of_half_a_spectrum() -> None:
    """(H, W//2 + 1), 1 at zero."""
    gain = gaussian_gain(6, 8, 2.0)
    assert gain.shape == (6, 5)
    assert gain[0, 0] == 1.0
    assert gain[0, 1] == gain[1, 0] == gain[5, 0]
