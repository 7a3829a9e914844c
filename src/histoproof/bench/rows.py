"""From samples to the rows of bench.json: the bottleneck, what overlap hides of the rest, and how near the ceiling."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ..files import digest_of
from .measure import Estimate, estimate
from .rounds import Outcome

__all__ = ["IDENTITY", "STAGES", "bench_sha256", "bottleneck", "nearest", "rate_ratio", "row_json"]

STAGES = ("data", "transfer", "compute")
IDENTITY = ("what", "model", "device", "batch_size", "precision", "variant")
"""What makes two rows the same row of two files."""
END = "end_to_end"


def bottleneck(stages: Mapping[str, Estimate | None], end: Estimate | None) -> dict[str, Any] | None:
    """The slowest stage, by seconds a patch: {"stage", "share" (of all stages' seconds), "hidden" (0-1), "of_stage"}.

    hidden = (sum of the stages' seconds - seconds end to end) / (that sum - the slowest's seconds): 1 where all but the slowest
    stage costs nothing, 0 where one follows on the other; null with one stage. of_stage: rate end to end over the slowest
    stage's. Each is a median over samples of one turn, so that a machine that slows down meanwhile does not tilt it.
    """
    known = {name: found for name, found in stages.items() if found is not None}
    if not known or end is None:
        return None
    slowest = min(known, key=lambda name: known[name].median)
    share, hidden, of_stage = [], [], []
    for whole, *rates in zip(end.samples, *(found.samples for found in known.values()), strict=True):
        seconds = dict(zip(known, (1 / rate for rate in rates), strict=True))
        total = sum(seconds.values())
        share.append(seconds[slowest] / total)
        of_stage.append(seconds[slowest] * whole)
        if len(known) > 1:
            hidden.append(min(max((total - 1 / whole) / (total - seconds[slowest]), 0.0), 1.0))
    return {
        "stage": slowest,
        "share": median(share),
        "hidden": median(hidden) if hidden else None,
        "of_stage": median(of_stage),
    }


def nearest(end: Estimate | None, bounds: Mapping[str, float | None]) -> dict[str, Any] | None:
    """The lowest of `bounds` (patches/s that each ceiling allows): it binds; and the share of it that is reached."""
    known = {name: bound for name, bound in bounds.items() if bound is not None}
    if not known or end is None:
        return None
    name = min(known, key=lambda one: known[one])
    return {"name": name, "fraction": end.median / known[name], "images_per_s": known[name], "bounds": known}


def row_json(outcome: Outcome, ceiling: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """One row of bench.json. Stages that there are not are null."""
    case, end = outcome.case, outcome.estimate(END)
    stages = {name: outcome.estimate(name) for name in STAGES}
    return {
        **case.name,
        "status": outcome.status,
        "reason": outcome.reason,
        "images_per_s": None if end is None else end.as_json(),
        "stages": {name: None if found is None else found.as_json() for name, found in stages.items()},
        "bottleneck": bottleneck(stages, end),
        "ceiling": ceiling,
        "peak_ram_bytes": outcome.peak_ram,
        "peak_ram_method": outcome.ram_method,
        "peak_vram_bytes": outcome.peak_vram,
        "threads": case.threads,
        "iterations": outcome.iterations,
        "conditions": outcome.conditions.as_json(),
        **more,
    }


def rate_ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any] | None:
    """rate above / rate below, sample by sample of the same turns, as an estimate; None without samples."""
    pairs = [a / b for a, b in zip(above, below, strict=False)]
    return estimate(pairs).as_json() if pairs else None


def bench_sha256(content: dict[str, Any]) -> str:
    """The digest that a result keeps of itself."""
    return digest_of(content, "bench_sha256")
