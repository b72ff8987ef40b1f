"""The synthetic dataset: one class for each thing that its settings decide; the YAML is flat.

A method's own settings are composed of these classes. Its datasets are filed under their values,
and it is given nothing else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

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
    ordered,
)

_Distance = Annotated[float, Field(ge=0, le=2)]


class DatasetSettings(Settings):
    """How many images a dataset has."""

    num_images: Count = 5120
    """Images that trials train on."""
    num_holdout: int = Field(512, ge=2, le=MOST_COUNT)
    """Extra images that no trial trains on; student and teacher are compared on them."""


class BatchSettings(DatasetSettings):
    """Batches of images, each optimised for so many iterations."""

    batch_size: Count = 256
    """Images that are optimised together."""
    iterations: Count = 1000
    """Updates of each batch."""
    seed: Seed = 0
    """Of labels and starts."""


class CanvasSettings(BatchSettings):
    """Batches whose parts all learn at one rate."""

    lr: float = Field(0.5, gt=0)
    """Learning rate of pixels (Adam)."""


class StartSettings(Settings):
    """What optimised pixels start from."""

    start: Literal["noise", "shapes"] = "noise"
    """What pixels are before they are optimised: Gaussian noise, or pictures of overlapping shapes,
    which want a smaller `lr`."""


class PlateauSettings(Settings):
    """A learning rate that falls where the loss no longer does."""

    lr_patience: Count = 50
    """Iterations without a lower loss before the learning rate falls tenfold."""
    min_lr: float = Field(1e-4, ge=0)
    """Below it the learning rate falls no further."""


class PrecisionSettings(Settings):
    """What the teacher computes in."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """What the teacher computes in while pixels are optimised; the rest stays float32. `bfloat16`
    is faster on a CPU with AMX."""


class MarginSettings(Settings):
    """Pixels beyond the image, and how sharp it may be."""

    margin: Annotated[int, AddedLater(), Field(ge=0, le=512)] = 0
    """Pixels on each side by which the canvas is larger than the image, its middle. The teacher is
    shown random cut-outs of it."""
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
    """What `synq` and `zeroq` compare: variances, as SynQ's released code, or standard deviations,
    as Eq. 1, ZeroQ and `noise`."""


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
    """Exponent of (1 - p_label), the class loss's weight of an image; 0 weighs all alike."""


class SoftTargetSettings(Settings):
    """Labels that need not be certain."""

    soft_target: Annotated[Fraction | None, AddedLater()] = None
    """Least probability of its label that an image is drawn to, by the squared error (IntraQ); half
    of the images are drawn to 1. `null` = off."""


class BandSettings(Settings):
    """How like each other images of a class may be."""

    alpha_band: Annotated[float, AddedLater(), Field(ge=0)] = 0.0
    """Weight of keeping each image's features within `band_limits` of the mean of its class in
    finished batches (IntraQ); 0 = off."""
    band_limits: Annotated[tuple[_Distance, _Distance], AddedLater(), AfterValidator(ordered)] = (
        0.05,
        0.8,
    )
    """Least and largest distance, 1 - cosine, in [0, 2]."""


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


class GeneratorSettings(Settings):
    """Latents and a small network that makes images of them, each with a rate of its own."""

    latent_dim: Annotated[int, AddedLater(), Field(ge=1, le=65_536)] = 256
    """Numbers that an image is made of."""
    generator_width: Annotated[int, AddedLater(), Field(ge=2, le=65_536)] = 128
    """Channels of the generator's first maps, a quarter of the image wide; the second have half."""
    lr_latent: Annotated[float, AddedLater(), Field(gt=0)] = 0.1
    """Of the latents; falls to `min_lr` where the loss does not."""
    lr_generator: Annotated[float, AddedLater(), Field(gt=0)] = 0.01
    """Of the generator's weights; falls steadily."""
    generator_decay: Annotated[float, AddedLater(), Field(gt=0, le=1)] = 0.95
    """Factor on `lr_generator` after every `generator_decay_every` iterations."""
    generator_decay_every: Annotated[Count, AddedLater()] = 100
    """Iterations between two falls of `lr_generator`."""


class SwingSettings(Settings):
    """Convolutions that do not stand still."""

    swing: Annotated[bool, AddedLater()] = True
    """Shift what every strided convolution of the teacher reads by up to a pixel, anew in each
    iteration, so that no pixel is seen more often than its neighbours."""


class PriorSettings(Settings):
    """What is known of every image."""

    alpha_prior: Annotated[float, AddedLater(), Field(ge=0)] = 1.0
    """Weight of the distance of each image's mean and deviation from 0 and 1, over the loss on
    BatchNorm statistics."""


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
    BandSettings,
    SoftTargetSettings,
    SpreadSettings,
    CropSettings,
    FlipSettings,
    FocalSettings,
    CenterSettings,
    NoiseSettings,
):
    """All that changes what `synq` makes, before the perturbation."""


class ZeroqSettings(
    PriorSettings,
    SpreadSettings,
    MarginSettings,
    PrecisionSettings,
    PlateauSettings,
    StartSettings,
    CanvasSettings,
):
    """All that changes what `zeroq` makes; where nothing is asked it compares deviations."""

    spread: Annotated[Literal["variance", "deviation"], AddedLater()] = "deviation"


class PsaqSettings(PatchSettings, FlipSettings, ClassLossSettings, StartSettings, CanvasSettings):
    """All that changes what `psaq` makes."""


class GenieSettings(
    PriorSettings,
    SwingSettings,
    GeneratorSettings,
    PrecisionSettings,
    PlateauSettings,
    BatchSettings,
):
    """All that changes what `genie` makes; counts where nothing is asked are the paper's."""

    num_images: Count = 1024
    batch_size: Count = 128
    iterations: Count = 4000
    lr_patience: Count = 100


class ImportSettings(SourceSettings, DatasetSettings):
    """All that changes what `images` reads; datasets are filed under the content of `source`."""


METHOD_SETTINGS: dict[str, type[Settings]] = {
    "synq": SynqSettings,
    "psaq": PsaqSettings,
    "genie": GenieSettings,
    "zeroq": ZeroqSettings,
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
    "soft_target": "",
    "alpha_band": "",
    "band_limits": "",
    **dict.fromkeys(GeneratorSettings.model_fields, ", which has no generator"),
    "swing": "",
    "alpha_prior": "",
}
"""Setting → why it is refused, rather than ignored, where a method does not read it."""
_INSTEAD = {"lr": ("lr_latent", "lr_generator")}
"""Setting → those that a method may have in its place; it is refused there."""


class Synthesis(
    PriorSettings,
    SwingSettings,
    GeneratorSettings,
    PerturbationSettings,
    SourceSettings,
    PatchSettings,
    SynqSettings,
):
    """How the synthetic dataset is made from the teacher (SynQ, appendix D)."""

    method: SynthesisMethodName = "synq"
    """How images are made: `synq`, `genie`, `zeroq` and `noise` need BatchNorm, `psaq` attention,
    `images` takes your own."""

    @model_validator(mode="before")
    @classmethod
    def _what_a_method_asks_itself(cls, tree: Any) -> Any:
        """Where nothing is asked, a method's own default holds."""
        method = tree.get("method") if isinstance(tree, dict) else None
        settings = METHOD_SETTINGS.get(method) if isinstance(method, str) else None
        return {**cls._defaults_of(settings), **tree} if settings else tree

    @classmethod
    def _defaults_of(cls, settings: type[Settings]) -> dict[str, Any]:
        ours = cls.model_fields
        return {
            key: field.default
            for key, field in settings.model_fields.items()
            if key in ours and field.default != ours[key].default
        }

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

    @model_validator(mode="after")
    def _rates_only_fall(self) -> Self:
        is_read = "lr_latent" in METHOD_SETTINGS.get(self.method, Settings).model_fields
        if is_read and self.min_lr > self.lr_latent:
            raise ValueError(
                f"`min_lr <= lr_latent` must hold with method {self.method!r}, but got "
                f"min_lr={self.min_lr}, lr_latent={self.lr_latent}."
            )
        return self

    def refusal(self, settings: type[Settings]) -> str | None:
        """What to say where a method with these settings would ignore what was asked for; None is
        fine."""
        fields = settings.model_fields
        replaced = {
            key: f", whose rates are {' and '.join(others)}"
            for key, others in _INSTEAD.items()
            if set(others) <= fields.keys()
        }
        for key, why in (_REFUSED | replaced).items():
            value, default = getattr(self, key), type(self).model_fields[key].default
            if value != default and key not in fields:
                return (
                    f"`{key} is {default}` must hold with method {self.method!r}{why}, but got "
                    f"{key}={value!r}. `--set synthesis.{key}=null` unsets it."
                )
        return None
