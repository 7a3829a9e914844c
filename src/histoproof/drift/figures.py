"""The figure of a drift result; it needs nothing but the JSON."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..drawing import BLUE, GREY, INK, RED, label
from .moved import QUANTILES

__all__ = ["ENGLISH", "shifts"]

ENGLISH = {
    "title": "Distance to the training set, n = {n} against {m}",
    "axis": "Kolmogorov-Smirnov distance (share of patches)",
    "effect": "drift from here",
    "reference": "training set",
    "new": "new patches",
    "quantile": "share of patches below",
    "score": "score",
}
"""The words of the figure; the journal brings its own language's."""
_PANELS = 2


def shifts(result: dict[str, Any], *, words: dict[str, str] = ENGLISH) -> Figure:
    """Left each number's distance, red where it drifted; right the distributions of the two that moved most."""
    rows = [*result["factors"], *([result["score"]] if result["score"] else [])]
    rows.sort(key=lambda row: -row["ks"])
    figure = Figure(figsize=(11.5, 0.9 + 0.28 * len(rows)), layout="constrained")
    axes, *panels = figure.subplots(1, 1 + _PANELS, width_ratios=[1.5, 1, 1])
    colours = [RED if row["flagged"] else GREY for row in rows]
    axes.barh(range(len(rows)), [row["ks"] for row in rows], color=colours, height=0.65)
    for place, row in enumerate(rows):
        sign = "+" if row["more"] >= 0.5 else "−"
        axes.text(row["ks"] + 0.01, place, sign if row["flagged"] else "", va="center", color=INK, fontsize=9)
    axes.axvline(result["effect"], color=INK, lw=1, ls="--", label=words["effect"])
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.06)
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right", fontsize=8)
    label(axes, words["title"].format(n=result["n"], m=result["reference"]["n"]), words["axis"], "")
    for panel, row in zip(panels, rows, strict=False):
        shares = np.array(QUANTILES)
        panel.plot(row["reference"]["quantiles"], shares, color=BLUE, lw=1.6, label=words["reference"])
        panel.plot(row["new"]["quantiles"], shares, color=RED, lw=1.6, ls="--", label=words["new"])
        panel.set_ylim(0, 1)
        panel.legend(loc="best", fontsize=8)
        label(panel, row["name"], f"{row['name']} ({row['unit']})", words["quantile"])
    return figure
