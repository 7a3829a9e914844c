"""How often do the 95 % intervals hold the truth? Simulated data sets, scored as `evaluate` scores them.

    python benchmarks/coverage.py [--tries 800] [--only groups]

Scores of two normal distributions `shift` apart; groups have a shift of their own (`between`, a standard deviation) and
a share of tumour from a Beta distribution, or, for `normal_groups`, half of them none. Probabilities are calibrated,
except under `overconfident`, where logits are doubled. Prints, for each design, how often the interval held the truth:
of the AUC (in brackets: by the bootstrap without the jackknife, and the percentile interval), the lowest and highest of
the other scores, and of ECE (in brackets: the percentile interval).
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from histoproof import metrics
from histoproof.bootstrap import logit_interval, number_units, resample
from histoproof.metrics import score, score_with_intervals, scorer

Floats = NDArray[np.float64]
REPLICATES = 1000
CROWD = 2_000_000  # patches, each a group of its own, whose scores are taken for the truth


@dataclass(frozen=True)
class Design:
    """Where the data sets come from; without groups, each patch is one."""

    name: str
    n: int
    shift: float
    groups: int | None = None
    between: float = 0.0
    share: tuple[float, float] = (2.0, 3.0)
    normal_groups: bool = False
    uneven: bool = False
    overconfident: bool = False

    def draw(self, seed: int, n: int, groups: int) -> tuple[NDArray[np.uint8], Floats, NDArray[np.int64]]:
        """Labels, probabilities and groups of a data set."""
        g = np.random.default_rng([seed, n, groups])
        sizes = g.lognormal(0.0, 0.8, groups) if self.uneven else np.ones(groups)
        code = np.arange(n) % groups if not self.uneven else g.choice(groups, n, p=sizes / sizes.sum())
        share = g.beta(*self.share, groups)
        if self.normal_groups:
            share[g.random(groups) < 0.5] = 0.0
        labels = (g.random(n) < share[code]).astype(np.uint8)
        x = g.normal(size=n) + self.shift * labels + self.between * g.normal(size=groups)[code]
        prior = self.share[0] / sum(self.share) / (2 if self.normal_groups else 1)
        logit = (self.shift * x - self.shift**2 / 2) / (1 + self.between**2) + math.log(prior / (1 - prior))
        return labels, 1 / (1 + np.exp(-logit * (2 if self.overconfident else 1))), code

    def truth(self) -> dict[str, float | None]:
        """The scores of all patches there could be."""
        labels, probabilities, _ = self.draw(1, CROWD, CROWD)
        found = score(labels, probabilities)
        exact = NormalDist().cdf(self.shift / math.sqrt(2 * (1 + self.between**2)))
        return {**found, "auc": exact, "ece": found["ece"] if self.overconfident else 0.0}


DESIGNS = [
    Design("2000 patches", 2000, 2.4),
    Design("500 patches", 500, 1.8),
    Design("300 patches", 300, 3.5),
    Design("500 in 40 groups", 500, 1.8, 40, 0.7),
    Design("500 in 20 groups", 500, 1.8, 20, 0.7),
    Design("500 in 10 groups", 500, 1.8, 10, 0.7),
    Design("500 in 40 groups, pure ones", 500, 1.8, 40, 0.7, (0.5, 0.5)),
    Design("500 in 20 groups, pure ones", 500, 1.8, 20, 0.7, (0.5, 0.5)),
    Design("500 in 40 groups, half all normal", 500, 2.4, 40, 0.3, (2.0, 2.0), normal_groups=True, overconfident=True),
    Design("500 in 20 groups, half all normal", 500, 2.4, 20, 0.3, (2.0, 2.0), normal_groups=True, overconfident=True),
    Design("500 in 40 uneven groups", 500, 1.8, 40, 0.7, uneven=True),
    Design("500 in 20 uneven groups", 500, 1.8, 20, 0.7, uneven=True),
]


def coverage(design: Design, tries: int) -> dict[str, float]:
    """How often the interval of each score, and the percentile interval of the AUC and ECE, held the truth."""
    truth, held = design.truth(), dict[str, list[bool]]()
    for seed in range(tries):
        labels, probabilities, code = design.draw(seed + 2, design.n, design.groups or design.n)
        groups = code if design.groups else None
        for name, got in score_with_intervals(labels, probabilities, groups=groups, replicates=REPLICATES).items():
            true = truth[name]
            if true is not None and got.low is not None and got.high is not None:
                held.setdefault(name, []).append(got.low <= true <= got.high)
        weights = resample(number_units(groups, design.n), REPLICATES, 42)
        function = scorer(labels, probabilities)
        values = _joined(function(part) for part in weights)
        for name in ("auc", "ece"):
            true, (low, high) = truth[name], np.nanquantile(values[name], [0.025, 0.975])
            held.setdefault(f"{name} (percentile)", []).append(true is not None and bool(low <= true <= high))
        area, units = metrics.auc(labels, probabilities), min(len(np.unique(code[labels == y])) for y in (0, 1))
        if area is not None and truth["auc"] is not None:
            alone = logit_interval(area, values["auc"], units=units)
            inside = alone.low is not None and alone.high is not None and alone.low <= truth["auc"] <= alone.high
            held.setdefault("auc (bootstrap alone)", []).append(inside)
    return {name: float(np.mean(found)) for name, found in held.items()}


def _joined(parts: Iterator[dict[str, Floats]]) -> dict[str, Floats]:
    found = list(parts)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def main() -> None:
    """Measure each design and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=800)
    parser.add_argument("--only", default="", help="designs whose name has this in it")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for design in (design for design in DESIGNS if arguments.only in design.name):
        held = coverage(design, arguments.tries)
        if arguments.json:
            print(json.dumps({"design": design.name, "tries": arguments.tries, "held": held}), flush=True)
            continue
        others = {k: v for k, v in held.items() if "(" not in k and k not in {"auc", "ece"}}
        low, high = min(others, key=others.__getitem__), max(others, key=others.__getitem__)
        print(
            f"{design.name:36} auc {held['auc']:.3f} ({held['auc (bootstrap alone)']:.3f}, {held['auc (percentile)']:.3f})"
            f"   others {others[low]:.3f} ({low}) to {others[high]:.3f} ({high})"
            f"   ece {held['ece']:.3f} ({held['ece (percentile)']:.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
