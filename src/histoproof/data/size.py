"""The size mystery: the bytes on disk, explained cause by cause until they add up."""

import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .findings import Finding
from .pcam import PATCH_SHAPE
from .pixels import as_uint8
from .sources import DAMAGE, Source
from .stream import in_order

__all__ = ["bloat_findings", "size_table"]

_PATCH = int(np.prod(PATCH_SHAPE))
_LEVEL, _SAMPLE = 4, 48
Row = dict[str, Any]


def size_table(sources: list[Source]) -> dict[str, Any]:
    """{"splits": {name: {"bytes", "as_uint8", "factor", "rows": [{"cause", "bytes", "words"}], "gzip": {...}}}, "bytes", ...}.

    `bytes` are those on disk of pixels, labels and metadata; each split's rows add up to them exactly. `as_uint8` is the same
    patches at one byte a value, N x 27,648. `gzip` estimates from `n` patches what compression would leave of that; `missing` is
    what it would save where nothing is compressed.
    """
    splits = {source.name: _split(source) for source in sources}
    total = sum(split["bytes"] for split in splits.values())
    base = sum(split["as_uint8"] for split in splits.values())
    rows: dict[str, int] = {}
    for split in splits.values():
        for row in split["rows"]:
            rows[row["cause"]] = rows.get(row["cause"], 0) + row["bytes"]
    causes = [{"cause": cause, "bytes": n} for cause, n in rows.items()]
    return {"bytes": total, "as_uint8": base, "factor": total / base, "rows": causes, "splits": splits}


def bloat_findings(sources: list[Source]) -> list[Finding]:
    """Finding dtype_bloat (info) for pixels that take more than a byte a value."""
    found = []
    for source in sources:
        size = source.dtype.itemsize
        if size > 1:
            base = source.n * _PATCH
            words = (
                f"{source.n:,} patches x 27,648 values x {size} bytes ({source.dtype}) = {base * size / 1e9:.2f} GB; "
                f"as uint8, which holds 0-255 exactly, {base / 1e9:.2f} GB"
            )
            found.append(Finding("dtype_bloat", "info", source.name, None, words))
    return found


def _split(source: Source) -> dict[str, Any]:
    base = source.n * _PATCH
    rows: list[Row] = [_row("pixels as uint8", base, f"{source.n:,} patches x 27,648 values x 1 byte")]
    rows += _pixels(source, base)
    rows += _labels(source)
    if source.meta is not None and source.store is None:
        rows.append(_row("metadata", _bytes(source.meta), "the meta CSV, text"))
    total = sum(row["bytes"] for row in rows)
    return {"bytes": total, "as_uint8": base, "factor": total / base, "rows": rows, "gzip": _gzip(source, base)}


def _pixels(source: Source, base: int) -> list[Row]:
    """Causes that lead from `base` to the bytes of the file with the pixels."""
    size = source.dtype.itemsize
    rows = []
    if size > 1:
        rows.append(_row("dtype", base * (size - 1), f"{source.dtype} takes {size} bytes a value where 1 would do"))
    stored, padded = _storage(source.x, "x", base * size)
    if padded != base * size:
        rows.append(
            _row("chunk layout", padded - base * size, f"chunks {source.layout['chunks']} reach beyond the last patch")
        )
    if stored != padded:
        words = " + ".join(source.layout["filters"]) or "parts never written, or kept in other files"
        verb = "saves" if stored < padded else "adds"
        rows.append(_row("compression", stored - padded, f"what {words} {verb}"))
    rest = _bytes(source.x) - stored
    if other := _others(source.x):
        rows.append(_row("other datasets", sum(other.values()), f"in the same file: {', '.join(sorted(other)[:5])}"))
        rest -= sum(other.values())
    rows.append(
        _row("file overhead", rest, "headers and the index of the chunks" if source.store is None else "header")
    )
    return rows


def _labels(source: Source) -> list[Row]:
    if source.y is None:
        return []
    whole = _bytes(source.y)
    if source.store is not None:
        return [
            _row("labels as uint8", source.n, "1 byte a label"),
            _row("labels: file overhead", whole - source.n, "header"),
        ]
    try:
        with h5py.File(source.y) as file:
            y = file["y"]
            itemsize, count, stored = y.dtype.itemsize, y.size or 0, int(y.id.get_storage_size())
            dtype = str(y.dtype)
    except (*DAMAGE, AttributeError):
        return [_row("labels: file overhead", whole, "not readable")]
    rows = [_row("labels as uint8", count, "1 byte a label")]
    if itemsize > 1:
        rows.append(_row("labels: dtype", count * (itemsize - 1), f"{dtype} takes {itemsize} bytes a label"))
    if stored != count * itemsize:
        rows.append(_row("labels: chunks and compression", stored - count * itemsize, "what the layout adds or saves"))
    rows.append(_row("labels: file overhead", whole - stored, "HDF5 headers"))
    return rows


def _storage(path: Path, name: str, plain: int) -> tuple[int, int]:
    """(bytes the dataset takes in the file, bytes of its chunks before compression)."""
    if path.suffix == ".npy":
        return plain, plain
    try:
        return _stored(path, name, plain)
    except DAMAGE:
        return min(plain, _bytes(path)), plain


def _others(path: Path) -> dict[str, int]:
    """{name: bytes} of what else a file holds beside x."""
    found: dict[str, int] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and name != "x" and (size := int(item.id.get_storage_size())):
            found[name] = size

    if path.suffix == ".npy":
        return found
    try:
        with h5py.File(path) as file:
            file.visititems(note)
    except DAMAGE:
        return {}
    return found


def _stored(path: Path, name: str, plain: int) -> tuple[int, int]:
    with h5py.File(path) as file:
        dataset = file[name]
        stored = int(dataset.id.get_storage_size())
        if dataset.external or dataset.is_virtual:
            return 0, plain
        if dataset.chunks is None:
            return stored, plain
        chunks = [-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)]
        return stored, int(np.prod(chunks)) * int(np.prod(dataset.chunks)) * dataset.dtype.itemsize


def _gzip(source: Source, base: int) -> dict[str, Any]:
    """What gzip level 4, one patch a chunk, would make of the patches as uint8: an estimate from patches spread evenly."""
    indices = np.unique(np.linspace(0, source.n - 1, min(_SAMPLE, source.n)).astype(np.int64))
    try:
        pixels, _ = as_uint8(source.rows(indices))
    except DAMAGE:
        return {"level": _LEVEL, "n": 0, "ratio": None, "bytes": None, "missing": None}
    packed = sum(in_order(lambda patch: len(zlib.compress(patch.data.cast("B"), _LEVEL)), pixels))
    ratio = packed / (len(pixels) * _PATCH)
    left = round(base * ratio)
    packs = any(name.split()[0] not in ("shuffle", "fletcher32") for name in source.layout["filters"])
    missing = 0 if packs else base - left
    return {"level": _LEVEL, "n": len(pixels), "ratio": ratio, "bytes": left, "missing": missing}


def _row(cause: str, n: int, words: str) -> Row:
    return {"cause": cause, "bytes": int(n), "words": words}


def _bytes(path: Path) -> int:
    return path.stat().st_size
