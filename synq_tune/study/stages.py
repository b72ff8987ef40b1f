"""The stages that a study passes, as its ledger records them.

An event `stage` has a name and data: `from_event` reads the data once, `to_event` writes it. Keys
that this version does not know are left out; keys that older versions did not write have a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from synq_tune.errors import InputError


def _only_if_any() -> Any:
    """A field that events have only where it has a value."""
    return field(default=None, metadata={"only_if_any": True})


@dataclass(frozen=True)
class Stage:
    """What happened once, or happened last."""

    NAME: ClassVar[str]
    """In the ledger, and among `Stages`."""

    @classmethod
    def from_event(cls, data: Mapping[str, Any]) -> Self:
        """The stage that an event's data describe.

        Raises:
            InputError: a key is missing.
        """
        missing = [f.name for f in fields(cls) if _is_required(f) and f.name not in data]
        if missing:
            raise InputError(
                f"`the stage {cls.NAME} has all its keys` must hold, but {missing[0]!r} is missing."
            )
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})

    def to_event(self) -> dict[str, Any]:
        """The data of its event, in the order of the fields."""
        values = ((f, getattr(self, f.name)) for f in fields(self))
        return {
            f.name: value
            for f, value in values
            if value is not None or not f.metadata.get("only_if_any")
        }


def _is_required(field_: Field[Any]) -> bool:
    return field_.default is MISSING and field_.default_factory is MISSING


@dataclass(frozen=True)
class Teacher(Stage):
    """The teacher is loaded and measured."""

    NAME: ClassVar[str] = "teacher"
    name: str
    fingerprint: str
    top1: float | None = None
    """Percent on all labelled images; None without any."""
    reference: float | None = None
    """The study's metric of the teacher, on the images that choose."""


@dataclass(frozen=True)
class Metric(Stage):
    """What chooses is resolved."""

    NAME: ClassVar[str] = "metric"
    metric: str
    mode: str
    """`max` or `min`."""


@dataclass(frozen=True)
class Dataset(Stage):
    """The synthetic dataset is there."""

    NAME: ClassVar[str] = "dataset"
    path: str
    """Its folder, STORE/datasets/ADDRESS."""
    sha256: str
    num_images: int
    """To train on."""
    num_holdout: int
    method: str


@dataclass(frozen=True)
class Budget(Stage):
    """A resumed study was given more trials, or another target."""

    NAME: ClassVar[str] = "budget"
    num_trials: int | None = _only_if_any()
    target_loss: float | None = _only_if_any()
    """Points."""

    def changes(self) -> dict[str, Any]:
        """The settings of the study that it changes."""
        return self.to_event()


@dataclass(frozen=True)
class Gpu(Stage):
    """What trials took of a GPU's memory; see `search.gpu_sharing`."""

    NAME: ClassVar[str] = "gpu"
    trial_bytes: int | None = _only_if_any()
    """Of the largest trial so far."""
    device_bytes: int | None = _only_if_any()
    """Of the GPU that it ran on."""
    most: int | None = _only_if_any()
    """Trials that a GPU was seen to hold at most; None while none ran out of memory."""


@dataclass(frozen=True)
class Rung(Stage):
    """One line of the ladder; accuracies in percent."""

    NAME: ClassVar[str] = "ladder"
    name: str
    agreement: float | None = None
    """With the teacher, on `probes` images that chose nothing."""
    probes: int | None = _only_if_any()
    """Synthetic images; None in ledgers from before they were kept apart from those that choose."""
    probes_chosen_on: int | None = _only_if_any()
    """Synthetic images that chose."""
    top1: float | None = _only_if_any()
    """Of the reporting half; None without labels."""
    low: float | None = _only_if_any()
    high: float | None = _only_if_any()
    """The 95 % interval of `top1`."""
    num_images: int | None = _only_if_any()
    """Of the reporting half."""
    chosen_on: int | None = _only_if_any()
    """Labelled images that chose."""
    diverged: str | None = _only_if_any()
    """Why it has no numbers."""


@dataclass(frozen=True)
class Ladder(Stage):
    """The final table is measured."""

    NAME: ClassVar[str] = "ladder"
    rungs: tuple[Rung, ...]

    @classmethod
    def from_event(cls, data: Mapping[str, Any]) -> Self:
        """See `Stage.from_event`."""
        ladder = super().from_event(data)
        return replace(ladder, rungs=tuple(Rung.from_event(rung) for rung in data["rungs"]))

    def to_event(self) -> dict[str, Any]:
        """See `Stage.to_event`."""
        return {"rungs": [rung.to_event() for rung in self.rungs]}

    def rung(self, name: str) -> Rung | None:
        """The rung of that name; see `study.rungs`."""
        return next((rung for rung in self.rungs if rung.name == name), None)


@dataclass(frozen=True)
class Parity(Stage):
    """The exported files were compared with the student; see `export.parity`."""

    NAME: ClassVar[str] = "parity"
    report: Mapping[str, Any]

    @classmethod
    def from_event(cls, data: Mapping[str, Any]) -> Self:
        """The data are the report."""
        return cls(data)

    def to_event(self) -> dict[str, Any]:
        """The report."""
        return dict(self.report)


@dataclass(frozen=True)
class Best(Stage):
    """The best student is exported."""

    NAME: ClassVar[str] = "best"
    key: str
    """Of its run."""
    number: int
    """Of its trial."""
    params: dict[str, Any]
    metrics: dict[str, float]
    export_dir: str
    files: dict[str, str]
    """SHA-256 by name."""


@dataclass(frozen=True)
class Tracking(Stage):
    """MLflow's store is open."""

    NAME: ClassVar[str] = "tracking"
    uri: str
    """Without credentials."""
    upload_images: bool | None = _only_if_any()
    """True where images may go to another machine."""


@dataclass(frozen=True)
class Uploads(Stage):
    """MLflow was given the best."""

    NAME: ClassVar[str] = "uploads"
    model: str | None = None
    """`models:/ID`."""
    version: str | None = None
    """`NAME/VERSION` of the registered model; None where there is no registry."""
    refused: dict[str, str] = field(default_factory=dict)
    """By name, why something is not in the store."""


@dataclass(frozen=True)
class Places(Stage):
    """Where a driver was told to keep things; see `study.places`."""

    NAME: ClassVar[str] = "places"
    store: str
    """Absolute path."""
    tracking_uri: str | None
    """Without credentials; None is the default, beside the study."""


@dataclass
class Stages:
    """The latest of each stage that a study has passed; None before it."""

    teacher: Teacher | None = None
    metric: Metric | None = None
    dataset: Dataset | None = None
    budget: Budget | None = None
    gpu: Gpu | None = None
    ladder: Ladder | None = None
    parity: Parity | None = None
    best: Best | None = None
    tracking: Tracking | None = None
    uploads: Uploads | None = None
    places: Places | None = None

    def put(self, stage: Stage) -> None:
        """Let it be the latest of its name."""
        setattr(self, stage.NAME, stage)

    def says(self, stage: Stage) -> bool:
        """Whether the latest of that stage is the same."""
        return getattr(self, stage.NAME) == stage


_KINDS: dict[str, type[Stage]] = {
    kind.NAME: kind
    for kind in (
        Teacher,
        Metric,
        Dataset,
        Budget,
        Gpu,
        Ladder,
        Parity,
        Best,
        Tracking,
        Uploads,
        Places,
    )
}


def stage_of(event: Mapping[str, Any]) -> Stage | None:
    """The stage that an event of a ledger records; None where another version named it.

    Raises:
        InputError: a key is missing.
    """
    kind = _KINDS.get(event["name"])
    return kind.from_event(event["data"]) if kind else None
