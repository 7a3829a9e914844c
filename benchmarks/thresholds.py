"""How good are a chosen threshold's interval and its scores' correction? Simulated data sets, chosen as `champion` chooses.

    python benchmarks/thresholds.py [--tries 400]

Scores of two normal distributions 1.8 apart, two in five patches tumour; in groups, each with a shift of its own (standard
deviation 0.7) and a share of tumour from Beta(2, 3); probabilities are calibrated, so that the best threshold is known. Prints,
for each rule and design, how often the 95 % interval held it, and how far the score that the rule is about (seen on the
patches chosen on, and corrected) is above the true score of the threshold chosen: mean and root mean square.
"""

import argparse
import json
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from histoproof.rules import ExpectedCost, FBeta, RecallAtLeast, Rule, worth
from histoproof.threshold import choose_threshold

Floats = NDArray[np.float64]
SHIFT, BETWEEN, PRIOR, REPLICATES = 1.8, 0.7, 0.4, 400
RULES: list[tuple[Rule, str]] = [(FBeta(), "f2"), (RecallAtLeast(0.95), "recall"), (ExpectedCost(5.0), "cost")]


@dataclass(frozen=True)
class Design:
    """How many patches, in how many groups; without groups, each patch is drawn alone."""

    n: int
    groups: int | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.n} patches" + (f" in {self.groups} groups" if self.groups else "")

    @property
    def variance(self) -> float:
        """Of the scores of a class."""
        return 1 + (BETWEEN**2 if self.groups else 0.0)

    def draw(self, seed: int) -> tuple[NDArray[np.uint8], Floats, NDArray[np.int64] | None]:
        """Labels, probabilities and groups."""
        g = np.random.default_rng([seed, self.n, self.groups or 0])
        count = self.groups or self.n
        code = np.arange(self.n) % count
        share = g.beta(2.0, 3.0, count) if self.groups else np.full(count, PRIOR)
        labels = (g.random(self.n) < share[code]).astype(np.uint8)
        x = g.normal(size=self.n) + SHIFT * labels
        if self.groups:
            x += BETWEEN * g.normal(size=count)[code]
        logit = (SHIFT * x - SHIFT**2 / 2) / self.variance + math.log(PRIOR / (1 - PRIOR))
        return labels, 1 / (1 + np.exp(-logit)), code if self.groups else None

    def counts(self, thresholds: Floats) -> tuple[Floats, Floats]:
        """Shares of all patches that are true and false positives at each threshold (K,)."""
        logit = np.log(thresholds / (1 - thresholds)) - math.log(PRIOR / (1 - PRIOR))
        x, sd = (logit * self.variance + SHIFT**2 / 2) / SHIFT, math.sqrt(self.variance)
        tails = [np.array([1 - NormalDist(mean, sd).cdf(v) for v in x]) for mean in (SHIFT, 0.0)]
        return PRIOR * tails[0], (1 - PRIOR) * tails[1]


def truth(design: Design, rule: Rule) -> float:
    """The best threshold of all patches there could be."""
    grid = np.linspace(0.9999, 0.0001, 9999)
    tp, fp = design.counts(grid)
    whole = (np.append(tp, PRIOR)[None], np.append(fp, 1 - PRIOR)[None])
    return float(grid[int(np.argmax(worth(rule, *whole)[0, :-1]))])


def true_score(design: Design, name: str, threshold: float) -> float:
    """F2, recall or cost of a threshold over all patches there could be."""
    tp, fp = (float(v[0]) for v in design.counts(np.array([min(max(threshold, 1e-9), 1 - 1e-9)])))
    return {"f2": 5 * tp / (4 * PRIOR + tp + fp), "recall": tp / PRIOR, "cost": 5 * (PRIOR - tp) + fp}[name]


def measure(design: Design, rule: Rule, name: str, tries: int) -> dict[str, float]:
    """Coverage of the interval, and the errors of the score seen and of the score corrected."""
    best, held, seen, corrected = truth(design, rule), [], [], []
    for seed in range(tries):
        labels, probabilities, groups = design.draw(seed)
        got = choose_threshold(labels, probabilities, rule, groups=groups, replicates=REPLICATES)
        value, low, high = got.threshold.value, got.threshold.low, got.threshold.high
        expected, optimism = got.corrected[name], got.optimism[name]
        assert value is not None and low is not None and high is not None  # noqa: PT018
        assert expected is not None and optimism is not None  # noqa: PT018
        true = true_score(design, name, value)
        held.append(low <= best <= high)
        seen.append(expected + optimism - true)
        corrected.append(expected - true)

    def far(errors: list[float]) -> float:
        return float(np.sqrt(np.mean(np.square(errors))))

    means = {"seen": float(np.mean(seen)), "corrected": float(np.mean(corrected))}
    return {"best": best, "held": float(np.mean(held)), **means, "seen rms": far(seen), "corrected rms": far(corrected)}


def main() -> None:
    """Measure each rule in each design and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=400)
    parser.add_argument("--only", default="", help="designs whose name has this in it")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for design in (design for design in (Design(200), Design(800, 20)) if arguments.only in design.name):
        for rule, name in RULES:
            found = measure(design, rule, name, arguments.tries)
            if arguments.json:
                print(json.dumps({"n": design.n, "groups": design.groups, "rule": str(rule), **found}), flush=True)
                continue
            print(f"{design.name:26} {name:7}" + "  ".join(f"{k} {v:.3f}" for k, v in found.items()), flush=True)


if __name__ == "__main__":
    main()
