"""What a run folder holds that a tracker can show: parameters, points, tags, files. Knows no tracker.

metrics.jsonl holds no clock times, so a point's time is made up: the run's start and one millisecond a step. It is a function of
the run alone, so that the same point sent twice is the same point. When things really happened stands in events.jsonl.
"""

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

from ..errors import DataError
from ..files import canonical, read_json, read_lines, sha256_file
from ..runs import Run, trail_end
from ..runs.status import flattened

__all__ = [
    "Piece",
    "Point",
    "digests",
    "end_ms",
    "files",
    "key_of",
    "parameters",
    "pieces",
    "prefix_sha256",
    "scores",
    "start_ms",
    "tags",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Point:
    """One value of one curve."""

    key: str
    """"step/loss", "epoch/valid/auc", ..."""
    value: float
    """NaN where the file has null."""
    step: int


@dataclass(frozen=True)
class Piece:
    """Some whole lines of metrics.jsonl, in order."""

    start: int
    stop: int
    """Bytes of the file before it, and up to its end."""
    sha256: str
    """Of the file up to `stop`: whether it is still what it was."""
    points: list[Point]


def key_of(run: Run) -> str:
    """What tells this run from every other, wherever its folder is moved: environment, time and place of its start, config, data,
    name. Raises DataError if the run is too damaged to say."""
    try:
        with run.trail.open("rb") as file:
            begin = file.readline()
        parts = (run.environment.read_bytes(), begin, run.path.absolute().name.encode())
    except OSError as e:
        raise DataError(f"{e.filename}: {e.strerror}", next="without it a run cannot be told from others") from None
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def pieces(run: Run, start: int, most: int) -> Iterator[Piece]:
    """The lines after byte `start`, in pieces of at most `most` points (and at least a line); a torn last line is left."""
    digest = hashlib.sha256()
    points: list[Point] = []
    if not run.metrics.exists():
        return
    with run.metrics.open("rb") as file:
        _feed(digest, file, start)
        begin = stop = start
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                new = _points(json.loads(line))
            except (ValueError, KeyError, TypeError) as e:
                raise DataError(f"{run.metrics} holds a line that is no metric, after byte {stop}: {e}") from None
            if points and len(points) + len(new) > most:
                yield Piece(begin, stop, digest.hexdigest(), points)
                begin, points = stop, []
            digest.update(line)
            stop += len(line)
            points += new
        if points:
            yield Piece(begin, stop, digest.hexdigest(), points)


def prefix_sha256(run: Run, size: int) -> str | None:
    """Digest of the first `size` bytes of metrics.jsonl; None if it is shorter."""
    digest = hashlib.sha256()
    if size == 0:
        return digest.hexdigest()
    if not run.metrics.exists() or run.metrics.stat().st_size < size:
        return None
    with run.metrics.open("rb") as file:
        return digest.hexdigest() if _feed(digest, file, size) else None


def _reads(read: Callable[[Run], T]) -> Callable[[Run], T]:
    """A function that reads a run, so that whatever it stumbles over in a damaged one is a DataError."""

    @wraps(read)
    def reading(run: Run) -> T:
        try:
            return read(run)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
            raise DataError(f"{run.path} is damaged: {type(e).__name__}: {e}", next="train it again") from e

    return reading


@_reads
def scores(run: Run) -> list[Point]:
    """The best epoch's valid scores with their intervals, of a finished run: "best/auc", "best/auc_low", "best/auc_high"."""
    best = run.load_summary()["best"]
    points = []
    for name, interval in best["intervals"].items():
        for suffix, value in (("", interval["value"]), ("_low", interval["low"]), ("_high", interval["high"])):
            if value is not None:
                points.append(Point(f"best/{name}{suffix}", float(value), best["step"]))
    return points


@_reads
def parameters(run: Run) -> dict[str, str]:
    """The resolved config, flat; text as it is, everything else as JSON."""
    flat = flattened(run.load_config().as_dict())
    return {key: value if isinstance(value, str) else canonical(value) for key, value in flat.items()}


@_reads
def tags(run: Run) -> dict[str, str]:
    """Where the run is and came from, and, once it is finished, its digests."""
    environment = read_json(run.environment)
    found = {
        "histoproof.run": str(run.path.absolute()),
        "histoproof.version": environment["histoproof"],
        "histoproof.python": environment["python"],
        "histoproof.torch": (environment["packages"].get("torch") or {}).get("version"),
        "histoproof.device": environment["device"],
        "histoproof.command": shlex.join(environment["command"]),
        "histoproof.time": "the start and 1 ms a step; clock times are in events.jsonl",
    }
    if environment["git"]:
        clean = environment["git"]["clean"]
        found |= {"histoproof.git.commit": environment["git"]["commit"], "histoproof.git.clean": str(clean).lower()}
    if run.finished:
        summary = run.load_summary()
        digests = ("trail_sha256", "weights_sha256", "best_weights_sha256", "store_sha256")
        found |= {f"histoproof.{name}": summary[name] for name in digests}
        if summary["trail_sha256"] != trail_end(run.trail):
            raise DataError(f"{run.trail} does not end in the trail_sha256 of summary.json", next="train it again")
    return {key: value for key, value in found.items() if value}


def files(run: Run) -> list[str]:
    """The files to copy, relative to the run folder: all but locks, and the checkpoints that only a resume needs."""
    wanted = []
    for path in sorted(p for p in run.path.rglob("*") if p.is_file()):
        name = path.relative_to(run.path).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        for_resuming = name.startswith("checkpoints/") and not name.startswith("checkpoints/best.")
        if not hidden and not for_resuming:
            wanted.append(name)
    return wanted


def digests(run: Run) -> dict[str, str]:
    """SHA-256 of each of `files`."""
    return {name: sha256_file(run.path / name) for name in files(run)}


@_reads
def start_ms(run: Run) -> int:
    """When the run began, ms since 1970."""
    return int(datetime.fromisoformat(read_json(run.environment)["started"]).timestamp() * 1000)


@_reads
def end_ms(run: Run) -> int | None:
    """When it finished, ms since 1970; None if its events do not say."""
    ends = [line["time"] for line in read_lines(run.events) if line.get("event") == "finish"]
    return int(datetime.fromisoformat(ends[-1]).timestamp() * 1000) if ends else None


def _points(line: dict[str, Any]) -> list[Point]:
    kind, step = line.pop("kind"), line.pop("step")
    values = {key.replace(".", "/"): value for key, value in flattened(line).items()}
    return [
        Point(f"{kind}/{key}", math.nan if value is None else float(value), step)
        for key, value in values.items()
        if value is None or isinstance(value, int | float)
    ]


def _feed(digest: Any, file: Any, size: int) -> bool:
    """Digest the next `size` bytes; False if there are fewer."""
    left = size
    while left:
        block = file.read(min(left, 1 << 20))
        if not block:
            return False
        digest.update(block)
        left -= len(block)
    return True
