"""Rows of a dataset of patches, read past the HDF5 library where its layout is plain: by any thread, and safely.

The library holds one lock for everything, and a chunk of size 0 in a damaged file makes it crash. Where patches lie one after the
other, or in chunks of whole patches that are gzipped or bare, their place in the file is all that is needed. Other layouts are
left to the library, but never a chunk whose place in the file cannot be.
"""

import os
import zlib
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from .pcam import PATCH_SHAPE

__all__ = ["Read", "absent_part", "at_offset", "check_chunks", "filters_of", "plain_offset", "reader"]


class Read(Protocol):
    """Reads patches as they are stored; any thread may call it."""

    def __call__(self, start: int, stop: int, out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        """Rows start to stop, (n, 96, 96, 3); in `out` where it is given. Raises OSError for what cannot be read."""


_NAMES = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_ABSENT, _BROKEN = -1, -2


def filters_of(x: h5py.Dataset) -> list[str]:
    """The filters of a dataset in order, in words, e.g. ["shuffle", "gzip 4"]."""
    plist = x.id.get_create_plist()
    found = []
    for k in range(plist.get_nfilters()):
        number, _, values, name = plist.get_filter(k)
        text = _NAMES.get(number, name.decode(errors="replace") or str(number))
        found.append(f"{text} {values[0]}" if number == 1 and values else text)
    return found


def reader(x: h5py.Dataset, path: Path) -> Read:
    """The fastest and safest way to read rows of `x` (N, 96, 96, 3), a dataset of the file `path`."""
    if (offset := plain_offset(x, path)) is not None:
        return at_offset(path, offset, x.dtype)
    if x.chunks is None:
        return _by_library(x, None)
    table = _Table(x)
    names = [name.split()[0] for name in filters_of(x)]
    if _plain(x, path) and x.chunks[1:] == PATCH_SHAPE and names in ([], ["gzip"]):
        return _by_table(x, path, table, gzipped=bool(names))
    return _by_library(x, table)


def plain_offset(x: h5py.Dataset, path: Path) -> int | None:
    """The byte of the file `path` at which the rows of `x` begin, one after the other as they are in memory; None otherwise."""
    offset = x.id.get_offset() if x.chunks is None and _plain(x, path) else None
    return None if offset is None else int(offset)


def _plain(x: h5py.Dataset, path: Path) -> bool:
    here = not x.external and not x.is_virtual and x.file.filename == str(path)
    return bool(x.dtype.isnative and not x.file.userblock_size and here)


def absent_part(x: h5py.Dataset) -> str | None:
    """In words, which part of a dataset was never written to its file, or is lost in a damaged index; None where all is there."""
    if x.external or x.is_virtual:
        return None
    if x.chunks is None:
        return "all" if x.nbytes and not x.id.get_storage_size() else None
    try:
        here = int(x.id.get_num_chunks())
    except (RuntimeError, OSError, ValueError):
        return None  # reading will tell
    chunks = int(np.prod([-(-n // c) for n, c in zip(x.shape, x.chunks, strict=True)]))
    return f"{chunks - here:,} of {chunks:,} chunks" if here < chunks else None


def check_chunks(y: h5py.Dataset) -> None:
    """Raise OSError if a chunk of a small dataset cannot be where the file says."""
    if y.chunks is not None:
        _Table(y).check(0, int(y.shape[0]))


def at_offset(path: Path, offset: int, dtype: np.dtype[Any]) -> Read:
    """Rows that lie one after the other in a file, from byte `offset`. pread needs no lock, and faults no pages as a map does."""
    size = int(np.prod(PATCH_SHAPE)) * dtype.itemsize
    file = _Descriptor(path)

    def read(start: int, stop: int, out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        block = np.empty((stop - start, *PATCH_SHAPE), dtype) if out is None else out
        into = block.reshape(-1).data.cast("B")
        done = 0
        while done < len(into):
            got = os.preadv(file.number, [into[done:]], offset + start * size + done)
            if got == 0:
                raise OSError(f"the file ends within patch {start + done // size}")
            done += got
        return block

    return read


class _Descriptor:
    """A file open for reading until nobody holds it."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        os.close(self.number)


class _Table:
    """Where each chunk of a dataset lies in its file. Chunks of the same rows (parts of patches) share one verdict."""

    def __init__(self, x: h5py.Dataset) -> None:
        self.rows = int(x.chunks[0])
        count = -(-int(x.shape[0]) // self.rows)
        self.offsets = np.full(count, _ABSENT, np.int64)
        self.sizes = np.zeros(count, np.int64)
        self.masked = np.zeros(count, np.bool_)
        """Chunks that are stored without their filters."""
        end = Path(x.file.filename).stat().st_size
        seen, whole = set[tuple[int, ...]](), True

        def note(info: Any) -> None:
            nonlocal whole
            at = info.chunk_offset[0] // self.rows
            possible = 0 < info.size <= end - info.byte_offset and info.byte_offset > 0
            if not possible or at >= count or info.chunk_offset in seen:
                whole = False
                self.offsets[min(at, count - 1)] = _BROKEN
                return
            seen.add(info.chunk_offset)
            if self.offsets[at] != _BROKEN:
                self.offsets[at], self.sizes[at] = info.byte_offset, info.size
                self.masked[at] |= info.filter_mask != 0

        try:
            x.id.chunk_iter(note)
        except (RuntimeError, OSError, ValueError):  # part of the index is damaged: ask for each chunk
            whole = False
            for at in np.flatnonzero(self.offsets == _ABSENT):
                try:
                    note(x.id.get_chunk_info_by_coord((int(at) * self.rows, *(0 for _ in x.shape[1:]))))
                except (RuntimeError, OSError, ValueError, TypeError):
                    self.offsets[at] = _BROKEN
        if not whole:  # in a damaged index, what is not there is lost; in a sound one it was never written
            self.offsets[self.offsets == _ABSENT] = _BROKEN

    def check(self, start: int, stop: int) -> None:
        """Raise OSError if a chunk of these rows cannot be read."""
        if (self.offsets[start // self.rows : -(-stop // self.rows)] == _BROKEN).any():
            raise OSError("the file's index of chunks is damaged here")


def _by_table(x: h5py.Dataset, path: Path, table: _Table, *, gzipped: bool) -> Read:
    rows, dtype, n = table.rows, x.dtype, int(x.shape[0])
    size = rows * int(np.prod(PATCH_SHAPE)) * dtype.itemsize
    fill = x.fillvalue
    file = _Descriptor(path)

    def chunk(k: int) -> NDArray[np.generic]:
        packed = os.pread(file.number, int(table.sizes[k]), int(table.offsets[k]))
        if gzipped and not table.masked[k]:
            try:
                packed = zlib.decompress(packed, bufsize=size)
            except zlib.error as e:
                raise OSError(f"gzip: {e}") from None
        if len(packed) != size:
            raise OSError(f"a chunk holds {len(packed):,} bytes, not {size:,}")
        return np.frombuffer(packed, dtype).reshape(rows, *PATCH_SHAPE)

    def read(start: int, stop: int, out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        table.check(start, stop)
        block = np.empty((stop - start, *PATCH_SHAPE), dtype) if out is None else out
        for k in range(start // rows, -(-stop // rows)):
            low, high = max(k * rows, start), min((k + 1) * rows, stop, n)
            written = table.offsets[k] != _ABSENT
            block[low - start : high - start] = chunk(k)[low - k * rows : high - k * rows] if written else fill
        return block

    return read


def _by_library(x: h5py.Dataset, table: _Table | None) -> Read:
    def read(start: int, stop: int, out: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        if table is not None:
            table.check(start, stop)
        block: NDArray[np.generic] = x[start:stop]
        if out is not None:
            out[...] = block
        return block if out is None else out

    return read
