"""The ledger: who opened the test split, when, with what, why. One hash-chained JSON line an opening, beside the store."""

import getpass
from pathlib import Path
from typing import Any

from .errors import SealedError
from .files import JsonLines, read_lines
from .provenance import command_line, now
from .runs import Trail, locked, trail_end

__all__ = ["open_test", "openings", "path_of"]


def path_of(store: Path) -> Path:
    """Where a store's ledger is: beside it, STORE.ledger.jsonl, so that packing again does not lose it."""
    whole = store.absolute()
    return whole.with_name(f"{whole.name}.ledger.jsonl")


def openings(store: Path) -> list[dict[str, Any]]:
    """Every opening so far, oldest first. Raises RunError if a line was changed."""
    trail_end(path_of(store))
    return read_lines(path_of(store))


def open_test(store: Path, reason: str | None, **what: str) -> dict[str, Any]:
    """Write down that the test split is opened now; returns the line. Raises SealedError without a reason."""
    if reason is None or not reason.strip():
        raise SealedError(
            "the test split is sealed: looking at it while choosing a model makes its score worthless",
            valid="--split valid while you choose",
            next='when you have chosen: --split test --open-test "why it may be opened now"; it is written into the ledger',
        )
    path = path_of(store)
    line = {"opened": now(), "by": _user(), "reason": reason.strip(), "command": command_line(), **what}
    with locked(path):
        link = trail_end(path)
        file = JsonLines(path)
        Trail(file, link).append(line)
        file.sync()
        file.close()
    return line


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        return "unknown"
