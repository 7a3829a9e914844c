"""One pass over a split's pixels on several threads, in order, with a bounded number of blocks in memory."""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .findings import Finding
from .inspection import Inspection, Inspector
from .pcam import PATCH_SHAPE, reason_of
from .pixels import as_float64, looks_scaled
from .sources import DAMAGE, Source
from .store import BLOCK_ROWS

__all__ = ["Piece", "in_order", "inspect_source", "restored", "threads", "unreadable_findings"]

_ROWS = 128
"""Patches to a task: 3.5 MB as uint8, 14 MB as float32."""
_MOST_BYTES = 32 << 20
_ROUNDING = 1e-2


@dataclass(frozen=True)
class Piece:
    """Consecutive patches of a split, seen. `pixels` (n, 96, 96, 3) uint8; `digest` is their SHA-256 where it was asked for."""

    start: int
    pixels: NDArray[np.uint8]
    seen: Inspection
    unreadable: list[int]
    reason: str
    digest: str | None


def threads() -> int:
    """Worker threads: one for each core this process may use, 8 at most."""
    return min(8, len(os.sched_getaffinity(0)))


def inspect_source(source: Source, *, digest: bool = False) -> Iterator[Piece]:
    """The pieces of a split in order; `digest` takes the SHA-256 of each 1,024 patches, as a store's manifest has them.

    A piece's pixels are overwritten once the next piece is asked for.
    """
    rows = BLOCK_ROWS if digest else _rows(source)
    local = threading.local()
    free: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
    for _ in range(min(_ahead() + 1, -(-source.n // rows))):
        free.put(np.empty((min(rows, source.n), *PATCH_SHAPE), np.uint8))

    def task(start: int) -> Piece:
        if not hasattr(local, "inspector"):
            local.inspector = Inspector()
            local.stored = None if source.dtype == np.uint8 else np.empty((rows, *PATCH_SHAPE), source.dtype)
        stop = min(start + rows, source.n)
        into = free.get()[: stop - start]
        stored = into if local.stored is None else local.stored[: stop - start]
        unreadable, reason = _read(source, start, stored)
        known = np.zeros(stop - start, np.bool_) if source.known is None else source.known[start:stop].copy()
        known[[row - start for row in unreadable]] = True
        pixels, seen = local.inspector(stored, source.name, start, known, into)
        sha = hashlib.sha256(pixels.data.cast("B")).hexdigest() if digest else None
        return Piece(start, pixels, seen, unreadable, reason, sha)

    for piece in in_order(task, range(0, source.n, rows)):
        yield piece
        base = piece.pixels.base
        free.put(piece.pixels if base is None else base)


def _rows(source: Source) -> int:
    """Patches to a task: whole chunks of the file where they are not too large."""
    most = max(_ROWS, _MOST_BYTES // (int(np.prod(PATCH_SHAPE)) * source.dtype.itemsize))
    if source.chunk >= most:
        return most
    return max(source.chunk, _ROWS // source.chunk * source.chunk)


def _ahead() -> int:
    """Tasks under way or done and waiting for their turn."""
    return threads() + 2


def in_order(task: Callable[[Any], Any], work: Any) -> Iterator[Any]:
    """task(item) for each item on `threads()` threads, results in order; a bounded number waits."""
    with ThreadPoolExecutor(threads(), thread_name_prefix="audit") as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for item in work:
                waiting.append(pool.submit(task, item))
                if len(waiting) >= _ahead():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _read(source: Source, start: int, out: NDArray[np.generic]) -> tuple[list[int], str]:
    """Read patches from `start` into `out`; those that cannot be read are zero, and named with the first one's reason."""
    try:
        source.read(start, start + len(out), out)
        return [], ""
    except DAMAGE as e:
        reason = reason_of(e)
    out[...] = 0
    unreadable = []
    for row in range(start, start + len(out)):
        try:
            source.read(row, row + 1, out[row - start : row - start + 1])
        except DAMAGE:
            out[row - start] = 0
            unreadable.append(row)
    return unreadable, reason


def unreadable_findings(split: str, rows: list[int], reason: str) -> list[Finding]:
    """One finding for each run of rows that cannot be read."""
    found = []
    for run in np.split(np.asarray(rows), np.flatnonzero(np.diff(rows) != 1) + 1):
        if len(run):
            words = f"patch {run[0]}" if len(run) == 1 else f"patches {run[0]} to {run[-1]}"
            found.append(Finding("truncated_file", "error", split, int(run[0]), f"{words} cannot be read ({reason})"))
    return found


def restored(source: Source) -> Source | None:
    """The source with its pixels multiplied by 255 where the first ones seem to be divided by it; None for any other."""
    if source.dtype.kind != "f":
        return None
    first = np.empty((min(source.n, 64), *PATCH_SHAPE), source.dtype)
    unreadable, _ = _read(source, 0, first)
    if unreadable or not looks_scaled(first):
        return None

    def read(start: int, stop: int, out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        values = as_float64(source.read(start, stop)) * 255.0
        whole = np.rint(values)
        values = np.where(
            np.abs(values - whole) < _ROUNDING, whole, values
        )  # dividing rounded; the rest stays to be seen
        if out is not None:
            out[...] = values
        return values if out is None else out

    return replace(source, read=read, dtype=np.dtype(np.float64))
