"""The winner trained again, with seeds that the search never saw: its own score was picked because it was high."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import writing
from ..files import is_leftover
from ..seeds import train_seeds

__all__ = ["clear_stillborn", "new_seeds", "retrain"]

_FIRST = {".lock", "environment.json", "reproducibility.txt"}


def new_seeds(used: Sequence[int], count: int) -> list[int]:
    """`count` seeds from the lowest of `used` up, without those that the search used for this config."""
    found: list[int] = []
    seed = min(used)
    while len(found) < count:
        if seed not in used:
            found.append(seed)
        seed += 1
    return found


def retrain(
    config: Path, seeds: Sequence[int], folder: Path, *, store: Path, progress: Callable[..., None] | None = None
) -> dict[str, Any]:
    """Train `config`, a run's resolved one, on `store` for each seed into FOLDER/seedN.

    A finished one is reused, a cut one goes on. Returns what `seeds.train_seeds` returns.
    """
    for seed in seeds:
        clear_stillborn(folder / f"seed{seed}")
    return train_seeds(config, seeds, [f"data.store={json.dumps(str(store))}"], within=folder, progress=progress)


def clear_stillborn(place: Path) -> None:
    """Remove a run folder whose process was killed before its config, the last of its first files, was written."""
    if not place.is_dir() or (place / "config.yaml").exists():
        return
    files = [path for path in place.rglob("*") if path.is_file()]
    if any(path.name not in _FIRST and not is_leftover(path) for path in files):
        return  # something else: training says so
    with writing(place):
        shutil.rmtree(place)
