"""How often do the comparisons of two models call a difference that is not there? Simulated pairs of equal models.

    python benchmarks/false_alarms.py [--tries 4000] [--bootstrap-tries 600]

Both models' scores are normal, 1.8 apart between the classes, half of each patch's noise and half of each group's shift
(standard deviation 0.7) shared by the two; groups have a share of tumour from Beta(2, 3); `uneven` groups differ in size.
Prints, for each design, the share of p-values below 0.05, and of intervals that leave out 0.
"""

import argparse
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histoproof.bootstrap import Interval
from histoproof.compare import paired_bootstrap
from histoproof.delong import delong
from histoproof.mcnemar import mcnemar

Floats = NDArray[np.float64]
SHIFT, BETWEEN = 1.8, 0.7


@dataclass(frozen=True)
class Design:
    """Where the data sets come from; without groups, each patch is drawn alone."""

    name: str
    n: int
    groups: int | None = None
    uneven: bool = False

    def draw(self, seed: int) -> tuple[NDArray[np.uint8], Floats, Floats, NDArray[np.int64]]:
        """Labels, two models' probabilities, groups."""
        g = np.random.default_rng([seed, self.n, self.groups or 0])
        groups, between = self.groups or self.n, BETWEEN if self.groups else 0.0
        sizes = g.lognormal(0.0, 0.8, groups) if self.uneven else np.ones(groups)
        code = g.choice(groups, self.n, p=sizes / sizes.sum()) if self.uneven else np.arange(self.n) % groups
        labels = (g.random(self.n) < g.beta(2.0, 3.0, groups)[code]).astype(np.uint8)
        noise, shift = g.normal(size=(3, self.n)), g.normal(size=(3, groups))
        x = [
            SHIFT * labels + (noise[0] + noise[k] + between * (shift[0] + shift[k])[code]) / np.sqrt(2) for k in (1, 2)
        ]
        a, b = (1 / (1 + np.exp(-(SHIFT * v - SHIFT**2 / 2))) for v in x)
        return labels, a, b, code


DESIGNS = [
    Design("100 patches", 100),
    Design("300 patches", 300),
    Design("500 in 40 groups", 500, 40),
    Design("500 in 20 groups", 500, 20),
    Design("500 in 10 groups", 500, 10),
    Design("500 in 20 uneven groups", 500, 20, uneven=True),
]


def measure(design: Design, tries: int, bootstrap_tries: int) -> dict[str, float]:
    """The share of false alarms of each test, and how often each interval held 0."""
    alarms: dict[str, list[bool]] = {}

    def note(name: str, p_value: float | None) -> None:
        alarms.setdefault(name, []).append(p_value is not None and p_value < 0.05)

    def note_interval(name: str, interval: Interval) -> None:
        known = interval.low is not None and interval.high is not None
        alarms.setdefault(name, []).append(known and not interval.low <= 0 <= interval.high)  # type: ignore[operator]

    for seed in range(tries):
        labels, a, b, code = design.draw(seed)
        plain = mcnemar(labels, a, b)
        note("delong", delong(labels, a, b).p_value)
        note("mcnemar exact", plain.exact)
        note("mcnemar mid-p", plain.mid_p)
        note_interval("accuracy interval", plain.difference)
        if design.groups:
            grouped = mcnemar(labels, a, b, groups=code)
            note("auc obuchowski", delong(labels, a, b, groups=code).p_value)
            note("accuracy obuchowski", grouped.p_value)
            note("accuracy durkalski", grouped.durkalski)
            note_interval("accuracy interval over groups", grouped.difference)
        if seed < bootstrap_tries:
            found = paired_bootstrap(labels, a, b, groups=code if design.groups else None)
            for name in ("auc", "accuracy", "f2", "nll"):
                note(f"bootstrap {name}", found[name].p_value)
    return {name: float(np.mean(values)) for name, values in alarms.items()}


def main() -> None:
    """Measure each design and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=4000)
    parser.add_argument("--bootstrap-tries", type=int, default=600)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for design in DESIGNS:
        found: dict[str, Any] = measure(design, arguments.tries, arguments.bootstrap_tries)
        if arguments.json:
            print(json.dumps({"design": design.name, "alarms": found}), flush=True)
        else:
            print(f"{design.name:26}" + "  ".join(f"{name} {value:.3f}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
