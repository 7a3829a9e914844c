"""The study's journal: Optuna's own format, appended to under a lock that dies with its holder, mended where a writer was killed.

Optuna's locks for a journal are files that a killed writer leaves behind, so that everybody waits out a grace period. Ours is
a flock on a file beside the journal: the kernel lets go of it when its holder ends, however it ends. And because a torn last
line must never be followed by another, it is cut whenever the lock is taken, before anything is appended.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import RunError, writing

__all__ = ["STUDY_NAME", "FlockLock", "mend", "open_storage"]

STUDY_NAME = "histoproof"
"""The study's name in its journal."""


class FlockLock:
    """Optuna's lock object of a journal (`acquire`, `release`), as a flock on .NAME.lock beside it."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._file: BinaryIO | None = None

    def acquire(self) -> bool:
        """Wait for the lock, then cut a torn last line off the journal."""
        assert self._file is None
        lock = self._journal.with_name(f".{self._journal.name}.lock")
        with writing(lock):
            file = lock.open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                _cut_torn(self._journal)
            except BaseException:
                file.close()
                raise
        self._file = file
        return True

    def release(self) -> None:
        """Let go."""
        assert self._file is not None
        self._file.close()
        self._file = None


def _cut_torn(journal: Path) -> int:
    """Cut what follows the last newline; how many bytes that were."""
    if not journal.exists():
        return 0
    with journal.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return 0
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return 0
        file.seek(0)
        keep = file.read().rfind(b"\n") + 1
        file.truncate(keep)
        os.fsync(file.fileno())
        return size - keep


def mend(journal: Path) -> int:
    """Cut a torn or garbled end off a journal, under its lock; how many bytes were cut.

    Raises RunError naming the line where something before the end is no JSON: that was no killed writer.
    """
    lock = FlockLock(journal)
    before = journal.stat().st_size if journal.exists() else 0
    lock.acquire()
    try:
        if not journal.exists():
            return 0
        lines = journal.read_bytes().split(b"\n")[:-1]
        if not lines:  # `acquire` cut all there was
            raise RunError(
                f"{journal} holds no line of a journal: which trials there were is unknown",
                next="restore it from a copy; the runs in trials/ are whole without it",
            )
        bad = [number for number, line in enumerate(lines) if not _is_record(line)]
        if bad and bad[0] < len(lines) - len(bad):
            raise RunError(
                f"{journal}:{bad[0] + 1}: not a line of a journal: the file was damaged, not only cut short",
                next="restore it from a copy; the runs in trials/ are whole without it",
            )
        if bad:
            with writing(journal), journal.open("r+b") as file:
                file.truncate(sum(len(line) + 1 for line in lines[: bad[0]]))
                os.fsync(file.fileno())
        return max(before - journal.stat().st_size, 0)
    finally:
        lock.release()


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def open_storage(journal: Path) -> Any:
    """Optuna's storage on a journal. Raises RunError for a journal that Optuna cannot read."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with writing(journal):
            # Optuna asks for a subclass of its abstract lock in its annotations only; it calls acquire and release.
            return JournalStorage(JournalFileBackend(str(journal), lock_obj=FlockLock(journal)))  # type: ignore[arg-type]
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as e:
        raise RunError(f"{journal} cannot be read as Optuna's journal: {type(e).__name__}: {e}") from None
