"""Two runs of one config on one store: whether they are the same, bit for bit."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...config import identity, parse
from ...diff import diff
from ...errors import HistoproofError
from ...files import canonical
from .runs import RunEvidence

__all__ = ["TwinEvidence", "read_twins"]


@dataclass(frozen=True)
class TwinEvidence:
    """What `diff` says of two runs that should be the same."""

    a: Path
    b: Path
    found: dict[str, Any] | None
    """What `diff` returns; None where it cannot compare them, and `problems` says why."""
    problems: list[str]

    @property
    def command(self) -> str:
        """The command that compares them."""
        return shlex.join(["histoproof", "diff", str(self.a), str(self.b)])

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read: the runs' own, which the runs name."""
        return ()


def read_twins(runs: Sequence[RunEvidence]) -> list[TwinEvidence]:
    """Each finished run compared with the first one that had the same config, seed and patches."""
    first: dict[str, RunEvidence] = {}
    twins = []
    for run in runs:
        if run.summary is None:
            continue
        key = canonical({**identity(parse(run.config, path=run.path)), "store": run.summary["store_sha256"]})
        other = first.setdefault(key, run)
        if other is not run:
            twins.append(_compared(other.path, run.path))
    return twins


def _compared(a: Path, b: Path) -> TwinEvidence:
    try:
        return TwinEvidence(a, b, diff(a, b), [])
    except HistoproofError as e:
        return TwinEvidence(a, b, None, [e.problem])
