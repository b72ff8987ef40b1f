"""Fine-tuning one quantized copy: one class for each thing that its settings decide; the YAML is
flat."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from synq_tune.config.generator_source import GeneratorSourceSettings, rising_epochs
from synq_tune.config.settings import (
    AreaRange,
    CamTechnique,
    Count,
    Fraction,
    Range01,
    Settings,
    SourceName,
    Text,
)


class TransformSettings(Settings):
    """What a view of an image is: cropped, mirrored, mixed, filtered."""

    d0: float | None = Field(80.0, gt=0)
    """Cut-off of the Gaussian low-pass filter in frequency bins (Eq. 4); `null` = no filter."""
    filter_before_crop: bool = False
    """Filter the dataset once (paper) instead of each crop (released code)."""
    crop_scale: AreaRange | None = (0.5, 1.0)
    """Area range of the random crop of a view; `null` = no crop."""
    flip: bool = True
    """Mirror views at random; wrong for digits and text."""
    mix_weight: Range01 | None = None
    """Range of an image's own weight where each view is blended with a view of another image;
    `null` = no blending."""
    mix_keeps_variance: bool = False
    """Give blends the contrast of a single image: divide them by the root of their squared weights'
    sum (Tokozume et al., 2018)."""
    paste_probability: float = Field(0.0, ge=0, le=1)
    """Share of the views in which a patch of the other image is pasted instead of blended (CutMix,
    Yun et al., 2019); it covers 1 minus `mix_weight` of the area."""
    num_views: int = Field(8, ge=1, le=10_000)
    """Views (crop, flip, blend or patch, teacher outputs) kept per image; epoch e uses view e mod
    num_views."""

    @model_validator(mode="after")
    def _patches_have_a_size(self) -> Self:
        if self.paste_probability > 0 and self.mix_weight is None:
            raise ValueError(
                "`mix_weight is set` must hold with paste_probability, but got mix_weight=None. "
                "Set finetune.mix_weight, such as [0.5, 1.0]."
            )
        return self


class SaliencySettings(Settings):
    """What the teacher is asked to explain."""

    cam_class: Literal["label", "argmax"] = "label"
    """Whose score is explained: the image's label, or the teacher's own class."""
    cam_layer: Text | None = None
    """Module whose output is explained. `null` = the last convolution with H·W > 1, or the last
    LayerNorm whose patches still count."""
    cam_floor: bool = False
    """Floor channel weights at 1e-10 (released code)."""


class ViewSettings(SaliencySettings, TransformSettings):
    """All that changes a view or what the teacher says about it: the key of the teacher's cache."""


class OptimizerSettings(Settings):
    """How weights, steps and biases follow their gradients."""

    optimizer: Literal["adam", "sgd"] = "sgd"
    """`adam` decays weights decoupled from the gradient (AdamW), β = (momentum, 0.999)."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate at the start."""
    lr_relative: bool = False
    """Rates and `grad_clip` are shares of a size at the start: an output channel's in quantized
    weights, elsewhere the whole tensor's."""
    step_lr_factor: float = Field(1.0, gt=0)
    """Learning rate of learned steps (`lsq`, `deploy`, `genie`) over `lr`; the logarithm learns, so
    that steps move in proportion to their size."""
    norm_lr_factor: float = Field(1.0, gt=0)
    """Learning rate of BatchNorm's factors and of biases over `lr`. They shift whole channels
    towards what only synthetic images show."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of `sgd`; the first of the β of `adam`."""
    nesterov: bool = True
    """Of `sgd`."""
    weight_decay: float = Field(1e-4, ge=0)
    """Pull of weights towards 0."""
    schedule: Literal["constant", "cosine", "exponential", "multistep"] = "cosine"
    """How the rate falls over a trial."""
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of all updates over which the rate rises to the schedule's, in proportion to the
    updates."""
    final_lr_factor: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end over the one at the start, for `cosine` and `exponential`."""
    milestones: tuple[int, ...] = ()
    """Epochs (0-based) at which `multistep` divides the learning rate by ten."""
    grad_clip: float | None = Field(None, gt=0)
    """Largest global gradient norm."""
    inundation: Fraction = 0.0
    """Share of each weight's codes that an update changes at least (AIT): it is made larger until
    they do. Falls with the rate, goes with `weight_decay` 0; 0 = off."""
    inundation_cap: float = Field(100.0, ge=1)
    """The most that an update is multiplied by."""

    @field_validator("milestones")
    @classmethod
    def _milestones_rise(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        return rising_epochs(milestones)

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("`momentum > 0` must hold with nesterov, but got momentum=0.")
        return self

    @model_validator(mode="after")
    def _inundated_weights_do_not_decay(self) -> Self:
        if self.inundation > 0 and self.weight_decay > 0:
            raise ValueError(
                "`weight_decay == 0` must hold with inundation, which would enlarge the decay, but got "
                f"weight_decay={self.weight_decay}. Set finetune.weight_decay=0."
            )
        return self


class LossSettings(Settings):
    """What the student is trained to lower."""

    temperature: float = Field(4.0, gt=0)
    """T, by which both networks' logits are divided for distillation."""
    kd_weight: float = Field(1.0, ge=0)
    """Weight on T² · KL(teacher ‖ student), averaged over the batch (`batchmean`)."""
    kd_reduction: Literal["batchmean", "mean"] = "batchmean"
    """Average the KL over the batch, or over batch and classes (GDFQ's code): a K-th of it."""
    gap_weight: float = Field(0.0, ge=0)
    """Weight on T² · (ln K - entropy of the teacher's minus the student's logits over T), by which
    AdaSG and AdaDFQ distil instead (`kd_weight` 0)."""
    lambda_ce: float = Field(0.005, ge=0)
    """Weight of the cross-entropy with the labels of the synthetic images."""
    tau: Fraction | None = 0.5
    """Samples with difficulty above τ give no cross-entropy with their label (Eq. 6); `null` = all
    do."""
    mask_strict: bool = False
    """Keep difficulty < τ (released code) instead of ≤ τ (Eq. 6)."""
    mask_by: Literal["entropy", "label"] = "label"
    """What difficulty is: 1 - the teacher's probability of the label (Eq. 3), or the entropy of its
    answer over ln K (after PLF)."""
    masked_target: Literal["nothing", "teacher"] = "nothing"
    """What cross-entropy asks of samples above τ: nothing, or the teacher's own answer (after
    PLF)."""
    cam: CamTechnique = "gradcam"
    """Which maps are aligned."""
    lambda_cam: float = Field(20.0, ge=0)
    """Weight of the CAM alignment (Eq. 5); 0 = off."""
    cam_normalize: bool = True
    """Per-image min-max of the maps before they are compared."""
    cam_reduction: Literal["mean", "sum"] = "mean"
    """Squared difference averaged over a map's cells, or summed (the Frobenius norm of Eq. 5)."""
    cam_resize: bool = False
    """Compare maps resized to the input (released code)."""
    feature_weight: float = Field(0.0, ge=0)
    """Weight of channel-attention alignment (FA, released code)."""
    perturbation_weight: float = Field(0.0, ge=0)
    """Weight of the losses on images perturbed against the student at each step (released code)."""
    perturbation_epsilon: float = Field(0.01, ge=0)
    """Its size, in normalised pixels."""


class RangeSettings(Settings):
    """How ranges are found before training."""

    calibration_batches: int = Field(16, ge=1, le=1_000_000)
    """Batches on which ranges are observed."""
    clip_weights: bool = False
    """Clip each channel's weights to the range of least rounding error before training
    (`minmax`)."""
    correct_norms: bool = False
    """Correct each BatchNorm for what rounding the weights did to its input, before ranges are
    found: depthwise layers lose their mean at 4 bits and fewer."""
    range_share: float = Field(1.0, gt=0, le=1)
    """Share of each observed range that a grid of values covers (`minmax`). What lies beyond is
    clipped and passes no gradient; 1 is the paper's."""


class FineTune(
    GeneratorSourceSettings, RangeSettings, ViewSettings, LossSettings, OptimizerSettings
):
    """One trial's training; every difference between recipes is a field of this class."""

    source: SourceName = "views"
    """Where batches come from: the stored views, a generator that trains along, or a source of your
    own."""
    epochs: int = Field(100, ge=0, le=1_000_000)
    """0 is calibration only."""
    batch_size: Count = 256
    """Images of an update."""
    steps_per_epoch: Count | None = None
    """`null` = one pass over the training part."""
