"""From evidence to pages: journal.html (figures inside it), journal.md (figures in assets/img/), journal.json (digests)."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure

from .. import __version__
from ..drawing import render
from ..errors import DataError
from ..files import sha256_file, write_bytes, write_json, write_text
from .as_html import html_page
from .as_markdown import markdown_page
from .blocks import Block, Drawing, Fold
from .chapters import chapters
from .commas import use_commas
from .evidence import Evidence
from .fingerprints import fingerprint
from .glance import glance
from .language import Language, language, visible

__all__ = ["write_pages"]

T = TypeVar("T")


def write_pages(found: Evidence, out: Path, lang: str, *, place: Path | None = None) -> list[str]:
    """Write the journal's files into `out`; returns their names relative to it.

    `place`: the folder from which the pages link to evidence, where that is not `out`.
    """
    w, place = language(lang), out if place is None else place
    pages = _whole(lambda: chapters(found, w))
    svgs, pngs, assets = {}, {}, {}
    for drawing in (d for chapter in pages for d in _drawings(chapter.blocks)):
        pngs[drawing.name] = f"assets/img/{drawing.name}.png"
        made = _whole(partial(render, _in_language(drawing.draw, w), f"{drawing.name}-svg"))
        svgs[drawing.name], assets[pngs[drawing.name]] = made
    title, seen = w.say("title"), glance(found, w)
    html = _whole(lambda: html_page(pages, svgs, w, title=title, glance=seen, place=place, version=__version__))
    markdown = _whole(lambda: markdown_page(pages, pngs, w, title=title, glance=seen, place=place))
    names = ["journal.html", "journal.md", *assets]
    evidence = {str(path.absolute()): {"sha256": sha256_file(path), **fingerprint(path)} for path in found.files}
    # first: it marks the folder as a journal's, which a later command may write again if this one is cut off
    write_json(out / "journal.json", {"histoproof": __version__, "lang": lang, "files": names, "evidence": evidence})
    write_text(out / "journal.html", visible(html))
    write_text(out / "journal.md", visible(markdown))
    for name, png in assets.items():
        write_bytes(out / name, png)
    return names


def _whole(make: Callable[[], T]) -> T:
    """What `make` returns. Raises DataError where evidence has values of another kind than it should."""
    try:
        return make()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError) as e:
        raise DataError(
            f"a file of the evidence holds what it should not: {type(e).__name__}: {e}",
            next="leave out one PATH after the other to find it, and make that one again",
        ) from e


def _in_language(draw: Callable[[], Figure], w: Language) -> Callable[[], Figure]:
    """`draw`, its numbers written with decimal commas where the language has them."""

    def drawn() -> Figure:
        figure = draw()
        if w.comma:
            use_commas(figure)
        return figure

    return drawn


def _drawings(blocks: Sequence[Block]) -> Iterator[Drawing]:
    for block in blocks:
        if isinstance(block, Drawing):
            yield block
        elif isinstance(block, Fold):
            yield from _drawings(block.blocks)
