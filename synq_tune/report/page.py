"""Pages, a study's above all: one HTML file that holds all it needs and loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from synq_tune import __version__, store
from synq_tune.report.blocks import Section, without_private
from synq_tune.report.material import Material
from synq_tune.report.sections.cams import cams
from synq_tune.report.sections.card import card
from synq_tune.report.sections.choice import choice
from synq_tune.report.sections.export import export
from synq_tune.report.sections.front import pareto_front
from synq_tune.report.sections.images import images
from synq_tune.report.sections.ladder import ladder
from synq_tune.report.sections.mistakes import mistakes
from synq_tune.report.sections.quantization import quantization
from synq_tune.report.sections.reproduce import reproduce
from synq_tune.report.sections.search import search

REPORT_NAME = "report.html"
MAX_BYTES = 8_000_000
_NOT_HERE = "Images are left out of this copy of the report."
_TEMPLATES = Path(__file__).parent / "templates"
_SECTIONS: tuple[Callable[[Material], Section | None], ...] = (
    card,
    ladder,
    pareto_front,
    choice,
    search,
    quantization,
    images,
    cams,
    mistakes,
    export,
    reproduce,
)
"""In the order in which they stand; one that has nothing to say is None."""


def write_page(material: Material, path: Path, is_private: bool = True) -> None:
    """Write the page, atomically.

    Pictures are left out where the page would be larger than `MAX_BYTES` with them.

    Args:
        material: of the study.
        path: of the HTML file; replaced.
        is_private: whether it may show images.

    Raises:
        OSError: the file cannot be written.
    """
    made = (make(material) for make in _SECTIONS)
    sections = [section for section in made if section is not None]
    public = [without_private(section, _NOT_HERE) for section in sections]
    text = render(material, sections if is_private else public)
    if len(text) > MAX_BYTES:
        said = f"Images are left out: the page would be larger than {MAX_BYTES // 10**6} MB."
        text = render(material, [without_private(section, said) for section in sections])
    store.write_bytes(path, text)


def render(material: Material, sections: Sequence[Section]) -> bytes:
    """A study's page as UTF-8; whatever the user named is escaped."""
    name = material.folder.resolve().name
    return render_page("Report of a study", name, _about(material), sections)


def render_page(kind: str, title: str, about: str, sections: Sequence[Section]) -> bytes:
    """Any page in this style, as UTF-8; texts are escaped.

    Args:
        kind: what it is, above the title.
        title: of the page.
        about: a line below the title.
        sections: in the order in which they stand.
    """
    template = _environment().get_template("page.html")
    page = template.render(
        kind=kind,
        title=title,
        about=about,
        sections=sections,
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d at %H:%M UTC"),
        style=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        plotly=Markup(get_plotlyjs()),
    )
    return page.encode("utf-8", "replace")


def _about(material: Material) -> str:
    state = material.state
    name = state.stages.teacher.name if state.stages.teacher else state.spec.teacher.model
    return f"{name}, searched in the space {state.spec.name}, chosen by {material.metric}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["base64"] = _base64
    return environment


def _base64(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def _asset(name: str) -> str:
    return (_TEMPLATES / name).read_text("utf-8")
