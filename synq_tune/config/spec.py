"""A whole study."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from synq_tune.config.bits import Bits
from synq_tune.config.domain import Domain
from synq_tune.config.finetune import FineTune
from synq_tune.config.metrics import COSTS
from synq_tune.config.reconstruct import Reconstruct
from synq_tune.config.settings import FORMAT, QuantizerName, Settings, Text
from synq_tune.config.study import Study
from synq_tune.config.synthesis import Synthesis
from synq_tune.config.teacher import Teacher
from synq_tune.errors import lookup

_RECONSTRUCT = "reconstruct."
WIDTHS = tuple(f"bits.{key}" for key in Bits.model_fields if key != "overrides")
"""The widths that a space may search; `bits.overrides` is one thing, not a value of a range."""
SEARCHABLE = (
    *FineTune.model_fields,
    *(_RECONSTRUCT + key for key in Reconstruct.model_fields),
    *WIDTHS,
)
"""What a space may search."""
SEARCHABLE_NAMES = (
    *FineTune.name_fields(),
    *(_RECONSTRUCT + key for key in Reconstruct.name_fields()),
)
"""Of these, what can name the user's own code."""


class StudySpec(Settings):
    """A whole study after the merge of recipe, space, `--set` and flags."""

    format: Literal[1] = FORMAT
    """Version of the file format."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)
    """The space's name, as folders and MLflow show it."""
    recipe: Text = "synq"
    """Name or file of the recipe that lies under the space."""
    teacher: Teacher
    """The pre-trained network."""
    quantizer: QuantizerName = "minmax"
    """Which grids weights and values are rounded to."""
    bits: Bits
    """How wide the integers are."""
    synthesis: Synthesis = Synthesis()
    """How the synthetic images are made."""
    reconstruct: Reconstruct = Reconstruct()
    """The stage between calibration and training."""
    finetune: FineTune = FineTune()
    """How a trial trains."""
    search: dict[str, Domain] = {}
    """What is searched: a field of `finetune`, `reconstruct.FIELD` or `bits.FIELD`, and its
    values."""
    study: Study = Study()
    """How the search runs, stops and chooses."""

    @model_validator(mode="after")
    def _search_fits_finetune(self) -> StudySpec:
        for key, domain in self.search.items():
            lookup("search key (a field of finetune)", key, SEARCHABLE)
            for value in (*domain.values, *domain.between):
                self._try(key, value)
        for number, params in enumerate(self.study.first):
            for key, value in params.items():
                if key not in self.search or not self.search[key].contains(value):
                    raise ValueError(
                        f"study.first[{number}]: `{key} is searched and {value!r} is one of its "
                        f"values` must hold, but searched are: "
                        f"{', '.join(sorted(self.search)) or 'none'}."
                    )
        return self

    def _try(self, key: str, value: Any) -> None:
        """Raise ValueError, by the search's key, for a value that no trial can take."""
        try:
            self.of_trial({key: value})
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ").rstrip(".")
            got = "" if ", but got" in message else f", but got {value!r}"
            raise ValueError(f"search.{key}: {message}{got}.") from error

    def trial_config(self, params: dict[str, Any]) -> FineTune:
        """The training settings of one configuration: `finetune` with `params` on top."""
        return self.of_trial(params).finetune

    def of_trial(self, params: dict[str, Any]) -> StudySpec:
        """This study with one configuration in place of what it searches.

        Args:
            params: values by field of finetune, or by `reconstruct.FIELD` or `bits.FIELD`.
        """
        own: dict[str, dict[str, Any]] = {"finetune": {}, "reconstruct": {}, "bits": {}}
        for key, value in params.items():
            section, field = _place(key)
            own[section][field] = value
        sections = {name: getattr(self, name) for name in own}
        changed = {
            name: type(settings).model_validate({**settings.model_dump(), **own[name]})
            for name, settings in sections.items()
        }
        return self.model_copy(update={**changed, "search": {}})

    def own_value(self, key: str) -> Any:
        """The study's own value of what `key` of search names, as JSON has it."""
        section, field = _place(key)
        return getattr(self, section).model_dump(mode="json")[field]

    @property
    def searches_bits(self) -> bool:
        """Whether trials differ in width, and so in what they cost."""
        return any(key in WIDTHS for key in self.search)

    @property
    def measures_costs(self) -> bool:
        """Whether trials say what they cost: it may differ, or it is an objective."""
        return self.searches_bits or any(name in COSTS for name in self.study.objectives)

    @property
    def is_varied(self) -> bool:
        """Whether trials differ at all: something is trained, or their widths are drawn."""
        return self.is_trained or self.searches_bits

    @property
    def is_trained(self) -> bool:
        """Whether anything changes the student after calibration."""
        return self.finetune.epochs > 0 or self.reconstruct.is_on


def _place(key: str) -> tuple[str, str]:
    """Section and field of a key of search; one without a section is of finetune."""
    section, dot, field = key.partition(".")
    return (section, field) if dot else ("finetune", key)
