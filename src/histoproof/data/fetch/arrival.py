"""One file on its way in: what came is kept beside the target, digested, and unpacked at the same time.

A connection that is cut leaves everything as it is, and the next one goes on. A process that is killed leaves only the part; the
next one replays it, because neither a digest nor a decompressor can be taken up in the middle.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["Arrival", "DamageError", "Unpacker", "arriving"]

_PIECE = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS


class DamageError(Exception):
    """Bytes that are not the file: why, in words, and whether to fetch them again is of no use."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        self.final = final
        super().__init__(why)


class Unpacker:
    """Unpacks a gzip stream of one or more members, piece by piece, in bounded memory."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP)
        self._where = ""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` unpacks to, in pieces of up to 1 MiB. Raises DamageError."""
        while data:  # a member's last 8 bytes are taken only once all of it is out: nothing stays inside
            if self._member.eof:
                data = data.lstrip(b"\0")  # padding after a member, as gzip itself takes it
                if not data:
                    return
                self._member, self._where = zlib.decompressobj(_GZIP), "after the end of the gzip stream: "
            try:
                piece = self._member.decompress(data, _PIECE)
            except zlib.error as e:
                raise DamageError(f"{self._where}not gzip ({e})") from None
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if piece:
                yield piece

    @property
    def finished(self) -> bool:
        """Whether the bytes so far end where a member ends."""
        return self._member.eof


class Arrival:
    """The part (kept) and what it unpacks to, growing together."""

    def __init__(self, part: BinaryIO, output: BinaryIO, *, gz: bool, limit: int) -> None:
        """`limit`: bytes that the part can have at most."""
        self._part = part
        self._output = output
        self._gz = gz
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        self.have = 0
        self._packed_md5 = hashlib.md5(usedforsecurity=False)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._unpacker = Unpacker() if self._gz else None

    def replay(self, report: Callable[[int], None]) -> None:
        """Take in what an earlier process left. Raises DamageError."""
        while piece := self._part.read(_PIECE):
            self._take(piece)
            report(self.have)

    def feed(self, data: bytes) -> None:
        """Take in more bytes. Raises DamageError; an OSError if they cannot be written."""
        self._take(data)  # first: bytes that cannot be right never reach the part
        self._part.write(data)

    def _take(self, data: bytes) -> None:
        if self.have + len(data) > self._limit:
            raise DamageError(f"more than {self._limit} bytes")
        for piece in self._unpacker.feed(data) if self._unpacker else (data,):
            self._md5.update(piece)
            self._output.write(piece)
        self._packed_md5.update(data)
        self.have += len(data)

    def restart(self) -> None:
        """Forget everything."""
        for file in (self._part, self._output):
            file.seek(0)
            file.truncate()
        self._begin()

    @property
    def packed_md5(self) -> str:
        """md5 of the bytes that came."""
        return self._packed_md5.hexdigest()

    def md5(self) -> str:
        """md5 of what they unpack to. Raises DamageError if the gzip stream has not come to its end."""
        if self._unpacker is not None and not self._unpacker.finished:
            raise DamageError("the gzip stream ends too early")
        return self._md5.hexdigest()


@contextmanager
def arriving(part: Path, output: Path, *, gz: bool, limit: int) -> Iterator[Arrival]:
    """An Arrival over the files `part`, made if it is not there and kept whatever happens, and `output`, made anew."""
    try:
        with part.open("r+b" if part.exists() else "w+b") as kept, output.open("wb") as unpacked:
            yield Arrival(kept, unpacked, gz=gz, limit=limit)
    finally:
        if part.is_file() and part.stat().st_size == 0:
            part.unlink()
