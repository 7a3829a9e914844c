"""From evidence to pages: journal.html (figures inside it), journal.md (figures in assets/img/), journal.json (digests)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import __version__
from ..files import sha256_file, write_bytes, write_json, write_text
from . import figures
from .as_html import html_page
from .as_markdown import markdown_page
from .blocks import Block, Drawing, Fold
from .chapters import chapters
from .evidence import Evidence
from .fingerprints import fingerprint
from .glance import glance
from .language import language

__all__ = ["write_pages"]


def write_pages(found: Evidence, out: Path, lang: str, *, place: Path | None = None) -> list[str]:
    """Write the journal's files into `out`; returns their names relative to it.

    `place`: the folder from which the pages link to evidence, where that is not `out`.
    """
    w, place = language(lang), out if place is None else place
    pages = chapters(found, w)
    svgs, pngs, assets = {}, {}, {}
    for drawing in (d for chapter in pages for d in _drawings(chapter.blocks)):
        svgs[drawing.name], png = figures.render(drawing.draw, f"{drawing.name}-svg", comma=w.comma)
        pngs[drawing.name] = f"assets/img/{drawing.name}.png"
        assets[pngs[drawing.name]] = png
    title, seen = w.say("title"), glance(found, w)
    html = html_page(pages, svgs, w, title=title, glance=seen, place=place, version=__version__)
    names = ["journal.html", "journal.md", *assets]
    write_text(out / "journal.html", html)
    write_text(out / "journal.md", markdown_page(pages, pngs, w, title=title, glance=seen, place=place))
    for name, png in assets.items():
        write_bytes(out / name, png)
    evidence = {str(path.absolute()): {"sha256": sha256_file(path), **fingerprint(path)} for path in found.files}
    write_json(out / "journal.json", {"histoproof": __version__, "lang": lang, "files": names, "evidence": evidence})
    return names


def _drawings(blocks: Sequence[Block]) -> Iterator[Drawing]:
    for block in blocks:
        if isinstance(block, Drawing):
            yield block
        elif isinstance(block, Fold):
            yield from _drawings(block.blocks)
