"""The digest of a file, taken in one pass with the work that reads it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

__all__ = ["FileDigest", "open_digest"]

_STEP = 1 << 20


class FileDigest:
    """XXH3-128 of a file's bytes, in the order of the file, as `xxhsum -H2` prints it.

    Bytes that somebody else has read in any case are taken from there (`take`), those between are read here. It tells one file
    from another and finds any damage; that nobody forged a file to the digest it does not prove. What is in a store, pixels and
    labels, has its SHA-256.
    """

    def __init__(self, number: int) -> None:
        self._file = number
        self._digest = xxhash.xxh3_128()
        self._at = 0
        self._room = memoryview(bytearray(_STEP))

    def take(self, offset: int, content: NDArray[np.generic]) -> None:
        """The bytes from `offset`, not before those that were taken, as they were read."""
        assert offset >= self._at
        self.advance(offset)
        self._digest.update(content.data.cast("B"))
        self._at += content.nbytes

    def advance(self, offset: int | None) -> None:
        """Read on up to `offset`, or to the end."""
        while offset is None or self._at < offset:
            size = _STEP if offset is None else min(_STEP, offset - self._at)
            got = os.preadv(self._file, [self._room[:size]], self._at)
            if got == 0:
                return
            self._digest.update(self._room[:got])
            self._at += got

    def close(self) -> tuple[int, str]:
        """(bytes, digest in hex) of the whole file."""
        self.advance(None)
        return self._at, self._digest.hexdigest()


@contextmanager
def open_digest(path: Path) -> Iterator[FileDigest]:
    """The digest of a file, to be taken."""
    number = os.open(path, os.O_RDONLY)
    try:
        yield FileDigest(number)
    finally:
        os.close(number)
