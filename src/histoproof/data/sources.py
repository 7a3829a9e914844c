"""One view of a split for the audit, of official files or of a store, that goes on where a file is damaged.

`pcam.open_split` refuses what cannot be packed; here what cannot be read becomes a finding, and the rest is audited.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import read_lines
from .findings import Finding, is_finding, quarantine_reasons
from .officials import COUNTS
from .pcam import PATCH_SHAPE, SPLITS, SplitName, csv_rows, dataset, official_name, open_h5, reason_of
from .rows import Read, absent_part, at_offset, check_chunks, filters_of, plain_offset, reader
from .store import NO_LABEL, Split, Store, open_store

__all__ = ["DAMAGE", "Source", "open_source", "open_sources", "read_column", "recorded_findings"]

UNKNOWN = -1
_NUMBERS = "uif"
_MOST_PACKED = 1100
"""gzip makes nothing smaller than by this factor."""
_MOST_EMPTY = 1 << 30
"""Bytes of patches that may never have been written, in a split larger than any official one."""
DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError, MemoryError)
"""What h5py raises for damaged files."""
_INEXACT = {"nan", "infinite", "out_of_range", "non_integer"}


@dataclass(frozen=True)
class Source:
    """One split's patches."""

    name: SplitName
    n: int
    dtype: np.dtype[Any]
    read: Read
    chunk: int
    """Rows to a chunk of the file: they cost as much to read together as one of them alone."""
    x: Path
    y: Path | None
    meta: Path | None
    """A CSV with one row a patch of this split; a store's meta.csv, of all splits, has the column `split`."""
    labels: NDArray[np.int8] | None
    """(n,): 0, 1, or -1 for unknown; None without usable labels."""
    layout: dict[str, Any]
    """shape, chunks, filters of the pixels as stored."""
    known: NDArray[np.bool_] | None = None
    """(n,): in a store, patches whose pixels were replaced when they were packed."""
    store: Split | None = None
    offset: int | None = None
    """Where in the file the pixels begin, if they lie there one after the other, and are read from there as they are."""
    findings: list[Finding] = field(default_factory=list)
    """What opening it brought to light."""

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.generic]:
        """Patches by their rows, in any order, as stored. Rows that lie in one chunk are read once."""
        out = np.empty((len(indices), *PATCH_SHAPE), self.dtype)
        order = np.argsort(indices, kind="stable")
        spans = indices[order] // self.chunk
        for at in np.split(np.arange(len(order)), np.flatnonzero(np.diff(spans)) + 1):
            if not len(at):
                continue
            wanted = indices[order[at]]
            first = int(wanted[0])
            block = self.read(first, int(wanted[-1]) + 1)
            out[order[at]] = block[wanted - first]
        return out


def open_sources(folder: Path) -> tuple[list[Source], list[Finding], Store | None]:
    """(splits, findings, store) of a folder: findings about what could not be opened; `store` where it is one.

    Raises DataError where nothing can be audited.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}", next="give a folder with the official .h5 files, or a store")
    if (folder / "manifest.json").exists():
        store = open_store(folder)
        recorded = recorded_findings(store)
        return [_from_store(store, split, recorded) for split in store.splits.values()], recorded, store
    sources: list[Source] = []
    findings: list[Finding] = []
    for name in SPLITS:
        paths = [folder / official_name(name, part) for part in ("x.h5", "y.h5", "meta.csv")]
        if not any(path.exists() or path.is_symlink() for path in paths):
            continue
        try:
            sources.append(_from_files(folder, name))
        except _UnusableError as e:
            findings.append(Finding(e.kind, "error", name, None, e.words))  # type: ignore[arg-type]
    if not sources:
        raise _nothing(folder, findings)
    return sources, findings, None


def open_source(folder: Path, name: SplitName) -> Source:
    """One split of official files. Raises DataError where its pixels cannot be read at all."""
    try:
        return _from_files(folder, name)
    except _UnusableError as e:
        raise DataError(e.words, next="fetch the file again") from None


def read_column(path: Path, column: str, n: int, split: str | None = None) -> NDArray[np.str_]:
    """(n,) one column of a CSV as text, the rows of one split where it has a column `split`. Raises DataError."""
    with csv_rows(path) as reader:
        names = reader.fieldnames or []
        if column not in names:
            raise DataError(f"{path} has no column {column!r}", valid=", ".join(c for c in names if c) or "none")
        if names.count(column) > 1:
            raise DataError(f"{path} has {names.count(column)} columns {column!r}", valid="each name once")
        chosen = split if "split" in names else None
        at, where = names.index(column), names.index("split") if chosen else 0
        rows = (row for row in reader.reader if row)  # lists instead of dicts: three times as fast
        values = [
            row[at] if at < len(row) else ""
            for row in rows
            if chosen is None or (where < len(row) and row[where] == chosen)
        ]
    if len(values) != n:
        of_split = f" of {split}" if chosen else ""
        raise DataError(
            f"{path} has {len(values)} rows{of_split}, the split has {n} patches",
            valid="one row a patch, in order; {split} in the name stands for the split, or a column `split` tells them apart",
        )
    return np.array(values, dtype=np.str_)


def recorded_findings(store: Store) -> list[Finding]:
    """What packing found. Raises DataError for lines that are no findings about the store's patches."""
    path = store.path / "findings.jsonl"
    sizes = {str(name): len(split) for name, split in store.splits.items()}
    found = []
    for number, line in enumerate(read_lines(path), 1):
        if not is_finding(line, sizes):
            raise DataError(
                f"{path}: line {number} is no finding about this store: {str(line)[:120]}",
                next="the file was changed after packing: pack the official files again",
            )
        found.append(Finding(**line))
    return found


def _unexplained(split: Split, recorded: list[Finding]) -> list[Finding]:
    """A finding where the quarantine, which the manifest vouches for, has patches that nothing recorded explains."""
    explained = {index for name, index in quarantine_reasons(recorded) if name == split.name}
    rows = [row for row in split.quarantined.tolist() if row not in explained]
    if not rows:
        return []
    words = (
        f"findings.jsonl says nothing of {len(rows):,} patches in quarantine (first: {rows[0]}): changed after packing"
    )
    return [Finding("checksum_mismatch", "error", split.name, None, words)]


class _UnusableError(Exception):
    """A split whose pixels cannot be audited: a finding's kind and words."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind
        self.words = words


def _from_store(store: Store, split: Split, recorded: list[Finding]) -> Source:
    n = len(split)
    known = np.zeros(n, np.bool_)
    for finding in recorded:
        if finding.split == split.name and finding.kind in _INEXACT and finding.index is not None and finding.index < n:
            known[finding.index] = True
    labels = None
    if split.labels is not None:
        labels = np.where(np.isin(split.labels, (0, 1)), split.labels, UNKNOWN).astype(np.int8)
    path = split.folder / "images.npy"
    offset = int(np.load(path, mmap_mode="r").offset)
    findings = _unexplained(split, recorded)
    if split.labels is not None:
        odd = np.flatnonzero((split.labels > 1) & (split.labels != NO_LABEL))
        findings += [_bad_label(split.name, int(i), float(split.labels[i])) for i in odd]
    return Source(
        name=split.name,
        n=n,
        dtype=np.dtype(np.uint8),
        read=at_offset(path, offset, np.dtype(np.uint8)),
        chunk=1,
        x=path,
        y=split.folder / "labels.npy" if split.labels is not None else None,
        meta=store.path / "meta.csv",
        labels=labels,
        layout={"shape": [n, *PATCH_SHAPE], "chunks": None, "filters": []},
        known=known,
        store=split,
        findings=findings,
    )


def _from_files(folder: Path, name: SplitName) -> Source:
    x_path, y_path, meta_path = (folder / official_name(name, part) for part in ("x.h5", "y.h5", "meta.csv"))
    findings: list[Finding] = []
    try:
        x = _pixels(x_path)
        n = int(x.shape[0])
        if (absent := absent_part(x)) is not None:
            words = f"{x_path.name}: {absent} of pixels are not in the file: never written, or lost; they read as {x.fillvalue}"
            findings.append(Finding("truncated_file", "error", name, None, words))
        return Source(
            name=name,
            n=n,
            dtype=x.dtype,
            read=reader(x, x_path),
            offset=plain_offset(x, x_path),
            chunk=int(x.chunks[0]) if x.chunks else 1,
            x=x_path,
            y=y_path if y_path.is_file() else None,
            meta=_regular(meta_path, name, findings),
            labels=_labels(y_path, name, n, findings),
            layout={"shape": list(x.shape), "chunks": list(x.chunks) if x.chunks else None, "filters": filters_of(x)},
            findings=findings,
        )
    except DAMAGE as e:
        raise _UnusableError("truncated_file", f"{x_path.name} is damaged ({reason_of(e)})") from None


def _regular(path: Path, split: str, findings: list[Finding]) -> Path | None:
    if path.exists() and not path.is_file():  # a pipe would never end
        findings.append(Finding("truncated_file", "error", split, None, f"{path.name} is no regular file"))
    return path if path.is_file() else None


def _pixels(path: Path) -> h5py.Dataset:
    x = _find(_open(path), "x", path)
    if x.dtype.kind not in _NUMBERS or x.dtype.itemsize > 8:
        raise _UnusableError("wrong_shape", f"{path.name}: x has dtype {x.dtype}, valid: uint8 (or float32, float64)")
    if x.ndim != 4 or x.shape[1:] != PATCH_SHAPE:
        raise _UnusableError("wrong_shape", f"{path.name}: x has shape {x.shape}, valid: (N, 96, 96, 3)")
    if x.shape[0] == 0:
        raise _UnusableError("wrong_shape", f"{path.name} holds no patches (N = 0)")
    held = path.stat().st_size * (_MOST_PACKED if x.chunks else 1)
    if x.nbytes > held + _MOST_EMPTY and x.shape[0] > max(COUNTS.values()) and not (x.external or x.is_virtual):
        words = f"{path.name} says it holds {x.shape[0]:,} patches, {x.nbytes:,} bytes; the file has {path.stat().st_size:,}"
        raise _UnusableError("truncated_file", words)
    return x


def _open(path: Path) -> h5py.File:
    if path.exists() and not path.is_file():
        raise _UnusableError("truncated_file", f"{path.name} is no regular file")
    if not path.exists():
        reason = "is a link to something that is not there" if path.is_symlink() else "is missing"
        raise _UnusableError("truncated_file", f"{path.name} {reason}, so its split cannot be audited")
    with path.open("rb") if os.access(path, os.R_OK) else _denied(path) as raw:
        head = raw.read(64)
    try:
        return open_h5(path)
    except DataError as e:
        raise _UnusableError(
            "truncated_file", f"{path.name}: {_looks_like(head)}{e.problem.partition(' is ')[2]}"
        ) from None


def _denied(path: Path) -> Any:
    raise _UnusableError("truncated_file", f"{path.name} may not be read: permission denied")


def _looks_like(head: bytes) -> str:
    if head[:2] == b"\x1f\x8b":
        return "it is still compressed (gunzip it); "
    if head.lstrip()[:1] == b"<":
        return "it is a web page, not data; "
    return ""


def _find(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    try:
        return dataset(file, name, path)
    except DataError as e:
        raise _UnusableError("wrong_shape", f"{path.name}: {e.problem.removeprefix(str(path)).lstrip(': ')}") from None


def _labels(path: Path, split: str, n: int, findings: list[Finding]) -> NDArray[np.int8] | None:
    """The labels of a split; what is wrong with them goes to `findings`."""
    if not path.exists() and not path.is_symlink():
        return None
    try:
        with _open(path) as file:
            values = _label_values(_find(file, "y", path), path, n)
        good = (values == 0) | (values == 1)
        if not good.any():
            raise _UnusableError("bad_label", f"{path.name}: no label is 0 or 1 (the first is {values[0]:g})")
    except _UnusableError as e:
        findings.append(Finding(e.kind, "error", split, None, f"{e.words}: labels are not audited"))  # type: ignore[arg-type]
        return None
    findings.extend(_bad_label(split, int(index), values[index]) for index in np.flatnonzero(~good))
    return np.where(good, np.nan_to_num(values), UNKNOWN).astype(np.int8)


def _label_values(y: h5py.Dataset, path: Path, n: int) -> NDArray[np.float64]:
    if y.dtype.kind not in _NUMBERS + "b":
        raise _UnusableError("bad_label", f"{path.name}: y has dtype {y.dtype}")
    if y.shape is None or not y.ndim or (y.shape[0] != n and y.size == n):
        shape = "no shape" if y.shape is None else f"shape {y.shape}"
        raise _UnusableError("wrong_shape", f"{path.name}: y has {shape}, valid: (N, 1, 1, 1)")
    length = int(y.shape[0])
    if length != n:
        raise _UnusableError("length_mismatch", f"x holds {n} patches, y holds {length} labels ({path.name})")
    if y.size != n:
        raise _UnusableError("wrong_shape", f"{path.name}: y has shape {y.shape}, valid: (N, 1, 1, 1)")
    try:
        check_chunks(y)
        return np.asarray(y[...], dtype=np.float64).reshape(-1)
    except DAMAGE as e:
        raise _UnusableError("truncated_file", f"{path.name}: labels cannot be read ({reason_of(e)})") from None


def _bad_label(split: str, index: int, value: float) -> Finding:
    return Finding("bad_label", "error", split, index, f"label {value:g} is neither 0 nor 1")


def _nothing(folder: Path, findings: list[Finding]) -> DataError:
    if findings:
        return DataError(
            f"{folder}: no split can be audited. " + "; ".join(finding.detail for finding in findings),
            valid="x (N, 96, 96, 3) in an HDF5 file",
            next="the files are damaged, cut short, still compressed, or something else under that name: fetch them again",
        )
    packed = sorted(p.name for p in folder.iterdir() if p.name.endswith((".h5.gz", ".csv.gz")))
    advice = f"unpack {packed[0]} (gunzip)" if packed else "make some with `histoproof data synth`"
    return DataError(
        f"{folder} holds no PatchCamelyon split and no store",
        valid=", ".join(official_name(split, "x.h5") for split in SPLITS),
        next=advice,
    )
