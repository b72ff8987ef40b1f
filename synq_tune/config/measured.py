"""Which bundled spaces were measured, and where that is written down: one table for all of them."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from synq_tune.config import Settings, yaml12
from synq_tune.config.settings import Text
from synq_tune.errors import SearchSpaceError

TABLE = (Path(__file__).parents[1] / "search_spaces" / "tables" / "measured.yaml").resolve()


class Measurement(Settings):
    """What was measured of a space as it is."""

    what: Text
    where: Text
    """File of this repository, with the heading after a `#`."""


def measurements() -> dict[str, Measurement | None]:
    """Bundled space → what was measured of it; None: it was never run here.

    Raises:
        SearchSpaceError: the table is damaged.
    """
    shape = TypeAdapter(dict[str, Measurement | None])
    try:
        return shape.validate_python(yaml12.read(TABLE))
    except ValidationError as error:
        raise SearchSpaceError(f"{TABLE}: {error.errors()[0]['msg']}.") from error
