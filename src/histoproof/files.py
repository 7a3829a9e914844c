"""Durable files: written whole or not at all, appended line by line, digested.

Everything on disk goes through here, so that "nothing half-written" is kept in one place.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DataError, OutputError, writing

__all__ = [
    "JsonLines",
    "atomic_path",
    "canonical",
    "check_new",
    "check_space",
    "digest_of",
    "is_leftover",
    "new_folder",
    "read_json",
    "read_lines",
    "readable",
    "sha256_file",
    "sync_folder",
    "write_bytes",
    "write_json",
    "write_text",
]


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; renamed onto it when the block ends well, removed when it does not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush_to_disk(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether a file or folder is what `atomic_path` or `new_folder` leaves behind when their process is killed."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


@contextmanager
def new_folder(path: Path, *, what: str) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well, and is removed when it does not.

    Raises OutputError if `path` exists already and is not an empty folder: nothing is ever overwritten.
    """
    check_new(path, what=what)
    temporary = path.absolute().with_name(f".{path.absolute().name}.{os.getpid()}.tmp")
    with writing(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            if path.exists():
                path.rmdir()
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_new(path: Path, *, what: str) -> None:
    """Raise OutputError if `path` may not become a new folder: to be told before hours of work, not after."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        article = "an" if what[0] in "aeiou" else "a"
        raise OutputError(
            f"{path} exists already: {article} {what} is never overwritten",
            next=f"choose another --out, or remove {path}",
        )
    if path.absolute() == Path.cwd():
        raise OutputError(
            f"{path} is the folder you are in: it cannot be replaced", next=f"give a new folder for the {what}"
        )


def check_space(out: Path, needed: int) -> None:
    """Raise OutputError unless `needed` bytes are free where `out` will be."""
    place = out.absolute()
    parent = next(p for p in (place, *place.parents) if p.is_dir())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise OutputError(
            f"cannot write {out}: it needs {needed / 1e9:.3f} GB, {parent} has {free / 1e9:.3f} GB free",
            next="free some space, or choose another place",
        )


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all; NaN and infinities become null."""
    write_text(path, readable(content) + "\n")


def readable(content: Any) -> str:
    """Indented JSON; NaN and infinities become null."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False)


def read_json(path: Path) -> Any:
    """The JSON document in `path`. Raises DataError if it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as e:
        raise DataError(f"{path} is not readable JSON: {e}") from None


def canonical(content: Any) -> str:
    """One line of JSON with sorted keys and no spaces: the form that is digested and appended."""
    return json.dumps(_finite(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(content: dict[str, Any], key: str) -> str:
    """SHA-256 of a dict's canonical JSON without `key`, under which it keeps the digest itself."""
    return hashlib.sha256(canonical({k: v for k, v in content.items() if k != key}).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hex, as `sha256sum` prints it."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sync_folder(path: Path) -> None:
    """Force a folder's list of names onto the disk, so that a file made in it survives a power cut."""
    with writing(path):
        _flush_to_disk(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file; a torn last line (a writer was killed in it) is left out. Missing file: empty."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise DataError(f"{path} holds a line that is not JSON: {e}") from None


class JsonLines:
    """An append-only JSONL file. Each line reaches the operating system before `append` returns, in one write."""

    def __init__(self, path: Path | None, *, keep_bytes: int | None = None) -> None:
        """Open for appending, after cutting what a killed writer left: everything after `keep_bytes`, or, without it, a torn last
        line. Without a path nothing is kept."""
        self.path = path
        self.bytes = 0
        if path is None:
            return
        with writing(path):
            self._file: BinaryIO = path.open("ab", buffering=0)
            size = self._file.tell()
            keep = _whole_lines(path) if keep_bytes is None else keep_bytes
            if size < keep:
                self._file.close()
                raise DataError(f"{path} is shorter than its checkpoint says ({size} < {keep} bytes)")
            if size > keep:
                self._file.truncate(keep)
        self.bytes = keep

    def append(self, *lines: dict[str, Any]) -> None:
        """Append one line per dict, in one write."""
        if self.path is None:
            return
        content = "".join(canonical(line) + "\n" for line in lines).encode()
        with writing(self.path):
            written = self._file.write(content)
            while written < len(content):  # a short write: a signal, or a disk that is filling up
                written += self._file.write(content[written:])
        self.bytes += len(content)

    def sync(self) -> None:
        """Force what was appended onto the disk."""
        if self.path is None:
            return
        with writing(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; appending after it is an error."""
        if self.path is not None:
            self._file.close()


def _whole_lines(path: Path) -> int:
    """Bytes up to the last newline."""
    content = path.read_bytes()
    return content.rfind(b"\n") + 1


def _flush_to_disk(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _finite(content: Any) -> Any:
    """JSON has no NaN: write null."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {str(k): _finite(v) for k, v in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(v) for v in content]
    return content
