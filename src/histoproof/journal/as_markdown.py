"""Blocks as Markdown, figures as PNG files in assets/."""

import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from .blocks import (
    Block,
    Bullets,
    Chapter,
    Code,
    Drawing,
    Fold,
    Heading,
    Listing,
    Paragraph,
    Source,
    Strong,
    Table,
    Text,
)
from .language import Language

__all__ = ["markdown_page"]


def markdown_page(
    chapters: Sequence[Chapter],
    pngs: Mapping[str, str],
    w: Language,
    *,
    title: str,
    glance: Sequence[tuple[str, str, str, bool]],
    place: Path,
) -> str:
    """The page. `pngs`: each drawing's file by its name, relative to `place`, the folder the page lies in."""
    writer = _Markdown(pngs, w, place)
    lines = [f"# {_plain(title)}", _plain(w.get("lead"))]
    lines.append(
        "\n".join(
            f"- {_plain(label)}: {'**' if alarm else ''}{_plain(value)}{'**' if alarm else ''}"
            for label, value, _, alarm in glance
        )
    )
    for chapter in chapters:
        lines.append(f"## {_plain(chapter.title)}")
        lines += [writer.block(block) for block in chapter.blocks]
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(lines)).strip() + "\n"


class _Markdown:
    def __init__(self, pngs: Mapping[str, str], w: Language, place: Path) -> None:
        self.pngs = pngs
        self.w = w
        self.place = place

    def block(self, block: Block) -> str:
        match block:
            case Heading():
                made = f"{'#' * block.level} {_plain(block.text)}"
            case Paragraph():
                text = self.text(block.text)
                made = (f"> **{text}**" if block.warning else text) + self.source(block.source)
            case Bullets():
                made = "\n".join(f"- {self.text(item)}" for item in block.items)
            case Table():
                made = self.table(block) + self.source(block.source)
            case Drawing():
                image = f"![{_plain(block.alt)}]({quote(self.pngs[block.name])})"
                made = f"{image}\n\n{_plain(block.caption)}{self.source(block.source)}"
            case Listing():
                fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", block.text)), default=0))
                made = f"{_plain(block.title)}:\n\n{fence}\n{block.text}\n{fence}{self.source(block.source)}"
            case Fold():
                made = "\n\n".join([f"#### {_plain(block.title)}", *(self.block(inner) for inner in block.blocks)])
        return made

    def table(self, table: Table) -> str:
        columns = table.columns
        width = max([len(columns), *(len(row) for row in table.rows)])
        head = [_plain(c.title) for c in columns] or [""] * width
        rule = ["--:" if c.number else "---" for c in columns] or ["---"] * width
        rows = [[self.text(cell) for cell in row] for row in table.rows]
        if table.total and rows:
            rows[-1] = [f"**{cell}**" if cell else "" for cell in rows[-1]]
        return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])

    def source(self, source: Source | None) -> str:
        if source is None:
            return ""
        parts = []
        if source.command is not None:
            parts.append(f"*{self.w.get('command')}* {_code(source.command)}")
        if source.files:
            links = (
                f"[{_plain('/'.join(path.parts[-2:]))}]({quote(os.path.relpath(path.absolute(), self.place.absolute()))})"
                for path in source.files
            )
            parts.append(f"*{self.w.get('read_from')}* {', '.join(links)}")
        return "\n\n" + " · ".join(parts)

    def text(self, text: Text) -> str:
        if isinstance(text, str):
            return _plain(text)
        if isinstance(text, Code):
            return _code(text.text)
        if isinstance(text, Strong):
            return f"**{_plain(text.text)}**"
        return "".join(self.text(part) if not isinstance(part, str) else _edges(part) for part in text)


def _edges(text: str) -> str:
    """As `_plain`, but blanks at the ends stay: words and code stand beside each other."""
    inner = _plain(text)
    return (" " if text[:1].isspace() else "") + inner + (" " if text[-1:].isspace() and inner else "")


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: nothing in it makes a link, an image, a table's column or a heading."""
    line = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"[|\\`*\[\]!#~]|(?<!\w)_|_(?!\w)", lambda mark: f"&#{ord(mark.group())};", line)


def _code(text: str) -> str:
    """A code span, also of text with backticks or a table's bar in it."""
    line = " ".join(text.split())
    if "|" in line:  # a bar would end the table's cell, even within a code span
        return f"<code>{_plain(line)}</code>"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"
