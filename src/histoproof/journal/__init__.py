"""The journal: one page in HTML and in Markdown, every number read from the evidence on disk and followed by its command."""

import difflib
import html
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError, OutputError
from ..files import read_json, sha256_file
from .evidence import Evidence, read_evidence
from .fingerprints import changes
from .page import write_pages

__all__ = ["check", "journal"]

Lang = Literal["en", "nl"]
_MOST_SHOWN = 3


def journal(paths: Sequence[Path], out: Path, *, lang: Lang = "en") -> dict[str, Any]:
    """Write journal.html, journal.md, assets/img/ and journal.json (the evidence with its digests) into `out`.

    `paths` are run folders, finished or not, and folders with runs in them; stores; folders of audits and of dose-response
    studies; git repositories. An earlier journal in `out` is replaced file by file. Returns {"journal", "markdown", "files",
    "runs", "audits", "studies", "warnings", "problems"}. Raises RunError or DataError for a path that is none of these.
    """
    _check_place(paths, out)
    found = read_evidence(paths)
    files = write_pages(found, out, lang)
    return {
        "journal": str(out / "journal.html"),
        "markdown": str(out / "journal.md"),
        "files": files,
        "runs": [str(run.path) for run in found.runs],
        "warnings": [warning for run in found.runs for warning in run.warnings],
        "studies": [str(study.path) for study in found.doses],
        "audits": [str(audit.path) for audit in found.audits],
        "problems": found.problems,
    }


def check(paths: Sequence[Path], out: Path) -> dict[str, Any]:
    """Hold the journal in `out` against the evidence as it is now, in its own language. Returns {"ok", "problems": [...]}, which
    names the numbers that were changed; writes nothing there."""
    if not (out / "journal.json").is_file():
        raise DataError(f"{out} holds no journal", next=f"write it with `histoproof journal RUN --out {out}`")
    recorded = read_json(out / "journal.json")
    if not isinstance(recorded, dict) or not {"evidence", "lang"} <= set(recorded):
        raise DataError(f"{out / 'journal.json'} is damaged", next="write the journal again")
    found = read_evidence(paths)
    problems = [*_changed_evidence(recorded), *found.problems, *_changed_pages(found, out, recorded["lang"])]
    return {"ok": not problems, "problems": list(dict.fromkeys(problems))}


def _check_place(paths: Sequence[Path], out: Path) -> None:
    """Refuse to write over what is no journal, or into the evidence."""
    if out.is_dir() and any(out.iterdir()) and not (out / "journal.json").is_file():
        raise OutputError(f"{out} holds other files", next="give a new folder, or one that holds a journal, with --out")
    for path in paths:
        inside = path.resolve() in out.resolve().parents and not (path / ".git").exists()
        if out.resolve() == path.resolve() or inside:
            raise OutputError(f"{out} lies within {path}, its own evidence", next="give another folder with --out")


def _changed_evidence(recorded: dict[str, Any]) -> list[str]:
    problems = []
    for name, kept in recorded["evidence"].items():
        path = Path(name)
        if not path.is_file():
            problems.append(f"evidence is gone: {path}")
        elif sha256_file(path) != kept["sha256"]:
            problems += [f"evidence was changed since the journal was written: {path}", *changes(path, kept)]
    return problems


def _changed_pages(found: Evidence, out: Path, lang: str) -> list[str]:
    """The pages as the evidence makes them now, held against those in `out`; a text names its first lines that differ."""
    problems = []
    with tempfile.TemporaryDirectory() as fresh:
        for name in write_pages(found, Path(fresh), lang, place=out):
            theirs, ours = out / name, Path(fresh) / name
            if not theirs.is_file():
                problems.append(f"{theirs} is missing")
            elif sha256_file(theirs) != sha256_file(ours):
                problems.append(f"{theirs} is not what the evidence says now")
                if name.endswith((".md", ".html")):
                    problems += _first_lines(theirs, ours)
    return problems


def _first_lines(theirs: Path, ours: Path) -> list[str]:
    old, new = (_sentences(path.read_text(encoding="utf-8", errors="replace")) for path in (theirs, ours))
    found = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            found.append(f"{theirs.name} says {' '.join(old[a:b])[:200]!r}, the evidence {' '.join(new[c:d])[:200]!r}")
    return found[:_MOST_SHOWN]


def _sentences(text: str) -> list[str]:
    """A page's words line by line, without its figures' paths."""
    text = re.sub(r"<(svg|style)\b.*?</\1>", "", text, flags=re.S)
    lines = (" ".join(html.unescape(re.sub(r"<[^>]*>", " ", line)).split()) for line in text.splitlines())
    return [line for line in lines if line]
