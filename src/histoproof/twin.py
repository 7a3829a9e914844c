"""A twin: the same run again, from its own config, and a comparison of the two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .diff import diff
from .errors import RunError
from .runs import open_run
from .train import train

__all__ = ["twin"]


def twin(run: Path, *, out: Path | None = None, progress: Callable[..., None] | None = None) -> dict[str, Any]:
    """Train `run`'s config again into `out` (RUN-twin unless given) and compare. Returns what `diff` returns, with "twin".

    Where software or hardware is not what the run recorded, "differences" names it: then other bits are no surprise. Raises
    RunError for a run that is not finished.
    """
    original = open_run(run)
    original.load_summary()
    made = train(
        original.config,
        out=out if out is not None else run.absolute().with_name(f"{run.absolute().name}-twin"),
        progress=progress,
    )
    if made["status"] == "stopped":
        raise RunError(
            f"the twin {made['run']} was stopped at step {made['steps']}",
            next=f"finish it with `histoproof train --resume {made['run']}`, then `histoproof diff {run} {made['run']}`",
        )
    return {**diff(run, Path(made["run"])), "twin": made["run"]}
