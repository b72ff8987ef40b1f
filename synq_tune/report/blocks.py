"""What a page is made of: plain values, which the template alone turns into HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar


@dataclass(frozen=True)
class Prose:
    """A few sentences."""

    KIND: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Caution:
    """A sentence that a reader must not miss."""

    KIND: ClassVar[str] = "caution"
    text: str


@dataclass(frozen=True)
class Heading:
    """The name of what follows within a section."""

    KIND: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Fact:
    """One number, and what it says."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Numbers side by side."""

    KIND: ClassVar[str] = "facts"
    facts: Sequence[Fact]


@dataclass(frozen=True)
class Bar:
    """One bar; all in percent, 0 to 100."""

    name: str
    value: float | None
    """None: there is no number, and `note` says why."""
    low: float | None = None
    high: float | None = None
    """Ends of the 95 % interval."""
    note: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Bars:
    """Horizontal bars from 0 to 100 %, each with its interval."""

    KIND: ClassVar[str] = "bars"
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Table:
    """Rows of texts, one value a cell."""

    KIND: ClassVar[str] = "table"
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[int] = frozenset()
    """Columns, from 0, of numbers: they end at the right and sort as numbers."""
    is_sortable: bool = False
    marked: int | None = None
    """The row to mark."""


@dataclass(frozen=True)
class Plot:
    """A figure that plotly draws in the reader's browser."""

    KIND: ClassVar[str] = "plot"
    figure: dict[str, Any]
    """`{data, layout}`, JSON values; texts are escaped, see `figures.plain`."""
    says: str
    """What it shows, for who cannot see it."""
    height: int = 360
    """Pixels."""
    min_width: int = 0
    """Pixels below which it scrolls instead of shrinking."""


@dataclass(frozen=True)
class Picture:
    """An image in the page."""

    KIND: ClassVar[str] = "picture"
    data: bytes
    media: str
    """Such as `image/png`."""
    says: str
    """What it shows, for who cannot see it."""
    caption: str = ""
    width: int = 96
    """Pixels at which it is shown, where there is room."""
    is_private: bool = False
    """It shows images of the dataset, or labelled ones: only for who may see those."""
    is_pixelated: bool = False
    """Whether enlarged pixels stay squares."""


@dataclass(frozen=True)
class Tiles:
    """Small plots or pictures, as many side by side as there is room for."""

    KIND: ClassVar[str] = "tiles"
    tiles: Sequence[Plot | Picture]
    width: int = 260
    """Pixels that a tile takes at least."""


@dataclass(frozen=True)
class Row:
    """Pictures that belong together, with what they are."""

    name: str
    pictures: Sequence[Picture]
    note: str = ""


_SHORT = 3
"""Pictures of a row that leaves room for another beside it."""


@dataclass(frozen=True)
class PictureRows:
    """Rows of pictures below each other."""

    KIND: ClassVar[str] = "picture_rows"
    rows: Sequence[Row]

    @property
    def is_short(self) -> bool:
        """Whether rows can stand beside each other: a network of 1,000 classes has an image or two
        of each."""
        return len(self.rows) > 4 and all(len(row.pictures) <= _SHORT for row in self.rows)


@dataclass(frozen=True)
class Code:
    """A text to copy, such as a command."""

    KIND: ClassVar[str] = "code"
    text: str
    download: str = ""
    """File name under which it can be saved; empty: not offered."""


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line that opens them."""

    KIND: ClassVar[str] = "fold"
    title: str
    blocks: Sequence[Block]


Block = (
    Prose | Caution | Heading | Facts | Bars | Table | Plot | Picture | Tiles | PictureRows
    | Code | Fold
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A part of the page with its own entry in the contents."""

    key: str
    """Of its link."""
    title: str
    lead: str = ""
    """The sentence to read if only one is read."""
    blocks: Sequence[Block] = field(default_factory=tuple)


def without_private(section: Section, why: str) -> Section:
    """The section without its private pictures, and the sentence `why` where there were any."""
    blocks = [kept for block in section.blocks if (kept := _public(block)) is not None]
    is_cut = blocks != list(section.blocks)
    return replace(section, blocks=[*blocks, Prose(why)]) if is_cut else section


def _public(block: Block) -> Block | None:
    if isinstance(block, Picture):
        return None if block.is_private else block
    if isinstance(block, Tiles):
        tiles = [t for t in block.tiles if not (isinstance(t, Picture) and t.is_private)]
        return replace(block, tiles=tiles) if tiles else None
    if isinstance(block, PictureRows):
        return None if any(p.is_private for r in block.rows for p in r.pictures) else block
    return block
