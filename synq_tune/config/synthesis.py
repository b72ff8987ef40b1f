"""The synthetic dataset."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from synq_tune.config.settings import (
    MOST_COUNT,
    AreaRange,
    Count,
    Fraction,
    PathText,
    Seed,
    Settings,
    SynthesisMethod,
)


class Synthesis(Settings):
    """How the synthetic dataset is made from the teacher (SynQ, appendix D)."""

    method: SynthesisMethod = "synq"
    num_images: Count = 5120
    num_holdout: int = Field(512, ge=2, le=MOST_COUNT)
    """Extra images that no trial trains on; student and teacher are compared on them."""
    batch_size: Count = 256
    start: Literal["noise", "shapes"] = "noise"
    """What pixels are before they are optimised: Gaussian noise, or pictures of overlapping shapes, laid
    out like natural images. Shapes want a smaller `lr`, as far moved pixels forget them."""
    iterations: Count = 1000
    center_iterations: Count = 1500
    seed: Seed = 0
    lr: float = Field(0.5, gt=0)
    lr_patience: Count = 50
    """Iterations without a lower loss before the learning rate falls tenfold."""
    min_lr: float = Field(1e-4, ge=0)
    center_lr: float = Field(0.05, gt=0)
    alpha_bns: float = Field(0.4, ge=0)
    """Weight of the BN-statistics loss (α1; α of Eq. 1 for `noise`)."""
    alpha_layered: float = Field(0.02, ge=0)
    """Weight of the layered BN-statistics loss towards the calibration centres (α2)."""
    alpha_center_ce: float = Field(5.0, ge=0)
    """Weight of the cross-entropy while centres are made."""
    focal_beta: float = Field(1.0, ge=0)
    """Weight of the class loss (focal in `synq`, plain cross-entropy in `noise`)."""
    focal_gamma: float = Field(0.5, ge=0)
    """Exponent of (1 - p_label); 0 is plain cross-entropy."""
    alpha_pse: float = Field(1.0, ge=0)
    """Weight of the patches' similarity entropy, which `psaq` maximises."""
    alpha_tv: float = Field(0.05, ge=0)
    """Weight of the distance to the total variation that `psaq` aims at."""
    crop_scale: AreaRange | None = None
    """Area range of the random crop seen by the teacher while pixels are optimised."""
    crop_probability: Fraction = 0.5
    flip: bool = False
    """Mirror images at random while cropping or shifting them; wrong for digits and text."""
    perturbation: float = Field(0.01, ge=0)
    """ε of the difficulty perturbation against the rounded student, in normalised pixels; 0 = off."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the teacher computes in while pixels are optimised (`synq`, `noise`). `bfloat16` is faster on
    a CPU with AMX, on a GPU it was not measured; losses, statistics and pixels stay float32."""
    source: PathText | None = None
    """Folder of PNG files, or an `.npy` file, for `method: images`."""

    @model_validator(mode="after")
    def _source_goes_with_images(self) -> Synthesis:
        if (self.method == "images") != (self.source is not None):
            raise ValueError(
                "`source is given exactly for method 'images'` must hold, but got "
                f"method={self.method!r}, source={self.source!r}."
            )
        return self

    @model_validator(mode="after")
    def _start_fits_method(self) -> Synthesis:
        if self.start != "noise" and self.method == "images":
            raise ValueError(
                "`start is noise` must hold with method 'images', which optimises none, but got "
                f"start={self.start!r}."
            )
        return self

    @model_validator(mode="after")
    def _precision_fits_method(self) -> Synthesis:
        if self.precision != "float32" and self.method in ("psaq", "images"):
            raise ValueError(
                f"`precision is float32` must hold with method {self.method!r}, but got "
                f"precision={self.precision!r}."
            )
        return self
