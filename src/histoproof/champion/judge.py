"""The retrained runs judged on valid: which is frozen, at what temperature, from which probability on it calls tumour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..calibration import Calibration, calibrate
from ..config import Config
from ..evaluate import Predictions
from ..rules import Rule
from ..runs import Run
from ..threshold import Choice, choose_threshold
from .candidates import Candidate, RunScore, alike, score_run
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


def judge(out: Path, seeds: Sequence[int], valid: Valid, by: str, rule: Rule, say: Callable[[str], None]) -> Judged:
    """Score each retrained run, take the median, calibrate it, and choose its threshold on the calibrated probabilities.

    They are OUT/seeds/seedN, wherever they lay when they were trained.
    """
    places = {seed: f"seeds/seed{seed}" for seed in seeds}
    config = Run(out / places[seeds[0]]).load_config()
    replicates = config.evaluate.bootstrap
    # one view each, as the candidates were ranked: so that the search's promise and the seeds can be held against each other
    found = {seed: predictions_of(out / place, valid, tta=False) for seed, place in places.items()}
    scores = tuple(
        score_run(place, seed, found[seed], by, rule, groups=valid.groups, replicates=replicates)
        for seed, place in places.items()
    )
    scores = alike(scores)
    median = Candidate("", config.model.name, scores, {}).median
    say(f"3/5 calibrate seed {median.seed}, the median, and choose its threshold: {rule}")
    raw = found[median.seed]
    if config.evaluate.tta == "d4":
        raw = predictions_of(out / median.run, valid, tta=True)
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
