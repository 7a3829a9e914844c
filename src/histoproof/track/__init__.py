"""Runs copied to a tracker, MLflow or TensorBoard.

What is on disk is the truth; a tracker holds a copy of it, which can be made or completed at any time.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, DataError, OutputError, RunError
from ..runs import Run, is_locked, locked, open_run
from . import mlflow, tensorboard

__all__ = ["To", "check", "destination", "sync", "track"]

To = Literal["mlflow", "tensorboard"]
_NAMES = {"mlflow": "MLflow", "tensorboard": "TensorBoard"}


def track(
    runs: Sequence[Path],
    *,
    to: To,
    uri: str | None = None,
    experiment: str = "histoproof",
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Copy runs to a tracker: what it does not hold yet is added, what it holds already is left alone.

    `uri`: of MLflow a server or a database, by default $MLFLOW_TRACKING_URI, else SQLite beside the first run; of TensorBoard the
    log folder, by default `tensorboard` beside the first run. Ended midway, the same command goes on.

    Returns {"to", "uri", "look" (how to see it), "runs": [{"run", "id", "complete", "added": {"metrics", "files", ...}, ...}...],
    "problems": [{"run", "problem"}...]}: a damaged run keeps no other from being copied. Raises OutputError where the tracker is
    missing, refuses or cannot be reached, ConfigError for a URI that makes no sense.
    """
    check(to, uri)
    place = destination(to, uri, runs)
    say(f"{_NAMES[to]}: {mlflow.without_password(place)}")
    done, problems = [], []
    for path in runs:
        try:
            done.append(sync(open_run(path), to, place, experiment))
        except (RunError, DataError, ConfigError) as e:
            problems.append({"run": str(path), "problem": e.problem})
            continue
        say(f"{path}: {_told(done[-1])}")
    shown = mlflow.without_password(place)
    look = shown if "://" in shown and not shown.startswith("sqlite") else f"mlflow server --backend-store-uri {shown}"
    look = look if to == "mlflow" else f"tensorboard --logdir {shown}"
    return {"to": to, "uri": shown, "look": look, "runs": done, "problems": problems}


def check(to: To, uri: str | None) -> None:
    """Raise OutputError now for what would fail later: the tracker is not installed, or the URI is none it could use."""
    if to == "mlflow":
        mlflow.check_uri(uri)
    if importlib.util.find_spec(to) is None:
        raise OutputError(f"{_NAMES[to]} is not installed", next=f"pip install 'histoproof[{to}]'")


def destination(to: To, uri: str | None, runs: Sequence[Path]) -> str:
    """The URI, or the default for these runs."""
    beside = (runs[0] if runs else Path("runs/run")).absolute().parent
    return mlflow.default_uri(uri, beside) if to == "mlflow" else uri or str(beside / "tensorboard")


def sync(run: Run, to: To, uri: str, experiment: str, *, whole: bool = True) -> dict[str, Any]:
    """Bring one run's copy up to date, one process at a time; without `whole` the curves only, as while it is being written."""
    with _alone(run):
        state = "finished" if run.finished else "running" if is_locked(run.path) else "unfinished"
        backend = mlflow if to == "mlflow" else tensorboard
        report = backend.sync(run, uri, experiment, state=state if whole else "running", whole=whole)
        return {"run": str(run.path), "state": state, **report}


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Two processes must not both find that a run is not there yet. A run folder that is read-only is nobody's to lock."""
    with ExitStack() as stack:
        with suppress(OutputError):
            stack.enter_context(locked(run.path / "track", wait_s=120))
        yield


def _told(report: dict[str, Any]) -> str:
    added = ", ".join(f"{count} {what}" for what, count in report["added"].items() if count)
    state = "" if report["state"] == "finished" else f" ({report['state']}: track it again when it is finished)"
    return (f"added {added}" if added else "nothing to add") + f" to {report['id']}{state}"
