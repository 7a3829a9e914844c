"""Fetch the official files: gone on with after a cut, unpacked on the way, renamed only when every checksum agrees.

A file that has come in part lies beside its target as NAME.gz.part (for the CSVs NAME.part): the bytes as the server sent them. A
complete .gz from elsewhere, put there under that name, is taken without a network. `receive` says how.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError, OutputError, writing
from ...files import check_space
from ...progress import Report
from ...runs import locked
from ..officials import META_MD5, OFFICIAL, ZENODO, OfficialFile
from ..pcam import SPLITS, SplitName
from .receive import receive
from .transfer import PATIENCE, Patience, Server
from .wanted import Wanted, known_md5, not_it, wanted_files

__all__ = ["fetch"]


def fetch(
    out: Path,
    *,
    source: str = ZENODO,
    splits: Sequence[str] = SPLITS,
    files: Sequence[OfficialFile] = OFFICIAL,
    meta: Mapping[SplitName, str] = META_MD5,
    patience: Patience = PATIENCE,
    progress: Report | None = None,
) -> dict[str, Any]:
    """Bring x, y and meta of `splits` into the folder `out` from SOURCE/NAME.gz and SOURCE/NAME_meta.csv.

    The published checksums hold whatever the source: `files` and `meta` are their table. A file that is there and right is left
    alone; one that is there and wrong is an error, never overwritten. `progress` is called with (bytes, bytes in all, words).
    Returns {"out", "source", "splits", "files": [{"name", "bytes", "md5", "status"}]}, status being "present", "fetched" or
    "resumed" (at least once it went on from what had come before). Raises DataError (bad source or splits; a server that refuses,
    gives up, or sends something else), OutputError (no room, no right to write), RunError (another process fetches into `out`).
    """
    wanted = wanted_files(_checked_splits(splits), files, meta)
    server = Server(source, patience, query="?download=1" if source.rstrip("/") == ZENODO else "")
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file", valid="a folder, new or not", next="give another OUT")
    known = known_md5(files, meta)
    status = {w.name: "present" for w in wanted if _present(out, w, known)}
    if len(status) < len(wanted) or any(w.part(out).exists() for w in wanted):
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            status |= _fetch_missing(out, [w for w in wanted if w.name not in status], server, known, progress)
            for w in wanted:  # left by a process that was killed after its last rename, or before
                w.part(out).unlink(missing_ok=True)
                _sweep(out, w)
    return {
        "out": str(out),
        "source": server.base,
        "splits": [split for split in SPLITS if split in splits],
        "files": [
            {"name": w.name, "bytes": (out / w.name).stat().st_size, "md5": w.md5, "status": status[w.name]}
            for w in wanted
        ],
    }


def _checked_splits(splits: Sequence[str]) -> list[SplitName]:
    """Raises DataError."""
    unknown = [split for split in splits if split not in SPLITS]
    if unknown or not splits:
        raise DataError(
            f"there is no split {unknown[0]!r}" if unknown else "no split is wished for",
            valid=f"one or more of {', '.join(SPLITS)}",
            next="name them with --splits, a comma between",
        )
    return [split for split in SPLITS if split in splits]


def _sweep(out: Path, w: Wanted) -> None:
    """Remove temporary files of processes that were killed; the caller holds the folder's lock."""
    for left in out.glob(f".{w.name}.*.tmp"):
        left.unlink(missing_ok=True)


def _present(out: Path, w: Wanted, known: Mapping[str, str]) -> bool:
    """Whether the target is there and right. Raises DataError if something else is there."""
    path = out / w.name
    if not path.exists() and not path.is_symlink():
        return False
    if not path.is_file():
        raise DataError(f"{path} is no regular file", next="move it away: it is not overwritten")
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if md5 != w.md5:
        raise DataError(
            f"{path} is there, but {not_it(w, md5, known, w.md5)}",
            next="move it away, then fetch again: it is neither overwritten nor renamed",
        )
    return True


def _fetch_missing(
    out: Path, missing: list[Wanted], server: Server, known: Mapping[str, str], progress: Report | None
) -> dict[str, str]:
    """{name: status} of files that were not there when we looked; another process may have brought them since."""
    status = {w.name: "present" for w in missing if _present(out, w, known)}
    missing = [w for w in missing if w.name not in status]
    for w in missing:
        _sweep(out, w)
    check_space(out, _room(out, missing))
    total = sum(w.size or 0 for w in missing)
    before = 0
    for w in missing:

        def report(have: int, words: str = "", w: Wanted = w, before: int = before) -> None:
            if progress is not None:
                progress(before + min(have, w.size or 0), total, f"{w.what}  {words}" if words else w.what)

        status[w.name] = receive(out, w, server, known, report)
        before += w.size or 0
    return status


def _room(out: Path, missing: list[Wanted]) -> int:
    """Bytes that must be free: at worst all that is unpacked by then, and the rest of the part that is coming."""
    room = unpacked = 0
    for w in missing:
        part = w.part(out)
        kept = part.stat().st_size if part.exists() else 0
        unpacked += w.unpacked
        room = max(room, unpacked + (w.size or w.unpacked) - kept)
        unpacked -= kept
    return room
