"""The audit: which files these are, what is wrong with their patches, what leaks, and where the bytes go.

One streaming pass over the pixels; memory holds a few blocks of patches, and some 80 bytes a patch of digests and measures.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import canonical, new_folder, sha256_file, write_json, write_text
from .copies import find_copies
from .extras import Extra, near_extra, suspects_extra
from .findings import Finding, has_errors
from .flat import FLAT_RULE
from .identity import CHECKSUM_RULE, identify
from .inspection import Inspection
from .outliers import OUTLIER_RULE, outlier_findings
from .partitions import (
    BALANCE_RULE,
    balance_findings,
    count_findings,
    label_findings,
    named_groups,
    overlap_findings,
    slide_findings,
    slides_of,
)
from .size import bloat_findings, size_table
from .sources import Source, open_sources
from .store import BLOCK_ROWS, Store
from .stream import inspect_source, restored, unreadable_findings

__all__ = ["audit", "write_audit"]

Progress = Callable[[int, int], None]
"""Called with (patches done, patches in all)."""
_SEVERITIES = ("error", "warning", "info")


def audit(
    folder: Path,
    *,
    groups: str | None = None,
    near: bool = False,
    suspects: bool = False,
    checksums: bool | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Audit official files or a store.

    `groups` "CSV:COLUMN" names what must not cross splits ("{split}" in CSV stands for the split's name); by default the slides
    (`wsi`) where meta has them. `near` and `suspects` add near-duplicates and suspicious labels. `checksums`: None takes those
    that are worth it, True all, False none.

    Returns {"folder" (absolute), "kind": "official files" | "store", "options": {"groups", "near", "labels", "checksums"},
    "splits": {name: {"n", "positive", "dtype", "bytes", "shape", "chunks", "filters", "quarantined", "groups", "is"}},
    "findings": [as JSON, errors first], "files": [{"name", "bytes", "split", "md5", "is"}],
    "size" (see `size.size_table`), "checks": [{"what", "done", "rule"}],
    "errors": bool}. Raises DataError where nothing can be audited.
    """
    sources, opened, store = open_sources(folder)
    findings = [*opened, *(finding for source in sources for finding in source.findings)]
    slides = slides_of(sources, findings)
    grouped = {"wsi": slides} if slides else {}
    if groups is not None:
        column, values = named_groups(sources, groups)
        grouped[column] = values
    files, about_files = ([], []) if store else identify(folder, sources, checksums)
    findings += about_files
    extras = {
        "near-duplicates": near_extra() if near else None,
        "suspicious labels": suspects_extra() if suspects else None,
    }
    asked = [extra for extra in extras.values() if extra]
    views = [_whole_numbers(source, findings) for source in sources]
    seen = _pass(views, findings, asked, store is not None and checksums is not False, progress)
    for source in sources:
        findings += outlier_findings(source.name, seen[source.name])
        findings += label_findings(source)
        if source.name in slides:
            findings += slide_findings(source, slides[source.name])
    findings += find_copies([(view, seen[view.name]) for view in views])
    findings += balance_findings(sources) + count_findings(sources)
    for column, values in grouped.items():
        findings += overlap_findings(column, values)
    findings += bloat_findings(sources)
    for extra in asked:
        findings += extra.findings(views, seen, findings)
    size = size_table(sources)
    found = _ordered(findings)
    return {
        "folder": str(folder.absolute()),
        "kind": "store" if store else "official files",
        "options": {"groups": groups, "near": near, "labels": suspects, "checksums": checksums},
        "splits": {source.name: _describe(source, size, files, grouped) for source in sources},
        "findings": [finding.as_json() for finding in found],
        "files": files,
        "size": size,
        "checks": _checks(sources, store, list(grouped), checksums, extras, asked=(near, suspects)),
        "errors": has_errors(found),
    }


def write_audit(result: dict[str, Any], out: Path) -> None:
    """Write audit.json (the whole result) and findings.jsonl (one finding a line) into a new folder, whole or not at all."""
    with new_folder(out, what="audit") as folder:
        write_json(folder / "audit.json", result)
        write_text(folder / "findings.jsonl", "".join(canonical(finding) + "\n" for finding in result["findings"]))


def _whole_numbers(source: Source, findings: list[Finding]) -> Source:
    """The source as it is; or with pixels that were divided by 255 multiplied again, which becomes a finding."""
    scaled = restored(source)
    if scaled is None:
        return source
    words = f"{source.n:,} patches seem to be divided by 255: audited after multiplying by 255, as is to be done before packing"
    findings.append(Finding("non_integer", "error", source.name, None, words))
    return scaled


def _pass(
    sources: list[Source], findings: list[Finding], extras: list[Extra], digest: bool, progress: Progress | None
) -> dict[str, Inspection]:
    """Look at every patch once. Appends to `findings`."""
    total, done = sum(source.n for source in sources), 0
    seen: dict[str, Inspection] = {}
    for source in sources:
        parts, unreadable, reason = [], [], ""
        for piece in inspect_source(source, digest=digest):
            parts.append(piece.seen)
            unreadable += piece.unreadable
            reason = reason or piece.reason
            for extra in extras:
                extra.take(source, piece.start, piece.pixels)
            if digest and source.store is not None:
                findings += _check_block(source, piece.start, piece.digest)
            if progress:
                progress(done + piece.start + len(piece.seen), total)
        done += source.n
        if digest:
            findings += _check_labels(source)
        seen[source.name] = Inspection.join(parts)
        findings += _collapsed(source, seen[source.name].findings)
        findings += unreadable_findings(source.name, unreadable, reason)
    return seen


def _check_block(source: Source, start: int, digest: str | None) -> list[Finding]:
    assert source.store is not None
    expected = source.store.digests["images"]["blocks"][start // BLOCK_ROWS]
    if digest == expected:
        return []
    stop = min(start + BLOCK_ROWS, source.n)
    where = f"{source.x.parent.name}/{source.x.name}: patches {start} to {stop - 1}"
    words = f"{where} are not what the manifest says: changed after packing"
    return [Finding("checksum_mismatch", "error", source.name, None, words)]


def _check_labels(source: Source) -> list[Finding]:
    if source.store is None or source.y is None or sha256_file(source.y) == source.store.digests["labels"]["sha256"]:
        return []
    words = f"{source.y.parent.name}/{source.y.name} is not what the manifest says: changed after packing"
    return [Finding("checksum_mismatch", "error", source.name, None, words)]


def _collapsed(source: Source, findings: list[Finding]) -> list[Finding]:
    """A kind found in most patches is a matter of the split, and said once."""
    counts = Counter(finding.kind for finding in findings)
    whole = {kind for kind, n in counts.items() if n > 100 and n > source.n / 2}
    kept = [finding for finding in findings if finding.kind not in whole]
    for kind in sorted(whole):
        example = next(finding for finding in findings if finding.kind == kind)
        words = f"{counts[kind]:,} of {source.n:,} patches: the whole split was changed; e.g. {example.index}: {example.detail}"
        kept.append(Finding(kind, "error", source.name, None, words))
    return kept


def _ordered(findings: list[Finding]) -> list[Finding]:
    """Without doubles (what packing recorded and the audit found again); errors first, then as found."""
    unique: dict[tuple[Any, ...], Finding] = {}
    for finding in findings:
        general = finding.detail if finding.index is None else ""
        key = (finding.kind, finding.split, finding.index, general)
        unique.setdefault(key, finding)
    return sorted(unique.values(), key=lambda finding: _SEVERITIES.index(finding.severity))


def _describe(
    source: Source,
    size: dict[str, Any],
    files: list[dict[str, Any]],
    grouped: dict[str, dict[str, NDArray[np.str_]]],
) -> dict[str, Any]:
    labels = source.labels
    return {
        "n": source.n,
        "positive": None if labels is None else int((labels == 1).sum()),
        "dtype": str(source.dtype),
        "bytes": size["splits"][source.name]["bytes"],
        **source.layout,
        "quarantined": None if source.store is None else len(source.store.quarantined),
        "groups": {
            column: len(set(values[source.name].tolist()) - {""})
            for column, values in grouped.items()
            if source.name in values
        },
        "is": next(
            (file["is"] for file in files if file["split"] == source.name and file["name"].endswith("x.h5")), None
        ),
    }


def _checks(
    sources: list[Source],
    store: Store | None,
    columns: list[str],
    checksums: bool | None,
    extras: dict[str, Extra | None],
    *,
    asked: tuple[bool, bool],
) -> list[dict[str, Any]]:
    """What was checked, by which rule; and what was not, and why."""
    unlabelled = [source.name for source in sources if source.labels is None]
    table: list[tuple[str, bool, str]] = [
        ("shapes, dtypes, lengths", True, "x (N, 96, 96, 3); y (N, 1, 1, 1) or (N,), as many as x, each 0 or 1"),
        (
            "values",
            True,
            "every value is finite, within 0-255 and a whole number (nan, infinite, out_of_range, non_integer)",
        ),
        ("blackout and washout", True, FLAT_RULE),
        ("outliers", True, OUTLIER_RULE),
        (
            "copies",
            True,
            "XXH3-128 of the pixels, and of sums that the 8 rotations and flips leave alone; every candidate's pixels compared. "
            "Left out: patches without content; and for rotations and flips, patches with values that uint8 cannot hold",
        ),
        ("class balance", len(unlabelled) < len(sources), BALANCE_RULE),
        (
            f"groups across splits ({', '.join(columns)})" if columns else "groups across splits",
            bool(columns),
            "each group lies in one split"
            if columns
            else "meta has no slides (wsi), and no --groups was given: leakage by slide cannot be seen",
        ),
        ("size", True, "bytes on disk against one byte a value, cause by cause"),
    ]
    if store:
        rule = "SHA-256 of labels and of each 1,024 patches against the manifest"
    else:
        rule = CHECKSUM_RULE if checksums is None else "md5 of every file"
    table.append(("checksums", checksums is not False, "--no-checksums" if checksums is False else rule))
    for (what, extra), wanted, option in zip(extras.items(), asked, ("--near", "--labels"), strict=True):
        missing = "not available in this version" if wanted else f"not asked for ({option})"
        table.append((what, extra is not None, extra.rule if extra else missing))
    if unlabelled:
        table.append((f"labels of {', '.join(unlabelled)}", False, "there are none that can be used"))
    return [{"what": what, "done": done, "rule": rule} for what, done, rule in table]
