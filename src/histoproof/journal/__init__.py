"""The journal: one page in HTML and in Markdown, every number read from the evidence on disk and followed by its command."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError, OutputError
from ..files import read_json, sha256_file
from .audit import AuditEvidence, is_audit, read_audit
from .dose import DoseEvidence, is_dose, read_dose
from .evidence import RunEvidence, read_evidence
from .page import write_pages

__all__ = ["check", "journal"]

Language = Literal["en", "nl"]


def journal(paths: Sequence[Path], out: Path, *, lang: Language = "en") -> dict[str, Any]:
    """Write journal.html, journal.md, assets/ and journal.json (the evidence with its digests) into `out`.

    `paths` are run folders, finished or not, and folders of audits and of dose-response studies; audits come first on the page.
    An earlier journal in `out` is replaced file by file. Returns {"journal", "markdown", "files", "runs", "audits", "studies",
    "warnings", "problems"}. Raises RunError or DataError for a path that is no run.
    """
    _check_place(paths, out)
    evidence, studies, audits = _read(paths)
    files = write_pages(evidence, out, lang, studies, audits)
    return {
        "journal": str(out / "journal.html"),
        "markdown": str(out / "journal.md"),
        "files": files,
        "runs": [str(run.path) for run in evidence],
        "warnings": [warning for run in evidence for warning in run.warnings],
        "studies": [str(study.path) for study in studies],
        "audits": [str(audit.path) for audit in audits],
        "problems": [problem for part in (audits, evidence, studies) for found in part for problem in found.problems],
    }


def check(paths: Sequence[Path], out: Path) -> dict[str, Any]:
    """Hold the journal in `out` against the evidence as it is now, in its own language. Returns {"ok", "problems": [...]};
    writes nothing there."""
    if not (out / "journal.json").is_file():
        raise DataError(f"{out} holds no journal", next=f"write it with `histoproof journal RUN --out {out}`")
    recorded = read_json(out / "journal.json")
    if not isinstance(recorded, dict) or not {"evidence", "lang"} <= set(recorded):
        raise DataError(f"{out / 'journal.json'} is damaged", next="write the journal again")
    problems, lang = _changed_evidence(recorded), recorded["lang"]
    with tempfile.TemporaryDirectory() as fresh:
        evidence, studies, audits = _read(paths)
        for name in write_pages(evidence, Path(fresh), lang, studies, audits):
            theirs = out / name
            if not theirs.is_file():
                problems.append(f"{theirs} is missing")
            elif sha256_file(theirs) != sha256_file(Path(fresh) / name):
                problems.append(f"{theirs} is not what the evidence says now")
    return {"ok": not problems, "problems": problems}


def _check_place(paths: Sequence[Path], out: Path) -> None:
    """Refuse to write over what is no journal, or into the evidence."""
    if out.is_dir() and any(out.iterdir()) and not (out / "journal.json").is_file():
        raise OutputError(f"{out} holds other files", next="give a new folder, or one that holds a journal, with --out")
    for path in paths:
        if out.resolve() == path.resolve() or path.resolve() in out.resolve().parents:
            raise OutputError(f"{out} lies within {path}, its own evidence", next="give another folder with --out")


def _read(paths: Sequence[Path]) -> tuple[list[RunEvidence], list[DoseEvidence], list[AuditEvidence]]:
    return (
        [read_evidence(path) for path in paths if not is_dose(path) and not is_audit(path)],
        [read_dose(path) for path in paths if is_dose(path)],
        [read_audit(path) for path in paths if is_audit(path)],
    )


def _changed_evidence(recorded: Any) -> list[str]:
    problems = []
    for name, digest in recorded["evidence"].items():
        path = Path(name)
        if not path.is_file():
            problems.append(f"evidence is gone: {path}")
        elif sha256_file(path) != digest:
            problems.append(f"evidence was changed since the journal was written: {path}")
    return problems
