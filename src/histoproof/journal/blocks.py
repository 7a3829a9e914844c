"""What a page is made of. Chapters return these; as_html.py and as_markdown.py write them, so that both pages say the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

__all__ = [
    "Block",
    "Bullets",
    "Chapter",
    "Code",
    "Column",
    "Drawing",
    "Fold",
    "Heading",
    "Listing",
    "Paragraph",
    "Source",
    "Strong",
    "Table",
    "Text",
    "nothing",
]


@dataclass(frozen=True)
class Code:
    """A name, a path, a command, a digest."""

    text: str
    digest: bool = False
    """May be broken anywhere."""


@dataclass(frozen=True)
class Strong:
    """Words that must not be overlooked."""

    text: str
    alarm: bool = False


Inline = str | Code | Strong
Text = Inline | Sequence[Inline]
"""A str is plain text, whatever stands in it: evidence cannot break a page."""


@dataclass(frozen=True)
class Source:
    """Where numbers come from: the command that makes them, and the files they were read from."""

    command: str | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Heading:
    """A heading within a chapter; `level` 3 stands in the table of contents, 4 does not."""

    text: str
    id: str
    level: Literal[3, 4] = 3


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; a warning is set apart in red."""

    text: Text
    warning: bool = False
    source: Source | None = None


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[Text]


@dataclass(frozen=True)
class Column:
    """A column's title; numbers stand at the right."""

    title: str
    number: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its source. Without `columns` the first cell of each row is its name."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Text]]
    source: Source
    label: str
    """What the table is about, for those who cannot see it."""
    total: bool = False
    """The last row is a sum."""


@dataclass(frozen=True)
class Drawing:
    """A figure with its source."""

    name: str
    """Unique on the page; the name of its PNG."""
    draw: Callable[[], Figure]
    caption: str
    alt: str
    source: Source


@dataclass(frozen=True)
class Listing:
    """A file's text, folded away."""

    title: str
    text: str
    source: Source


@dataclass(frozen=True)
class Fold:
    """Blocks that are folded away on the HTML page, or open."""

    title: str
    blocks: "Sequence[Block]"
    open: bool = True


Block = Heading | Paragraph | Bullets | Table | Drawing | Listing | Fold


@dataclass(frozen=True)
class Chapter:
    """A chapter of the page."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def nothing(words: str, *commands: str) -> list[Block]:
    """What a chapter without evidence says: that nothing was measured, and which commands measure it."""
    text: list[Inline] = [words]
    for place, command in enumerate(commands):
        text += [" · " if place else " ", Code(command)]
    return [Paragraph(text)]
