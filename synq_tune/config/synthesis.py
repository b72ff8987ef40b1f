"""The synthetic dataset: one class for each thing that its settings decide; the YAML is flat.

A method's own settings are composed of these classes. Its datasets are filed under their values,
and it is given nothing else.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from synq_tune.config.settings import (
    MOST_COUNT,
    AddedLater,
    AreaRange,
    Count,
    Fraction,
    PathText,
    Seed,
    Settings,
    SynthesisMethodName,
)


class DatasetSettings(Settings):
    """How many images a dataset has."""

    num_images: Count = 5120
    """Images that trials train on."""
    num_holdout: int = Field(512, ge=2, le=MOST_COUNT)
    """Extra images that no trial trains on; student and teacher are compared on them."""


class CanvasSettings(DatasetSettings):
    """Batches of images, each optimised for so many iterations."""

    batch_size: Count = 256
    """Images that are optimised together."""
    iterations: Count = 1000
    """Updates of each batch."""
    seed: Seed = 0
    """Of labels and starts."""
    lr: float = Field(0.5, gt=0)
    """Learning rate of pixels (Adam)."""


class StartSettings(Settings):
    """What optimised pixels start from."""

    start: Literal["noise", "shapes"] = "noise"
    """What pixels are before they are optimised: Gaussian noise, or pictures of overlapping shapes,
    laid out like natural images. Shapes want a smaller `lr`, as far moved pixels forget them."""


class PlateauSettings(Settings):
    """A learning rate that falls where the loss no longer does."""

    lr_patience: Count = 50
    """Iterations without a lower loss before the learning rate falls tenfold."""
    min_lr: float = Field(1e-4, ge=0)
    """Below it the learning rate falls no further."""


class PrecisionSettings(Settings):
    """What the teacher computes in."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """What the teacher computes in while pixels are optimised (`synq`, `noise`). `bfloat16` is
    faster on a CPU with AMX, on a GPU it was not measured; losses, statistics and pixels stay
    float32."""


class MarginSettings(Settings):
    """Pixels beyond the image, and how sharp it may be."""

    margin: Annotated[int, AddedLater(), Field(ge=0, le=512)] = 0
    """Pixels on each side that belong to the canvas: the teacher is shown a random cut-out of the
    image's size in each iteration, the image is the one in the middle."""
    smoothing: Annotated[float, AddedLater(), Field(ge=0, le=8)] = 0.0
    """Standard deviation in pixels of the Gaussian between canvas and image; 0 = none."""


class LabelSettings(Settings):
    """Which classes images are made for."""

    labels: Annotated[Literal["random", "even"], AddedLater()] = "random"
    """`random` draws each label by itself, `even` gives every class equally many images, or none
    twice where there are more classes than images."""


class ClassLossSettings(Settings):
    """The loss on the images' labels."""

    focal_beta: float = Field(1.0, ge=0)
    """Weight of the class loss (focal in `synq`, plain cross-entropy in `noise`)."""


class StatisticsSettings(Settings):
    """The loss on BatchNorm statistics."""

    alpha_bns: float = Field(0.4, ge=0)
    """Weight of the BN-statistics loss (α1; α of Eq. 1 for `noise`)."""


class SpreadSettings(Settings):
    """What of a layer's values is compared beside their mean."""

    spread: Annotated[Literal["variance", "deviation"], AddedLater()] = "variance"
    """`synq` compares variances, as its released code does, or standard deviations, as the paper's
    Eq. 1 and `noise` do: a few layers with large variances then no longer decide alone."""


class CenterSettings(Settings):
    """Calibration centres, one image a class."""

    center_iterations: Count = 1500
    """Updates of the calibration centres."""
    center_lr: float = Field(0.05, gt=0)
    """Their learning rate."""
    alpha_layered: float = Field(0.02, ge=0)
    """Weight of the layered BN-statistics loss towards the calibration centres (α2); at 0 no centres are
    made, which saves an image a class."""
    alpha_center_ce: float = Field(5.0, ge=0)
    """Weight of the cross-entropy while centres are made."""


class FlipSettings(Settings):
    """Whether images may be mirrored."""

    flip: bool = False
    """Mirror images at random while cropping or shifting them; wrong for digits and text."""


class CropSettings(Settings):
    """What crops the teacher is shown."""

    crop_scale: AreaRange | None = None
    """Area range of the random crop seen by the teacher while pixels are optimised."""
    crop_probability: Fraction = 0.5
    """Share of the iterations in which `synq` crops."""


class FocalSettings(Settings):
    """The focal form of the class loss."""

    focal_gamma: float = Field(0.5, ge=0)
    """Exponent of (1 - p_label); 0 is plain cross-entropy."""


class PatchSettings(Settings):
    """Losses on a transformer's patches."""

    alpha_pse: float = Field(1.0, ge=0)
    """Weight of the patches' similarity entropy, which `psaq` maximises."""
    alpha_tv: float = Field(0.05, ge=0)
    """Weight of the distance to the total variation that `psaq` aims at."""


class PerturbationSettings(Settings):
    """The step that makes finished images harder."""

    perturbation: float = Field(0.01, ge=0)
    """ε of the difficulty perturbation against the rounded student, in normalised pixels; 0 =
    off."""


class SourceSettings(Settings):
    """Images that are brought along."""

    source: PathText | None = None
    """Folder of PNG files, or an `.npy` file, for `method: images`."""


class PixelSettings(
    LabelSettings, MarginSettings, PrecisionSettings, PlateauSettings, StartSettings, CanvasSettings
):
    """What `synq` and `noise` optimise pixels with."""


class NoiseSettings(StatisticsSettings, ClassLossSettings, PixelSettings):
    """All that changes what `noise` makes."""


class SynqSettings(
    SpreadSettings, CropSettings, FlipSettings, FocalSettings, CenterSettings, NoiseSettings
):
    """All that changes what `synq` makes, before the perturbation."""


class PsaqSettings(PatchSettings, FlipSettings, ClassLossSettings, StartSettings, CanvasSettings):
    """All that changes what `psaq` makes."""


class ImportSettings(SourceSettings, DatasetSettings):
    """All that changes what `images` reads; datasets are filed under the content of `source`."""


METHOD_SETTINGS: dict[str, type[Settings]] = {
    "synq": SynqSettings,
    "psaq": PsaqSettings,
    "noise": NoiseSettings,
    "images": ImportSettings,
}
"""Method → its own settings. The user's own are not here: no code is loaded to check settings."""

_REFUSED = {
    "start": ", which optimises none",
    "precision": "",
    "margin": "",
    "smoothing": "",
    "labels": "",
    "spread": "",
}
"""Setting → why it is refused, rather than ignored, where a method does not read it."""


class Synthesis(PerturbationSettings, SourceSettings, PatchSettings, SynqSettings):
    """How the synthetic dataset is made from the teacher (SynQ, appendix D)."""

    method: SynthesisMethodName = "synq"
    """How images are made: `synq` and `noise` need BatchNorm, `psaq` attention, `images` takes your own."""

    @model_validator(mode="after")
    def _source_goes_with_images(self) -> Self:
        settings = METHOD_SETTINGS.get(self.method, Settings)
        if ("source" in settings.model_fields) != (self.source is not None):
            raise ValueError(
                "`synthesis.source is named for method images and for no other` must hold, but got "
                f"method={self.method!r}, source={self.source!r}."
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        settings = METHOD_SETTINGS.get(self.method)
        refusal = self.refusal(settings) if settings else None
        if refusal:
            raise ValueError(refusal)
        return self

    def refusal(self, settings: type[Settings]) -> str | None:
        """What to say where a method with these settings would ignore what was asked for; None is
        fine."""
        for key, why in _REFUSED.items():
            value, default = getattr(self, key), type(self).model_fields[key].default
            if value != default and key not in settings.model_fields:
                return (
                    f"`{key} is {default}` must hold with method {self.method!r}{why}, but got "
                    f"{key}={value!r}."
                )
        return None
