"""The run folder: its names, how its files grow, and how a finished one is told from an unfinished one.

docs/run-folder.md specifies it. Only this module knows the names.
"""

import fcntl
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Config, load
from ..errors import OutputError, RunError, writing
from ..files import JsonLines, canonical, read_json, read_lines

__all__ = [
    "GENESIS",
    "Run",
    "Trail",
    "chained",
    "create",
    "free_name",
    "is_locked",
    "locked",
    "open_run",
    "trail_end",
]

GENESIS = "0" * 64
"""What the first line of a chain follows."""


@dataclass(frozen=True)
class Run:
    """The paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config, YAML."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Software, hardware and command, JSON."""
        return self.path / "environment.json"

    @property
    def reproducibility(self) -> Path:
        """The environment in words, text."""
        return self.path / "reproducibility.txt"

    def environments(self) -> list[tuple[int, dict[str, Any]]]:
        """(first step, environment) of each place in which the run was trained, in order; the first is environment.json."""
        later = [line for line in read_lines(self.events) if line.get("event") == "environment"]
        return [(0, read_json(self.environment)), *((line["step"], line["environment"]) for line in later)]

    @property
    def metrics(self) -> Path:
        """One JSON line a step and one an epoch; no clock times, so that equal runs have equal files."""
        return self.path / "metrics.jsonl"

    @property
    def trail(self) -> Path:
        """The chained fingerprints, one JSON line a step."""
        return self.path / "trail.jsonl"

    @property
    def events(self) -> Path:
        """What happened when: start, resume, seconds of each epoch. Clock times live here only."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of last, previous and best."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.checkpoints / "best.safetensors"

    @property
    def summary(self) -> Path:
        """Written last: a run is finished if and only if it is there."""
        return self.path / "summary.json"

    @property
    def figures(self) -> Path:
        """Folder of figures."""
        return self.path / "figures"

    def predictions(self, split: str) -> Path:
        """Predictions of the best checkpoint on a split, NPZ."""
        return self.path / "predictions" / f"{split}.npz"

    def evaluation(self, split: str) -> Path:
        """Scores of those predictions, JSON."""
        return self.path / "evaluations" / f"{split}.json"

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.summary.is_file()

    def load_config(self) -> Config:
        """The resolved config. Raises ConfigError."""
        return load(self.config)

    def load_summary(self) -> dict[str, Any]:
        """The summary. Raises RunError for an unfinished run."""
        if not self.finished:
            raise RunError(
                f"the run {self.path} is not finished: it has no summary.json",
                next=f"finish it with `histoproof train --resume {self.path}`",
            )
        summary = read_json(self.summary)
        if not isinstance(summary, dict) or not {"status", "best", "weights_sha256", "trail_sha256"} <= set(summary):
            raise RunError(f"{self.summary} is damaged: it is no summary of a run", next="train it again")
        return summary


@contextmanager
def locked(path: Path, *, wait_s: float = 0.2) -> Iterator[None]:
    """Hold `path` (a run folder or a chained file) for writing. Raises RunError if another process does, for `wait_s` seconds
    (a little at least: `is_locked`, asked by another process, holds the lock for a moment)."""
    lock = _lock_of(path)
    with writing(lock):
        file = lock.open("w")
    with file:
        give_up = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise RunError(
                        f"another process is writing to {path}", next="wait for it to end, then try again"
                    ) from None
                time.sleep(0.01)
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds `path`, as `locked` does, at this moment. Writes nothing."""
    try:
        with _lock_of(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no lock file, or none that may be read
        return False
    return False


def _lock_of(path: Path) -> Path:
    return path / ".lock" if path.is_dir() else path.with_name(f".{path.name}.lock")


def create(path: Path) -> Run:
    """Make a new run folder. Raises OutputError if `path` exists and is not empty: no run is ever overwritten."""
    with writing(path):
        if path.is_dir() and any(path.iterdir()):
            finish = (
                f"go on with it by `histoproof train --resume {path}`, or " if (path / "config.yaml").exists() else ""
            )
            raise OutputError(f"{path} exists already: no run is ever overwritten", next=f"{finish}give another --out")
        path.mkdir(parents=True, exist_ok=True)
        for name in ("checkpoints", "predictions", "evaluations", "figures"):
            (path / name).mkdir(exist_ok=True)
    return Run(path)


def free_name(folder: Path, stem: str) -> Path:
    """The first of stem-001, stem-002, ... that does not exist in `folder`, made at once so that no other process takes it."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, 100_000):
            path = folder / f"{stem}-{number:03d}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
    raise OutputError(f"{folder} is full of runs named {stem}", next="give another --out")


def open_run(path: Path) -> Run:
    """A run folder that exists. Raises RunError if it is none."""
    if not path.is_dir():
        raise RunError(
            f"no such run: {path}",
            next="list yours with `histoproof runs`, or train one with `histoproof train CONFIG`",
        )
    if (path / "study.json").is_file():  # it has a config.yaml of its own
        raise RunError(f"{path} is a study, not a run", next=f"give one of its runs, e.g. {path / 'trials' / '0000'}")
    if not (path / "config.yaml").is_file():
        raise RunError(f"{path} is no run: it has no config.yaml", valid="a folder made by `histoproof train`")
    return Run(path)


def chained(previous: str, line: dict[str, Any]) -> str:
    """The link of a chained line: SHA-256 over the link before it and the line's canonical JSON."""
    return hashlib.sha256((previous + canonical(line)).encode()).hexdigest()


class Trail:
    """A file whose every line carries a link, so that its last line vouches for all before it."""

    def __init__(self, file: JsonLines, link: str) -> None:
        self.file = file
        self.link = link

    def append(self, line: dict[str, Any]) -> None:
        """Append one line with its link."""
        self.link = chained(self.link, line)
        self.file.append({**line, "chain": self.link})


def trail_end(path: Path) -> str:
    """The last link of a chained file, every link before it checked. Raises RunError naming the first line that does not fit."""
    link = GENESIS
    for number, line in enumerate(read_lines(path), start=1):
        given = line.pop("chain", None)
        link = chained(link, line)
        if given != link:
            raise RunError(f"{path}:{number}: the line does not fit the chain: it, or one before it, was changed")
    return link
