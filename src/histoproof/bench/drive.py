"""What the benches have in common: ceilings and rows measured in the same rounds, then written down."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import ConfigError
from ..files import check_new
from ..signals import StopRequest
from .ceilings import ceilings_json
from .measure import Effort
from .result import described, folder_for, write_bench
from .rounds import Case, Outcome, Report, run_cases
from .rows import row_json

__all__ = ["Plan", "Scratch", "carry_out", "effort_of", "no_costs"]

Ceilings = dict[str, Any]


class Scratch:
    """What stages are told once measuring begins: a folder to write into, on the disk the result will lie on; and the signal."""

    path: Path = Path()
    stop: StopRequest | None = None

    def stopped(self) -> bool:
        """Whether a signal asked for an end, for stages that take minutes."""
        return self.stop is not None and self.stop.requested


def no_costs(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Nothing is paid beside the work."""
    return []


@dataclass(frozen=True)
class Plan:
    """A bench before it begins."""

    kind: str
    stem: str
    """Of the folder's name, where none is given."""
    subject: dict[str, Any]
    rows: list[Case]
    ceilings: list[Case]
    ceiling_of: Callable[[Outcome, Ceilings], dict[str, Any] | None]
    """The ceiling that binds a row."""
    costs: Callable[[Sequence[Outcome]], list[dict[str, Any]]] = no_costs
    more: Callable[[Outcome], dict[str, Any]] = lambda _: {}
    """Further keys of a row."""
    scratch: Scratch = field(default_factory=Scratch)


def effort_of(quick: bool, samples: int | None) -> Effort:
    """12 samples of 0.15 s each, or with `quick` 6 of 0.02 s; `samples` replaces the number."""
    return (Effort(6, 0.02) if quick else Effort()).with_samples(samples)


def carry_out(
    make: Callable[[], Plan], effort: Effort, out: Path | None, progress: Callable[..., None] | None
) -> dict[str, Any]:
    """Measure what `make` plans, and write it into a new folder; returns the content of bench.json. A first signal ends it after
    the sample in hand, and what was measured is written all the same."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("bench measures one process: this is one of several", next="start it without torchrun")
    if out is not None:
        check_new(out, what="bench result")
    plan = make()
    with folder_for(out, plan.stem) as (path, folder):
        with StopRequest() as stop, TemporaryDirectory(prefix=".bench-", dir=folder) as scratch:
            plan.scratch.path, plan.scratch.stop = Path(scratch), stop
            outcomes = run_cases([*plan.ceilings, *plan.rows], effort, stop, _report(progress))
        measured, of_ceilings = outcomes[len(plan.ceilings) :], outcomes[: len(plan.ceilings)]
        ceilings = ceilings_json(of_ceilings)
        rows = [row_json(one, plan.ceiling_of(one, ceilings), **plan.more(one)) for one in measured]
        cut = any(one.status == "interrupted" for one in outcomes)
        cuda = any(case.device.type == "cuda" for case in plan.rows)
        return write_bench(
            folder,
            kind=plan.kind,
            out=path,
            subject=plan.subject,
            environment=described("cuda" if cuda else "cpu"),
            ceilings=ceilings,
            rows=rows,
            costs=plan.costs(measured),
            effort={**asdict(effort), "rounds": effort.rounds},
            stopped=(stop.name or "SIGINT") if cut else None,
        )


def _report(progress: Callable[..., None] | None) -> Report:
    return progress if progress is not None else lambda *_: None
