"""Official files into a store, in one streaming pass over the pixels, with the same eyes as the audit.

What cannot be represented exactly as uint8 (NaN, infinite, outside 0-255, not a whole number) is never silently repaired:
it becomes a finding, and its patch goes into quarantine. So do patches without content, copies across splits, and copies
with contradicting labels.
"""

import csv
import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import DataError
from ..files import JsonLines, check_space, new_folder, sha256_file, write_json, write_text
from .copies import find_copies
from .findings import Finding, has_errors, quarantine_reasons
from .inspection import Inspection
from .pcam import PATCH_SHAPE, SourceSplit, find_splits, meta_columns, read_labels, read_meta
from .sources import Source, open_source
from .store import BLOCK_ROWS, FORMAT, NO_LABEL, VERSION, content_sha256
from .stream import inspect_source, restored, unreadable_findings
from .tap import FileDigest, open_digest

__all__ = ["pack"]

Progress = Callable[[int, int], None]
"""Called with (patches done, patches in all)."""

_PATCH_BYTES = int(np.prod(PATCH_SHAPE))


def pack(source: Path, out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Pack the official files in `source` into a new store at `out`.

    Returns {"store", "splits": {name: {"n", "positive", "dtype", "images_sha256", "quarantined"}}, "findings": {kind: n},
    "content_sha256", "errors": bool}. Raises DataError for files that cannot be packed (nothing is left behind) and
    OutputError where `out` exists, cannot be written, or would not fit.
    """
    sources = find_splits(source)
    check_space(out, sum(s.n for s in sources) * _PATCH_BYTES)
    total = sum(s.n for s in sources)
    findings: list[Finding] = []
    splits: dict[str, Any] = {}
    files: list[dict[str, Any]] = []
    with new_folder(out, what="store") as folder:
        done, seen = 0, []
        for split in sources:
            (folder / split.name).mkdir()
            view = open_source(source, split.name)
            with open_digest(split.x) as tap:
                splits[split.name], inspection = _pack_split(
                    split, view, tap, folder / split.name, findings, _offset(progress, done, total)
                )
                files += _source_files(split, tap)
            seen.append((view, inspection))
            done += split.n
        findings += find_copies(seen)
        quarantine = _quarantine_csv(findings)
        write_text(folder / "quarantine.csv", quarantine)
        for name, _ in quarantine_reasons(findings):
            splits[name]["quarantined"] += 1
        _write_meta(sources, folder / "meta.csv")
        lines = JsonLines(folder / "findings.jsonl")
        lines.append(*(finding.as_json() for finding in findings))
        lines.close()
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "histoproof": __version__,
            "block_rows": BLOCK_ROWS,
            "source": {"folder": str(source), "files": files},
            "splits": splits,
            "meta_sha256": sha256_file(folder / "meta.csv"),
            "content_sha256": content_sha256(splits, quarantine),
        }
        write_json(folder / "manifest.json", manifest)
    return _report(out, manifest, findings)


def _pack_split(
    source: SourceSplit, view: Source, tap: FileDigest, folder: Path, findings: list[Finding], progress: Progress
) -> tuple[dict[str, Any], Inspection]:
    labels = _pack_labels(source, folder, findings)
    images, seen = _pack_images(view, tap, folder / "images.npy", progress)
    findings += seen.findings
    positive = None if labels is None else int((np.load(folder / "labels.npy") == 1).sum())
    manifest = {
        "n": source.n,
        "positive": positive,
        "source_dtype": source.dtype,
        "images": images,
        "labels": labels,
        "quarantined": 0,
    }
    return manifest, seen


def _pack_images(source: Source, tap: FileDigest, path: Path, progress: Progress) -> tuple[dict[str, Any], Inspection]:
    if restored(source) is not None:
        raise DataError(
            f"{source.x}: pixels seem to be scaled to 0-1", valid="whole numbers 0-255", next="multiply x by 255"
        )
    header = io.BytesIO()
    shape = (source.n, *PATCH_SHAPE)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    whole, blocks = hashlib.sha256(header.getvalue()), _BlockDigests()
    parts = []
    # Three more than see the pixels: one digests the whole, one the blocks, this one writes. They hardly need the interpreter.
    with path.open("wb", buffering=0) as file, ThreadPoolExecutor(2, "digest") as digesting:
        _write(file, header.getvalue())
        for piece in inspect_source(source, tap=tap):
            if piece.unreadable:
                first = unreadable_findings(source.name, piece.unreadable, piece.reason)[0]
                raise DataError(f"{source.x}: {first.detail}", next="the file is damaged or cut short: fetch it again")
            content = piece.pixels.reshape(-1).data
            taken = [digesting.submit(whole.update, content), digesting.submit(blocks.update, piece.pixels)]
            _write(file, content)
            parts.append(piece.seen)
            stop = piece.start + len(piece.pixels)
            if source.offset is None:  # a little behind, so that a large file comes from the disk once
                tap.advance(source.x.stat().st_size * stop // source.n)
            for digest in taken:
                digest.result()
            progress(stop, source.n)
    seen = Inspection.join(parts)
    digests = {"sha256": whole.hexdigest(), "blocks": blocks.close(), "inexact_patches": int((~seen.exact).sum())}
    return digests, seen


def _write(file: io.FileIO, content: bytes | memoryview) -> None:
    left = memoryview(content)
    while left:  # a signal, or a disk that is filling up, makes a write short
        left = left[file.write(left) :]


class _BlockDigests:
    """SHA-256 of each BLOCK_ROWS patches, whatever the pieces they come in."""

    def __init__(self) -> None:
        self._digest, self._rows, self._done = hashlib.sha256(), 0, list[str]()

    def update(self, pixels: NDArray[np.uint8]) -> None:
        """Take the next patches (n, 96, 96, 3)."""
        while len(pixels):
            some, pixels = pixels[: BLOCK_ROWS - self._rows], pixels[BLOCK_ROWS - self._rows :]
            self._digest.update(some.reshape(-1).data)
            self._rows += len(some)
            if self._rows == BLOCK_ROWS:
                self.close()

    def close(self) -> list[str]:
        """The digests, that of a shorter last block among them."""
        if self._rows:
            self._done.append(self._digest.hexdigest())
            self._digest, self._rows = hashlib.sha256(), 0
        return self._done


def _pack_labels(source: SourceSplit, folder: Path, findings: list[Finding]) -> dict[str, Any] | None:
    values = read_labels(source)
    if values is None:
        return None
    good = (values == 0) | (values == 1)
    if not good.any():
        raise DataError(
            f"{source.y}: no label is 0 or 1 (the first is {values[0]:g})", valid="0 (no tumour) or 1 (tumour)"
        )
    for index in np.flatnonzero(~good):
        detail = f"label {values[index]:g} is neither 0 nor 1: stored as unknown"
        findings.append(Finding("bad_label", "error", source.name, int(index), detail))
    labels: NDArray[np.uint8] = np.where(good, np.nan_to_num(values), NO_LABEL).astype(np.uint8)
    np.save(folder / "labels.npy", labels)
    return {"sha256": sha256_file(folder / "labels.npy")}


def _quarantine_csv(findings: list[Finding]) -> str:
    reasons = quarantine_reasons(findings)
    rows = [(split, str(index), "+".join(kinds)) for (split, index), kinds in sorted(reasons.items())]
    return _csv([("split", "index", "reasons"), *rows])


def _write_meta(sources: list[SourceSplit], path: Path) -> None:
    """One row a patch; the official columns of every split that has a meta file, empty for those without. Rows stream."""
    columns = list(
        dict.fromkeys(c for s in sources if s.meta for c in meta_columns(s.meta) if c not in ("split", "index"))
    )
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("split", "index", *columns))
        for source in sources:
            if source.meta is None:
                blank = ("",) * len(columns)
                writer.writerows((source.name, index, *blank) for index in range(source.n))
                continue
            for index, row in enumerate(read_meta(source.meta, source.n)):
                writer.writerow((source.name, index, *(row.get(c) or "" for c in columns)))


def _csv(rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _source_files(source: SourceSplit, tap: FileDigest) -> list[dict[str, Any]]:
    """{"name", "bytes", digest under the name of its algorithm} of each file of a split."""
    size, digest = tap.close()
    small = [path for path in (source.y, source.meta) if path is not None]
    return [
        {"name": source.x.name, "bytes": size, "xxh128": digest},
        *({"name": p.name, "bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in small),
    ]


def _offset(progress: Progress | None, done: int, total: int) -> Progress:
    return lambda step, _: progress(done + step, total) if progress else None


def _report(out: Path, manifest: dict[str, Any], findings: list[Finding]) -> dict[str, Any]:
    kinds = [finding.kind for finding in findings]
    return {
        "store": str(out),
        "splits": {
            name: {
                "n": split["n"],
                "positive": split["positive"],
                "dtype": split["source_dtype"],
                "images_sha256": split["images"]["sha256"],
                "quarantined": split["quarantined"],
            }
            for name, split in manifest["splits"].items()
        },
        "findings": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        "content_sha256": manifest["content_sha256"],
        "errors": has_errors(findings),
    }
