"""The generator of `finetune.source: generator`: what it looks like, what it learns, and when."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from synq_tune.config.settings import Fraction, Range01, Settings

_Weight = Annotated[float, Field(ge=0)]


def rising_epochs(milestones: tuple[int, ...]) -> tuple[int, ...]:
    """The epochs as they are.

    Raises:
        ValueError: one is below 0, or they do not rise.
    """
    if any(m < 0 for m in milestones) or list(milestones) != sorted(set(milestones)):
        raise ValueError(f"`milestones are >= 0 and rise` must hold, but got {list(milestones)}.")
    return milestones


class GeneratorSourceSettings(Settings):
    """A generator that trains along with the student; read where `source` is `generator`."""

    generator_latent: Annotated[int, Field(ge=1, le=65_536)] | Literal["features"] = 100
    """Numbers that an image is made of; `features` = as many as the teacher's classifier reads."""
    generator_conditioning: Literal["none", "multiply", "add_norm"] = "multiply"
    """How a class enters the latent: not at all, as a factor, or added and standardised."""
    generator_embedding: Literal["random", "classifier"] = "random"
    """What a class's learned vector starts from: N(0, 1), or its row of the teacher's classifier."""
    generator_conditional_norm: bool = False
    """Give each class its own factors and shifts in the generator's three inner BatchNorms."""
    generator_code: Annotated[str, Field(pattern=r"^[01]{6}\|[0-6]{15}\|[0-2]{12}$")] | None = None
    """Code of a generator that AutoReCon found: digits of its enlarging, inner and crossing edges.
    `null` = the trunk of the other methods."""
    generator_mixing: int = Field(1, ge=1, le=10_000)
    """Classes that a mixed image is made of, drawn with replacement; 1 = no mixing."""
    generator_mixing_probability: Fraction = 0.4
    """Share of the batches that are mixed, where `generator_mixing` is above 1."""
    generator_ce: _Weight = 1.0
    """Weight of the teacher's cross-entropy with the class that an image was asked for."""
    generator_bns: _Weight = 0.1
    """Weight of the distance to the teacher's BatchNorm statistics, averaged over layers."""
    generator_disagreement: _Weight = 0.0
    """Weight of the cross-entropy of teacher's minus student's logits (AdaSG, AdaDFQ)."""
    generator_agreement: _Weight = 0.0
    """Weight of the cross-entropy of teacher's plus student's logits (AdaSG, AdaDFQ)."""
    generator_band: _Weight = 0.0
    """Weight on keeping the entropy of teacher's minus student's logits in a band (AdaSG,
    AdaDFQ)."""
    generator_band_limits: Range01 = (0.3, 0.8)
    """The band's ends; 0 is the batch's least entropy, 1 that of a uniform answer."""
    generator_lr: float = Field(1e-3, gt=0)
    """Adam's rate of the generator, β = (0.5, 0.999)."""
    generator_milestones: tuple[int, ...] = ()
    """The generator's epochs (0-based, its warm-up included) at which its rate is divided by
    ten."""
    generator_warmup_epochs: int = Field(4, ge=0, le=1_000_000)
    """Epochs that the generator trains before the student's first; `epochs` does not count
    them."""
    generator_freeze_epoch: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Warm-up epochs behind which the student's ranges are found, for good; `null` = all."""

    @field_validator("generator_milestones")
    @classmethod
    def _generator_milestones_rise(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        return rising_epochs(milestones)

    @property
    def freeze_epoch(self) -> int:
        """Warm-up epochs behind which ranges are found, 0 to `generator_warmup_epochs`."""
        last = self.generator_warmup_epochs
        return last if self.generator_freeze_epoch is None else self.generator_freeze_epoch

    @model_validator(mode="after")
    def _generator_learns(self) -> Self:
        weights = ("ce", "bns", "disagreement", "agreement", "band")
        if not any(getattr(self, f"generator_{name}") for name in weights):
            raise ValueError(
                "`a loss of the generator has a weight` must hold, but got 0 for generator_"
                f"{', generator_'.join(weights)}. Set one, such as generator_bns=0.1."
            )
        return self

    @model_validator(mode="after")
    def _ranges_are_found_before_training(self) -> Self:
        if self.freeze_epoch > self.generator_warmup_epochs:
            raise ValueError(
                "`generator_freeze_epoch <= generator_warmup_epochs` must hold, but got "
                f"generator_freeze_epoch={self.generator_freeze_epoch}, "
                f"generator_warmup_epochs={self.generator_warmup_epochs}."
            )
        return self

    @model_validator(mode="after")
    def _an_embedding_is_read(self) -> Self:
        if self.generator_embedding == "classifier" and self.generator_conditioning == "none":
            raise ValueError(
                "`a class enters the latent` must hold with generator_embedding=classifier, but got "
                "generator_conditioning=none. Set generator_conditioning=add_norm."
            )
        return self
