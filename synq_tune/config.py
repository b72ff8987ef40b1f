"""The shapes of a study: frozen, validated settings in which an unknown key is an error.

Importing this module loads neither torch nor Ray, so that a wrong space is refused in milliseconds
and a study's header is on disk before anything heavy starts. The `*_NAMES` tuples repeat the keys of
the dicts in the rooms that implement them; a test holds the two together.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from synq_tune import own_code
from synq_tune.errors import lookup

FORMAT = 1

CAM_NAMES = ("cam", "gradcam", "gradcam++")
QUANTIZER_NAMES = ("minmax", "lsq", "deploy", "vit_minmax", "vit_lsq")
SYNTHESIS_NAMES = ("synq", "psaq", "noise", "images")
BUNDLED_MODELS = (
    "cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56", "digits_resnet26",
    "digits_vit",
)  # fmt: skip
MODEL_PREFIXES = ("timm", "torchvision", "pytorchcv", "python")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
BitWidth = Annotated[int, Field(ge=2, le=8)]
Range01 = tuple[Fraction, Fraction]


class Settings(BaseModel):
    """Frozen; unknown keys, NaN and infinity are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _file_to_weights(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


class Weights(Settings):
    """Where the teacher's checkpoint comes from; all `null` means the library's own download."""

    file: str | None = None
    """safetensors, or a `.pth` that holds tensors only."""
    url: str | None = None
    sha1: str | None = None
    """Hex digest (or its first 8 digits or more) of the file."""


class Teacher(Settings):
    """The pre-trained network and the input it expects; `null` is taken from its library."""

    model: str
    weights: Annotated[Weights, BeforeValidator(_file_to_weights)] = Weights()
    kwargs: dict[str, Any] = {}
    """Keyword arguments of the model's constructor."""
    input_size: int | tuple[int, int] | None = None
    """Pixels, or [height, width]."""
    channels: int = Field(3, ge=1)
    num_classes: int | None = Field(None, ge=2)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop_pct: float | None = Field(None, gt=0, le=1)
    interpolation: str | None = None
    class_names: tuple[str, ...] | None = None

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        if own_code.is_own_code(model):
            own_code.parse(model)
            return model
        prefix, colon, name = model.partition(":")
        if colon and name and prefix in MODEL_PREFIXES:
            return model
        return lookup("model", model, (*BUNDLED_MODELS, *(f"{p}:NAME" for p in MODEL_PREFIXES)))

    @field_validator("interpolation")
    @classmethod
    def _known_interpolation(cls, name: str | None) -> str | None:
        return name if name is None else lookup("interpolation", name, INTERPOLATIONS)

    @model_validator(mode="after")
    def _normalisation_fits_channels(self) -> Teacher:
        for key in ("mean", "std"):
            values = getattr(self, key)
            if values is not None and len(values) != self.channels:
                raise ValueError(
                    f"`len({key}) == channels` must hold, but got {key}={list(values)}, "
                    f"channels={self.channels}."
                )
        return self


class Bits(Settings):
    """Bit widths of weights and activations, 2 to 8."""

    weights: BitWidth
    activations: BitWidth
    first: BitWidth | None = None
    """Weights of the first quantized layer and the first tensor with a grid (with `deploy` the
    network's input, else the first activation); `null` = as the others."""
    last: BitWidth | None = None
    """Weights of the last quantized layer and the last tensor with a grid."""
    overrides: dict[str, BitWidth] = {}
    """Glob over layer names → bits of its weights (a layer) or of its values (an activation)."""


class Synthesis(Settings):
    """How the synthetic dataset is made from the teacher (SynQ, appendix D)."""

    method: str = "synq"
    num_images: int = Field(5120, ge=1)
    num_holdout: int = Field(512, ge=2)
    """Extra images that no trial trains on; student and teacher are compared on them."""
    batch_size: int = Field(256, ge=1)
    iterations: int = Field(1000, ge=1)
    center_iterations: int = Field(1500, ge=1)
    seed: int = Field(0, ge=0)
    lr: float = Field(0.5, gt=0)
    lr_patience: int = Field(50, ge=1)
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
    crop_scale: Range01 | None = None
    """Area range of the random crop seen by the teacher while pixels are optimised."""
    crop_probability: Fraction = 0.5
    flip: bool = False
    """Mirror images at random while cropping or shifting them; wrong for digits and text."""
    perturbation: float = Field(0.01, ge=0)
    """ε of the difficulty perturbation against the rounded student, in normalised pixels; 0 = off."""
    source: str | None = None
    """Folder of PNG files, or an `.npy` file, for `method: images`."""

    @field_validator("method")
    @classmethod
    def _known_method(cls, name: str) -> str:
        if own_code.is_own_code(name):
            own_code.parse(name)
            return name
        return lookup("synthesis method", name, SYNTHESIS_NAMES)

    @model_validator(mode="after")
    def _source_goes_with_images(self) -> Synthesis:
        if (self.method == "images") != (self.source is not None):
            raise ValueError(
                "`source is given exactly for method 'images'` must hold, but got "
                f"method={self.method!r}, source={self.source!r}."
            )
        return self


class FineTune(Settings):
    """One trial's training; every difference between recipes is a field of this class."""

    epochs: int = Field(100, ge=0)
    """0 is calibration only."""
    batch_size: int = Field(256, ge=1)
    steps_per_epoch: int | None = Field(None, ge=1)
    """`null` = one pass over the training part."""
    optimizer: Literal["adam", "sgd"] = "sgd"
    """`adam` decays weights decoupled from the gradient (AdamW), β = (momentum, 0.999)."""
    lr: float = Field(1e-3, gt=0)
    lr_relative: bool = False
    """Each tensor's rate is `lr` times its root mean square at the start: with Adam `lr` is then the
    share of its size by which a tensor moves in an update, alike in layers and networks."""
    step_lr_factor: float = Field(1.0, gt=0)
    """Learning rate of learned step sizes (`lsq`, `deploy`) over `lr`; Adam moves a parameter by about
    the rate whatever its gradient, and a step is a hundredth of the weights it scales."""
    norm_lr_factor: float = Field(1.0, gt=0)
    """Learning rate of BatchNorm's factors and of biases over `lr`: few parameters that shift whole
    channels, and with them the student, towards what only synthetic images show."""
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    """Of `sgd`."""
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["constant", "cosine", "exponential", "multistep"] = "cosine"
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of all updates over which the rate rises to the schedule's, in proportion to the updates."""
    final_lr_factor: float = Field(0.0, ge=0, le=1)
    """Learning rate at the end over the one at the start, for `cosine` and `exponential`."""
    milestones: tuple[int, ...] = ()
    """Epochs (0-based) at which `multistep` divides the learning rate by ten."""
    grad_clip: float | None = Field(None, gt=0)
    """Largest global gradient norm."""
    temperature: float = Field(4.0, gt=0)
    kd_weight: float = Field(1.0, ge=0)
    """Weight on T² · KL(teacher ‖ student), averaged over the batch (`batchmean`)."""
    lambda_ce: float = Field(0.005, ge=0)
    tau: Fraction | None = 0.5
    """Samples with difficulty above τ give no cross-entropy (Eq. 6); `null` = all do."""
    mask_strict: bool = False
    """Keep difficulty < τ (released code) instead of ≤ τ (Eq. 6)."""
    d0: float | None = Field(80.0, gt=0)
    """Cut-off of the Gaussian low-pass filter in frequency bins (Eq. 4); `null` = no filter."""
    filter_before_crop: bool = False
    """Filter the dataset once (paper) instead of each crop (released code)."""
    cam: str = "gradcam"
    lambda_cam: float = Field(20.0, ge=0)
    """Weight of the CAM alignment (Eq. 5); 0 = off."""
    cam_class: Literal["label", "argmax"] = "label"
    cam_layer: str | None = None
    """Module whose output is explained, such as `blocks.11.norm1`; `null` = last convolution with
    H·W > 1, in a transformer the last LayerNorm whose patches still count."""
    cam_normalize: bool = True
    """Per-image min-max of the maps before they are compared."""
    cam_reduction: Literal["mean", "sum"] = "mean"
    """Squared difference averaged over a map's cells, or summed (the Frobenius norm of Eq. 5)."""
    cam_resize: bool = False
    """Compare maps resized to the input (released code)."""
    cam_floor: bool = False
    """Floor channel weights at 1e-10 (released code)."""
    feature_weight: float = Field(0.0, ge=0)
    """Weight of channel-attention alignment (FA, released code)."""
    perturbation_weight: float = Field(0.0, ge=0)
    """Weight of the losses on images perturbed against the student at each step (released code)."""
    perturbation_epsilon: float = Field(0.01, ge=0)
    crop_scale: Range01 | None = (0.5, 1.0)
    """Area range of the random crop of a view; `null` = no crop."""
    flip: bool = True
    mix_weight: Range01 | None = None
    """Range of an image's own weight where each view is blended with a view of another image;
    `null` = no blending."""
    num_views: int = Field(8, ge=1)
    """Views (crop, flip, blend, teacher outputs) kept per image; epoch e uses view e mod
    num_views."""
    calibration_batches: int = Field(16, ge=1)
    clip_weights: bool = False
    """Clip each channel's weights to the range of least rounding error before training (`minmax`)."""

    @field_validator("cam")
    @classmethod
    def _known_cam(cls, name: str) -> str:
        if own_code.is_own_code(name):
            own_code.parse(name)
            return name
        return lookup("CAM technique", name, CAM_NAMES)

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> FineTune:
        if self.nesterov and self.momentum == 0:
            raise ValueError("`momentum > 0` must hold with nesterov, but got momentum=0.")
        return self


class Domain(Settings):
    """The values one searched field may take: a choice, or a continuous or integer interval."""

    choice: tuple[Any, ...] | None = None
    float_: tuple[float, float] | None = Field(None, alias="float")
    int_: tuple[int, int] | None = Field(None, alias="int")
    log: bool = False

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @model_validator(mode="after")
    def _one_form(self) -> Domain:
        forms = [f for f in (self.choice, self.float_, self.int_) if f is not None]
        if len(forms) != 1 or not forms[0]:
            raise ValueError("`exactly one of choice, float, int is given, not empty` must hold.")
        if self.choice is None and forms[0][0] > forms[0][1]:
            raise ValueError(f"`low <= high` must hold, but got {list(forms[0])}.")
        if self.choice is not None and len(set(map(repr, self.choice))) != len(self.choice):
            raise ValueError(f"`choices differ` must hold, but got {list(self.choice)}.")
        if self.log and (self.choice is not None or forms[0][0] <= 0):
            raise ValueError("`log goes with a positive interval` must hold.")
        return self

    @property
    def values(self) -> tuple[Any, ...]:
        """All choices, numbers in increasing order; the two ends of an interval."""
        if self.choice is None:
            return self.float_ or self.int_ or ()
        return tuple(sorted(self.choice)) if self.is_ordered else self.choice

    @property
    def is_ordered(self) -> bool:
        """Whether the choices are numbers, whose order a sampler can use."""
        return self.choice is not None and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) for v in self.choice
        )

    @property
    def size(self) -> float:
        """Number of distinct values; infinite for an interval of floats."""
        if self.choice is not None:
            return len(self.choice)
        return math.inf if self.float_ else self.int_[1] - self.int_[0] + 1

    def contains(self, value: Any) -> bool:
        """Whether a configuration may hold `value`."""
        if self.choice is not None:
            return value in self.choice
        low, high = self.values
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (
            is_number and low <= value <= high and (self.float_ is not None or value == int(value))
        )


class Confirm(Settings):
    """Re-run the best `top` configurations until each has `seeds` runs; choose by their mean."""

    top: int = Field(3, ge=1)
    seeds: int = Field(3, ge=1)


class Study(Settings):
    """How a search runs, stops and chooses."""

    metric: Literal["auto", "top1", "agreement", "holdout_kl"] = "auto"
    """What chooses: `top1` needs labelled images; `agreement` and `holdout_kl` (the lower the better)
    compare with the teacher on held-out synthetic ones; `auto` = top1 with labels, else agreement."""
    val_data: str | None = None
    num_trials: int = Field(64, ge=1)
    max_concurrent: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    gpus_per_trial: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    deterministic: Annotated[int, Field(ge=1)] | None = None
    """Trials on the way in logical time: proposal k and its early stopping know the trials up to
    k - `deterministic`, whatever has finished, so that one seed is one study; `null` = all that is
    known by then."""
    scheduler: Literal["asha", "none"] = "asha"
    seed: int = Field(0, ge=0)
    first: tuple[dict[str, Any], ...] = ()
    """Configurations tried first; a key left out takes finetune's own value."""
    eval_every: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Epochs between evaluations; `auto` = ASHA's rungs and the last epoch."""
    eval_images: int = Field(2000, ge=1)
    """Labelled images per evaluation before the last one."""
    checkpoint_every: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Epochs between checkpoints of a running trial, besides the evaluated ones; `auto` = where more
    than a minute has passed since the last. A crash costs a running trial at most one interval."""
    confirm: Confirm | None = Confirm()
    max_hours: float | None = Field(None, gt=0)
    target_loss: float | None = Field(None, ge=0)
    """Points below full precision at which the study is done; calibration alone is tried first."""
    keep_checkpoints: int = Field(3, ge=1)


class StudySpec(Settings):
    """A whole study after the merge of recipe, space, `--set` and flags."""

    format: Literal[1] = FORMAT
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    recipe: str = "synq"
    teacher: Teacher
    quantizer: str = "minmax"
    bits: Bits
    synthesis: Synthesis = Synthesis()
    finetune: FineTune = FineTune()
    search: dict[str, Domain] = {}
    study: Study = Study()

    @field_validator("quantizer")
    @classmethod
    def _known_quantizer(cls, name: str) -> str:
        return lookup("quantizer", name, QUANTIZER_NAMES)

    @model_validator(mode="after")
    def _search_fits_finetune(self) -> StudySpec:
        for key, domain in self.search.items():
            if key not in FineTune.model_fields:
                lookup("search key (a field of finetune)", key, FineTune.model_fields)
            for value in domain.values:
                self.trial_config({key: value})
        for number, params in enumerate(self.study.first):
            for key, value in params.items():
                if key not in self.search or not self.search[key].contains(value):
                    raise ValueError(
                        f"study.first[{number}]: `{key} is searched and {value!r} is one of its "
                        f"values` must hold. Searched: {', '.join(sorted(self.search)) or 'nothing'}."
                    )
        return self

    def trial_config(self, params: dict[str, Any]) -> FineTune:
        """The training settings of one configuration: `finetune` with `params` on top."""
        return FineTune.model_validate({**self.finetune.model_dump(), **params})
