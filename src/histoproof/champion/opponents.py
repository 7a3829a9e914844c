"""Whom the champion is compared with, each at its own threshold, on the same valid patches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compare import compare_models
from ..config import Config
from ..rules import Rule
from ..threshold import choose_threshold
from .baselines import Baseline, constant, is_mission_mlp, mean_colour, mlp
from .candidates import Candidate
from .judge import Judged
from .valid import Valid, predictions_of

__all__ = ["Opponents", "compared", "opponents", "thresholds"]


@dataclass(frozen=True)
class Opponents:
    """The models to compare with, and why some are missing."""

    models: list[Baseline]
    skipped: dict[str, str]


def opponents(
    out: Path,
    ranking: Sequence[Candidate],
    config: Config,
    valid: Valid,
    seed: int,
    progress: Callable[..., None] | None,
) -> Opponents | dict[str, Any]:
    """The runner-up and the baselines; what a stopped training returns where a signal asked to stop."""
    models: list[Baseline] = []
    tta = config.evaluate.tta == "d4"  # or the champion's eight views would be taken for the model's merit
    skipped: dict[str, str] = {}
    if len(ranking) > 1:
        run = Path(ranking[1].median.run)
        models.append(Baseline("runner-up", f"the second of the ranking, {run}", predictions_of(run, valid, tta=tta)))
    else:
        skipped["runner-up"] = "there was one candidate only"
    models += constant(valid, config.data.quarantine)
    colours = mean_colour(valid, config.data.quarantine)
    if colours is None:
        skipped["mean-colour"] = skipped["mlp"] = "every train patch has the same label"
        return Opponents(models, skipped)
    models.append(colours)
    if is_mission_mlp(config, valid):
        skipped["mlp"] = "the champion is the mission's MLP itself"
        return Opponents(models, skipped)
    trained = mlp(config, valid, seed, out / "baselines", progress, tta=tta)
    return trained if isinstance(trained, dict) else Opponents([*models, trained], skipped)


def thresholds(others: Opponents, rule: Rule, valid: Valid) -> dict[str, float]:
    """Each one's own threshold: by the same rule as the champion's, on its own predictions, unless it has a fixed one."""
    found: dict[str, float] = {}
    for model in others.models:
        if model.threshold is not None:
            found[model.name] = model.threshold
            continue
        choice = choose_threshold(valid.labels, model.found.probability, rule, replicates=2)  # it needs no resamples
        assert choice.threshold.value is not None
        found[model.name] = choice.threshold.value
    return found


def compared(
    judged: Judged, others: Opponents, at: dict[str, float], valid: Valid, by: str
) -> dict[str, list[dict[str, Any]]]:
    """AUC, accuracy and the primary score (F2 where it is one of those) of champion - other, see `compare.compare_models`."""
    table = compare_models(
        valid.labels,
        judged.found.probability,
        {model.name: model.found.probability for model in others.models},
        groups=valid.groups,
        threshold=judged.threshold,
        thresholds=at,
        scores=(by if by not in ("auc", "accuracy") else "f2",),
        replicates=judged.config.evaluate.bootstrap,
        seed=judged.median.seed,
    )
    return {name: [row.as_json() for row in rows] for name, rows in table.items()}
