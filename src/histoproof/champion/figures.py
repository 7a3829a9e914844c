"""Two figures of a champion: the precision-recall curve with its threshold, and how far its probabilities can be believed.

Each takes plain arrays and words, and returns a matplotlib Figure; the journal draws them too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..calibration import ReliabilityPoint
from ..calibration import reliability as reliability_points
from ..drawing import BLUE, GREY, ORANGE, RED, render
from ..files import write_bytes, write_text
from ..threshold import precision_recall as curve_of

__all__ = ["WORDS", "precision_recall", "reliability", "write_figures"]

WORDS = {
    "pr_title": "Precision-recall, valid, n = {n} ({positive} tumour)",
    "recall": "recall (share of tumour patches called tumour)",
    "precision": "precision (share of called patches that are tumour)",
    "curve": "champion, average precision {ap:.3f}",
    "chosen": "threshold {threshold:.3f}: {rule}",
    "range": "interval of the threshold, {low:.3f} to {high:.3f}",
    "half": "threshold 0.5",
    "prevalence": "one answer for all",
    "reliability_title": "Reliability, valid, n = {n}",
    "probability": "predicted probability of tumour (mean of a bin)",
    "observed": "observed share of tumour",
    "before": "before: ECE {ece:.3f}, NLL {nll:.3f}",
    "after": "temperature {temperature:.2f}: ECE {ece:.3f}, NLL {nll:.3f}",
    "perfect": "calibrated",
    "count": "patches",
}
"""English; a translation has the same keys."""


def precision_recall(
    labels: ArrayLike,
    probabilities: ArrayLike,
    threshold: Mapping[str, Any],
    rule: str,
    *,
    average_precision: float,
    words: Mapping[str, str] = WORDS,
) -> Figure:
    """The curve of labels (N,) and probabilities (N,), with the chosen threshold ({"value", "low", "high"}) and 0.5 marked."""
    value, low, high = threshold["value"], threshold["low"], threshold["high"]
    found = curve_of(labels, probabilities, {"chosen": value, "half": 0.5})
    figure = Figure(figsize=(5.6, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(found.recall, found.precision, color=BLUE, lw=1.6, label=words["curve"].format(ap=average_precision))
    if low is not None and high is not None:
        near = np.append((found.thresholds >= low) & (found.thresholds <= high), False)
        label = words["range"].format(low=low, high=high)
        axes.plot(found.recall[near], found.precision[near], color=RED, lw=5, alpha=0.35, label=label)
    y = np.asarray(labels)
    axes.axhline(float(y.mean()), color=GREY, lw=1, ls="--", label=words["prevalence"])
    for name, marker, colour, size, text in (
        ("chosen", "o", RED, 8, words["chosen"].format(threshold=value, rule=rule)),
        ("half", "s", ORANGE, 7, words["half"]),
    ):
        recall, precision = found.marks[name]
        if precision is not None:
            axes.plot([recall], [precision], marker, color=colour, ms=size, label=text, mec="white")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=words["recall"], ylabel=words["precision"])
    title = words["pr_title"].format(n=len(y), positive=int(y.sum()))
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.legend(loc="lower left", fontsize=8)
    return figure


def reliability(
    labels: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    calibration: Mapping[str, Any],
    *,
    groups: ArrayLike | None = None,
    words: Mapping[str, str] = WORDS,
) -> Figure:
    """Observed against predicted, before and after temperature scaling; `before` and `after` (N,) probabilities, `calibration`
    the JSON of `calibration.Calibration`. Bars: 95 % intervals of the observed share; below: patches in each bin."""
    figure = Figure(figsize=(5.2, 5.4), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    top.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--", label=words["perfect"])
    for probabilities, when, colour, marker in ((before, "before", ORANGE, "s"), (after, "after", BLUE, "o")):
        points = [p for p in reliability_points(labels, probabilities, groups=groups) if p.count]
        scores = {name: calibration[when][name]["value"] for name in ("ece", "nll")}
        label = words[when].format(temperature=calibration["temperature"]["value"], **scores)
        x = [p.mean_probability for p in points]
        y = [p.observed.value for p in points]
        top.errorbar(x, y, yerr=_bars(points), fmt=f"{marker}-", color=colour, ms=4.5, lw=1.2, capsize=2, label=label)
        edges = np.linspace(0, 1, 16)
        bottom.hist(np.asarray(probabilities), bins=list(edges), color=colour, histtype="step", lw=1.4)
    top.set(ylim=(-0.02, 1.02), ylabel=words["observed"])
    title = words["reliability_title"].format(n=len(np.asarray(labels)))
    top.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    top.legend(loc="upper left", fontsize=8)
    bottom.set(xlim=(-0.02, 1.02), xlabel=words["probability"], ylabel=words["count"])
    return figure


def write_figures(
    folder: Path,
    labels: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    content: Mapping[str, Any],
    groups: ArrayLike | None,
) -> None:
    """Write both as SVG and PNG; `content` is that of champion.json."""
    choice, calibration = content["choice"], content["calibration"]
    ap = choice["chosen"]["average_precision"]["value"]
    drawn = {
        "precision-recall": lambda: precision_recall(
            labels, after, choice["threshold"], choice["rule"], average_precision=ap
        ),
        "reliability": lambda: reliability(labels, before, after, calibration, groups=groups),
    }
    for name, draw in drawn.items():
        svg, png = render(draw, name)
        write_text(folder / f"{name}.svg", svg)
        write_bytes(folder / f"{name}.png", png)


def _bars(points: list[ReliabilityPoint]) -> list[list[float]]:
    """(below, above) each point; 0 where there is no interval."""
    ends = [(p.observed.value or 0.0, p.observed.low, p.observed.high) for p in points]
    below = [0.0 if low is None else max(0.0, value - low) for value, low, _ in ends]
    above = [0.0 if high is None else max(0.0, high - value) for value, _, high in ends]
    return [below, above]
