"""What can go wrong, in words for people.

HistoproofError (exit 2)
  ConfigError    a config file or a --set that is not valid
  DataError      files that are missing, damaged, or not what they should be
  RunError       a run folder, checkpoint or model that cannot be used
    TrainingError  a training that cannot go on by its own fault: loss not finite, too large for the memory
  OutputError    a place that cannot be written to
  SealedError    the test split was asked for without the right to open it
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "ConfigError",
    "DataError",
    "HistoproofError",
    "OutputError",
    "RunError",
    "SealedError",
    "TrainingError",
    "writing",
]


class HistoproofError(Exception):
    """A user's mistake or the outside world's: `problem`, what would be `valid`, what to do `next`."""

    def __init__(self, problem: str, *, valid: str | None = None, next: str | None = None) -> None:
        self.problem = problem
        self.valid = valid
        self.next = next
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.problem]
        if self.valid:
            lines.append(f"  valid: {self.valid}")
        if self.next:
            lines.append(f"  next:  {self.next}")
        return "\n".join(lines)


class ConfigError(HistoproofError):
    """A config file, or a --set, that is not valid."""


class DataError(HistoproofError):
    """Data files that are missing, damaged, or not what they should be."""


class RunError(HistoproofError):
    """A run folder, checkpoint or model that cannot be used."""


class TrainingError(RunError):
    """A training that cannot go on by its own fault: its loss is not finite, or it is too large for the memory."""


class OutputError(HistoproofError):
    """A place that cannot be written to: read-only, full, or taken."""


class SealedError(HistoproofError):
    """The test split was asked for without the right to open it."""


_WRITE_ADVICE = {
    errno.ENOSPC: "free some space, or choose another place with --out",
    errno.EDQUOT: "your quota is used up: free some space, or choose another place with --out",
    errno.EACCES: "choose a folder you may write to with --out",
    errno.EPERM: "choose a folder you may write to with --out",
    errno.EROFS: "that file system is read-only: choose another place with --out",
    errno.ENOTDIR: "a part of that path is a file, not a folder: choose another place with --out",
    errno.EISDIR: "that path is a folder where a file is to be written: choose another with --out",
    errno.EFBIG: "the file system or ulimit refuses a file of this size",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into an OutputError that says what to do."""
    try:
        yield
    except OSError as e:
        # h5py raises OSError without errno, with the number inside its text.
        number = e.errno or next((n for n in _WRITE_ADVICE if f"errno = {n}," in str(e)), None)
        if number is None:
            raise
        reason = e.strerror or str(e)
        raise OutputError(
            f"cannot write {path}: {reason}", next=_WRITE_ADVICE.get(number, "choose another place with --out")
        ) from e
