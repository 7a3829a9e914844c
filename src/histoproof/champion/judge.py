"""The retrained runs judged on valid: which is frozen, at what temperature, from which probability on it calls tumour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..calibration import Calibration, calibrate
from ..config import Config
from ..evaluate import Predictions
from ..rules import Rule
from ..runs import Run
from ..threshold import Choice, choose_threshold
from .candidates import Candidate, RunScore, score_run
from .valid import Valid, predictions_of

__all__ = ["Judged", "judge"]


@dataclass(frozen=True)
class Judged:
    """The run to be frozen, and what was decided about it."""

    config: Config
    scores: tuple[RunScore, ...]
    """Of every retrained seed."""
    median: RunScore
    run: Run
    raw: Predictions
    """On valid, as the model gives them."""
    found: Predictions
    """The same with calibrated logits."""
    calibration: Calibration
    choice: Choice
    temperature: float
    threshold: float


def judge(
    out: Path, trained: Sequence[dict[str, Any]], valid: Valid, by: str, rule: Rule, say: Callable[[str], None]
) -> Judged:
    """Score each retrained run, take the median, calibrate it, and choose its threshold on the calibrated probabilities.

    `trained`: what `train` returned of each, with "seed".
    """
    config = Run(Path(trained[0]["run"])).load_config()
    replicates = config.evaluate.bootstrap
    found = {row["seed"]: predictions_of(Path(row["run"]), valid, tta=config.evaluate.tta == "d4") for row in trained}
    scores = tuple(
        score_run(place, seed, found[seed], by, rule, groups=valid.groups, replicates=replicates)
        for place, seed in ((str(Path(row["run"]).relative_to(out)), row["seed"]) for row in trained)
    )
    median = Candidate("", config.model.name, scores, {}).median
    say(f"3/5 calibrate seed {median.seed}, the median, and choose its threshold: {rule}")
    raw = found[median.seed]
    calibration = calibrate(valid.labels, raw.logit, groups=valid.groups, replicates=replicates, seed=median.seed)
    temperature = calibration.temperature.value
    assert temperature is not None  # an end of its range at worst
    calibrated = Predictions(raw.index, raw.logit / temperature, raw.label)
    choice = choose_threshold(
        valid.labels, calibrated.probability, rule, groups=valid.groups, replicates=replicates, seed=median.seed
    )
    threshold = choice.threshold.value
    assert threshold is not None  # both classes are there: open_valid has seen to it
    run = Run(out / median.run)
    return Judged(config, scores, median, run, raw, calibrated, calibration, choice, temperature, threshold)
