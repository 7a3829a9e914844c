"""One run as it lies on disk, told in one row; whatever is wrong with it becomes its status, never an error."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..config import Config, identity
from ..errors import HistoproofError, RunError
from ..files import canonical, read_json
from .folder import Run, is_locked

__all__ = ["describe", "flattened", "is_copy", "is_run"]

_SIGNS = ("config.yaml", "environment.json", "metrics.jsonl", "trail.jsonl", "summary.json", "checkpoints")
_TAIL = 8192
"""Bytes that surely hold a trail's last line."""


def is_run(path: Path) -> bool:
    """Whether a folder is a run, even a damaged one: at least two of the names are in it that a run folder holds."""
    return sum((path / name).exists() for name in _SIGNS) >= 2


def is_copy(path: Path) -> bool:
    """Whether a folder is a tracker's copy of a run, or of its model: those are no runs of their own."""
    return any((path / name).exists() for name in ("copied.json", "MLmodel"))


def describe(path: Path) -> dict[str, Any]:
    """The row of a run, as `runs` returns it. Damage is named in "problem", and then no score is told; it raises nothing."""
    run = Run(path)
    row = dict.fromkeys(_COLUMNS) | {"run": str(path), "name": path.name, "status": "damaged", "config": {}}
    try:
        _fill(row, run)
    except HistoproofError as e:
        row |= {"status": "damaged", "problem": e.problem, "best": None}
    except (OSError, KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        row |= {"status": "damaged", "problem": f"{type(e).__name__}: {e}", "best": None}
    return row


_COLUMNS = (
    *("run", "name", "status", "problem", "group", "seed", "model", "epochs", "steps", "primary", "best"),
    *("weights_sha256", "trail_sha256", "started", "config"),
)


def _fill(row: dict[str, Any], run: Run) -> None:
    finished = run.finished  # asked first: what is written before the summary is there then
    config = run.load_config()
    row |= {
        "seed": config.seed,
        "model": config.model.name,
        "primary": config.evaluate.primary,
        "config": flattened(config.as_dict()),
        "started": read_json(run.environment)["started"],
        "group": _group(run, config),
    }
    if finished:
        summary = run.load_summary()
        row |= {key: summary[key] for key in ("epochs", "steps", "weights_sha256", "trail_sha256")}
        row["best"] = {"epoch": summary["best"]["epoch"], "valid": summary["best"]["valid"]}
        row["status"] = "finished"
        if _last_link(run.trail) != summary["trail_sha256"]:
            raise RunError(f"{run.trail} does not end in the trail_sha256 of summary.json")
        return
    row |= _so_far(run, config)
    row["status"] = "running" if is_locked(run.path) else "unfinished"


def flattened(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one level of dotted keys; lists stay lists."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _group(run: Run, config: Config) -> str | None:
    """Digest of everything that rules a run but its seed: config, data, and the score it is judged by."""
    if not run.trail.exists():
        return None
    with run.trail.open("rb") as file:
        first = file.readline()
    if not first.endswith(b"\n"):
        return None
    ruled_by = {
        **identity(config),
        "seed": None,
        "primary": config.evaluate.primary,
        "patches": json.loads(first)["data"],
    }
    return hashlib.sha256(canonical(ruled_by).encode()).hexdigest()[:16]


def _last_link(trail: Path) -> str | None:
    """The link of a trail's last whole line. The links before it are `journal`'s and `diff`'s to check."""
    with trail.open("rb") as file:
        file.seek(max(trail.stat().st_size - _TAIL, 0))
        lines = file.read().split(b"\n")[:-1]
    return json.loads(lines[-1])["chain"] if lines else None


def _so_far(run: Run, config: Config) -> dict[str, Any]:
    """Epochs, steps and the best epoch of a run without a summary, from its metrics."""
    content = run.metrics.read_bytes() if run.metrics.exists() else b""
    lines = content.split(b"\n")[:-1]
    epochs = [json.loads(line) for line in lines if b'"kind":"epoch"' in line]
    last_step = next((json.loads(line) for line in reversed(lines) if b'"kind":"step"' in line), None)
    by = config.evaluate.best_by
    scored = [line for line in epochs if line["valid"].get(by) is not None]
    best = max(scored, key=lambda line: line["valid"][by] * (-1 if by == "loss" else 1), default=None)
    return {
        "epochs": len(epochs),
        "steps": last_step["step"] + 1 if last_step else 0,
        "best": {"epoch": best["epoch"], "valid": best["valid"]} if best else None,
    }
