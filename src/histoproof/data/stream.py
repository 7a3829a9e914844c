"""One pass over a split's pixels on several threads, in order, with a bounded number of blocks in memory."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cores import available_cores
from .findings import Finding
from .inspection import Inspection, Inspector
from .pcam import PATCH_SHAPE, reason_of
from .pixels import as_float64, looks_scaled
from .sources import DAMAGE, Source
from .store import BLOCK_ROWS
from .tap import FileDigest

__all__ = ["Piece", "in_order", "inspect_source", "restored", "threads", "unreadable_findings"]

_ROWS = 128
"""Patches to a task: 3.5 MB as uint8, 14 MB as float32."""
_MOST_BYTES = 32 << 20
_SLICE = 16
"""Patches read at once and seen before the next: they are still in the cache."""
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
    return min(8, available_cores())


def inspect_source(source: Source, *, digest: bool = False, tap: FileDigest | None = None) -> Iterator[Piece]:
    """The pieces of a split in order; `digest` takes the SHA-256 of each 1,024 patches, as a store's manifest has them.

    `tap` is given the pixels as they are read, where they lie in the file one after the other. One thread then sees them all:
    others are to find work of their own.

    A piece's pixels are overwritten once the next piece is asked for.
    """
    rows = BLOCK_ROWS if digest else _rows(source)
    tap = None if source.offset is None else tap
    workers = threads() if tap is None else 1
    local = threading.local()
    free: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
    for _ in range(min(_ahead(workers) + 1, -(-source.n // rows))):
        free.put(np.empty((min(rows, source.n), *PATCH_SHAPE), np.uint8))

    def task(start: int) -> Piece:
        if not hasattr(local, "inspector"):
            local.inspector = Inspector()
            local.reads = _Reads(source, tap)
        stop = min(start + rows, source.n)
        pixels = free.get()[: stop - start]
        known = np.zeros(stop - start, np.bool_) if source.known is None else source.known[start:stop].copy()
        reads: _Reads = local.reads
        seen = local.inspector.follow(reads.blocks(start, pixels, known), pixels, source.name, start, known)
        sha = hashlib.sha256(pixels.data.cast("B")).hexdigest() if digest else None
        return Piece(start, pixels, seen, reads.unreadable, reads.reason, sha)

    for piece in in_order(task, range(0, source.n, rows), workers):
        yield piece
        base = piece.pixels.base
        free.put(piece.pixels if base is None else base)


class _Reads:
    """Reads a split a few patches at a time into the same room again and again; each thread needs its own."""

    def __init__(self, source: Source, tap: FileDigest | None) -> None:
        self._source, self._tap = source, tap
        self._step = source.chunk * max(1, _SLICE // source.chunk)
        room = (min(self._step, source.n), *PATCH_SHAPE)
        self._stored = None if source.dtype == np.uint8 else np.empty(room, source.dtype)
        self.unreadable: list[int] = []
        self.reason = ""

    def blocks(self, start: int, pixels: NDArray[np.uint8], known: NDArray[np.bool_]) -> Iterator[NDArray[np.generic]]:
        """The patches from `start` as stored, as many as `pixels` has room for, and into it where they are uint8.

        Those that cannot be read are zero, `known`, and listed in `unreadable` with the first one's `reason`.
        """
        self.unreadable, self.reason = [], ""
        for first in range(0, len(pixels), self._step):
            stop = min(first + self._step, len(pixels))
            block = pixels[first:stop] if self._stored is None else self._stored[: stop - first]
            unreadable, reason = _read(self._source, start + first, block)
            known[[row - start for row in unreadable]] = True
            self.unreadable += unreadable
            self.reason = self.reason or reason
            if self._tap is not None and self._source.offset is not None and not unreadable:
                self._tap.take(self._source.offset + (start + first) * block[0].nbytes, block)
            yield block


def _rows(source: Source) -> int:
    """Patches to a task: whole chunks of the file where they are not too large."""
    most = max(_ROWS, _MOST_BYTES // (int(np.prod(PATCH_SHAPE)) * source.dtype.itemsize))
    if source.chunk >= most:
        return most
    return max(source.chunk, _ROWS // source.chunk * source.chunk)


def _ahead(workers: int) -> int:
    """Tasks under way or done and waiting for their turn."""
    return workers + 2


def in_order(task: Callable[[Any], Any], work: Any, workers: int | None = None) -> Iterator[Any]:
    """task(item) for each item on so many threads (`threads()`), results in order; a bounded number waits."""
    workers = workers or threads()
    with ThreadPoolExecutor(workers, thread_name_prefix="audit") as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for item in work:
                waiting.append(pool.submit(task, item))
                if len(waiting) >= _ahead(workers):
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

    return replace(source, read=read, dtype=np.dtype(np.float64), offset=None)
