"""Blocks as HTML: one file, figures inside it, nothing fetched from anywhere."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

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

__all__ = ["html_page"]


def html_page(
    chapters: Sequence[Chapter],
    svgs: Mapping[str, str],
    w: Language,
    *,
    title: str,
    glance: Sequence[tuple[str, str, str, bool]],
    place: Path,
    version: str,
) -> str:
    """The page. `svgs`: each drawing's SVG by its name; `glance`: (label, value, chapter id, whether it is alarming) of the
    summary; `place`: the folder the page lies in, from which it links to evidence."""
    writer = _Html(svgs, w, place)
    environment = Environment(
        loader=PackageLoader("histoproof.journal", "templates"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context: dict[str, Any] = {
        "w": w.catalogue,
        "lang": w.lang,
        "title": title,
        "glance": glance,
        "chapters": [
            {
                "id": chapter.id,
                "title": chapter.title,
                "headings": [b for b in chapter.blocks if isinstance(b, Heading) and b.level == 3],
                "body": Markup("\n").join(writer.block(b) for b in chapter.blocks),
            }
            for chapter in chapters
        ],
        "version": version,
    }
    return environment.get_template("page.html.j2").render(context)


class _Html:
    def __init__(self, svgs: Mapping[str, str], w: Language, place: Path) -> None:
        self.svgs = svgs
        self.w = w
        self.place = place

    def block(self, block: Block) -> Markup:
        match block:
            case Heading():
                made = Markup('<h{0} id="{1}">{2}</h{0}>').format(block.level, block.id, block.text)
            case Paragraph():
                tag = Markup('<div class="warning" role="note">{}</div>') if block.warning else Markup("<p>{}</p>")
                made = tag.format(self.text(block.text)) + self.source(block.source)
            case Bullets():
                items = (Markup("<li>{}</li>").format(self.text(item)) for item in block.items)
                made = Markup("<ul>{}</ul>").format(Markup("").join(items))
            case Table():
                made = self.table(block) + self.source(block.source)
            case Drawing():
                made = self.drawing(block) + self.source(block.source)
            case Listing():
                fold = Markup('<details><summary>{}</summary><pre tabindex="0">{}</pre></details>')
                made = fold.format(block.title, block.text) + self.source(block.source)
            case Fold():
                inner = Markup("\n").join(self.block(b) for b in block.blocks)
                shut = Markup("<details{}><summary>{}</summary>{}</details>")
                made = shut.format(Markup(" open") if block.open else "", block.title, inner)
        return made

    def drawing(self, drawing: Drawing) -> Markup:
        named = Markup('<svg role="img" aria-label="{}"').format(drawing.alt)
        svg = named + Markup(self.svgs[drawing.name].removeprefix("<svg"))
        figure = Markup('<figure id="f-{}"><div class="plot" tabindex="0">{}</div><figcaption>{}</figcaption></figure>')
        return figure.format(drawing.name, svg, drawing.caption)

    def table(self, table: Table) -> Markup:
        head = Markup("").join(
            Markup('<th scope="col"{}>{}</th>').format(_class("n" if c.number else ""), c.title) for c in table.columns
        )
        rows = []
        for at, row in enumerate(table.rows):
            cells = []
            for place, cell in enumerate(row):
                column = table.columns[place] if table.columns else None
                name = " ".join(
                    n for n, on in (("n", column and column.number), ("wide", column and column.wide)) if on
                )
                named = not table.columns and place == 0
                tag = Markup('<th scope="row"{}>{}</th>') if named else Markup("<td{}>{}</td>")
                cells.append(tag.format(_class(name), self.text(cell)))
            last = table.total and at == len(table.rows) - 1
            rows.append(Markup("<tr{}>{}</tr>").format(_class("sum" if last else ""), Markup("").join(cells)))
        top = Markup("<thead><tr>{}</tr></thead>").format(head) if table.columns else ""
        box = Markup(
            '<div class="scroll" role="region" aria-label="{}" tabindex="0"><table{}>{}<tbody>{}</tbody></table></div>'
        )
        return box.format(table.label, _class("" if table.columns else "facts"), top, Markup("\n").join(rows))

    def source(self, source: Source | None) -> Markup:
        if source is None:
            return Markup("")
        parts = []
        if source.command is not None:
            parts.append(Markup("{} <code>{}</code>").format(self.w.get("command"), source.command))
        if source.files:
            links = (Markup('<a href="{}">{}</a>').format(self.link(path), _short(path)) for path in source.files)
            parts.append(Markup("{} {}").format(self.w.get("read_from"), Markup(", ").join(links)))
        return Markup('\n<p class="command">{}</p>').format(Markup(" · ").join(parts))

    def link(self, path: Path) -> str:
        return quote(os.path.relpath(path.absolute(), self.place.absolute()))

    def text(self, text: Text) -> Markup:
        if isinstance(text, str):
            return escape(text)
        if isinstance(text, Code):
            return Markup("<code{}>{}</code>").format(_class("digest" if text.digest else ""), text.text)
        if isinstance(text, Strong):
            return Markup("<strong{}>{}</strong>").format(_class("alarm" if text.alarm else ""), text.text)
        return Markup("").join(self.text(part) for part in text)


def _class(name: str) -> Markup:
    return Markup(' class="{}"').format(name) if name else Markup("")


def _short(path: Path) -> str:
    """The last two parts of a path: enough to tell files apart, short enough to read."""
    return "/".join(path.parts[-2:])
