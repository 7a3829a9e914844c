"""Which runs there are under a folder: status, config and scores of each, filtered, sorted; seeds of one config together."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from .query import matching, ordered
from .seeds import by_config
from .status import describe, is_copy, is_run

__all__ = ["run_folders", "runs"]


def runs(folder: Path = Path("runs"), *, where: Sequence[str] = (), sort: str | None = None) -> dict[str, Any]:
    """Every run under `folder`, at any depth. Reads only; a run that is unfinished, being written or damaged is listed as such.

    `where` keeps the runs for which every condition holds, e.g. "optim.lr<0.01", "model.name=cnn", "auc>=0.9",
    "status=finished"; `sort` is such a key, with a minus before it for falling order (default: by path).

    Returns {"folder", "found" (runs before `where`), "runs": [{"run", "name", "status": "finished|running|unfinished|damaged",
    "problem", "seed", "model", "epochs", "steps", "primary", "best": {"epoch", "valid"} or null, "config": {"optim.lr": ...},
    "group", ...}...], "groups": see `seeds.by_config`}. Raises RunError for a folder that does not exist, ConfigError for a
    condition that makes no sense.
    """
    if not folder.is_dir():
        raise RunError(
            f"no such folder: {folder}",
            valid="a folder with runs in it",
            next="train one with `histoproof train CONFIG`",
        )
    found = [describe(path) for path in run_folders(folder)]
    wanted = ordered(matching(found, where), sort)
    return {"folder": str(folder), "found": len(found), "runs": wanted, "groups": by_config(wanted)}


def run_folders(folder: Path) -> Iterator[Path]:
    """Every run folder in `folder` or `folder` itself, in the order of their paths; links to run folders too."""
    if is_copy(folder):
        return
    if is_run(folder):
        yield folder
        return
    for name in sorted(_subfolders(folder)):
        inner = folder / name
        if is_run(inner) or not inner.is_symlink():  # a link may lead round in a circle
            yield from run_folders(inner)


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:  # gone since, or not ours to read: no run that could be listed
        return []
