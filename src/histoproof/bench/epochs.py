"""What logging, validation and checkpoints cost, each as a share of an epoch."""

from collections.abc import Sequence
from typing import Any

from .measure import estimate
from .rounds import Outcome

__all__ = ["VALIDATED", "epoch_costs"]

VALIDATED = 512
"""Valid patches that are scored for a sample; the time of the whole split is that of these, in proportion."""


def epoch_costs(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One entry for each row of which they were measured: seconds of an epoch, and of it logging, validation and checkpoints.

    Logging is a step written down less the same step not written down, both on a batch that lies on the device. Each epoch writes
    `last`, and `best` where it is the best: two checkpoints are counted, and those within the epoch.
    """
    return [_costs(one) for one in outcomes if one.samples.get("checkpoint")]


def _costs(outcome: Outcome) -> dict[str, Any]:
    facts, seen = outcome.case.facts, outcome.samples
    within = facts["steps"] // facts["checkpoints"] if facts["checkpoints"] else 0
    patches, valid = facts["patches"], facts["valid"]
    seconds: dict[str, list[float]] = {
        "logging": [patches / a - patches / b for a, b in zip(seen["logged"], seen["compute"], strict=True)],
        "validation": [valid / rate for rate in seen["validation"]],
        "checkpoints": [(2 + within) / rate for rate in seen["checkpoint"]],
    }
    steps = [patches / rate for rate in seen["end_to_end"]]
    whole = [sum(parts) for parts in zip(steps, seconds["validation"], seconds["checkpoints"], strict=True)]
    return {
        "what": "epoch",
        **{key: outcome.case.name[key] for key in ("model", "device", "batch_size", "precision", "variant")},
        "epoch_s": estimate(whole).median,
        "patches": patches,
        "valid_patches": valid,
        "valid_patches_timed": min(valid, VALIDATED),
        "checkpoints_counted": 2 + within,
        **{name: _share(found, whole) for name, found in seconds.items()},
    }


def _share(seconds: list[float], whole: list[float]) -> dict[str, Any]:
    share = estimate([part / all_ for part, all_ in zip(seconds, whole, strict=True)])
    return {"seconds": estimate(seconds).median, "share": share.median, "low": share.low, "high": share.high}
