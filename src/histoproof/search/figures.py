"""Figures of a study, from plain rows (see `rows.rows`): history, parallel coordinates, importances, slices.

Each returns a matplotlib Figure; equal rows give equal bytes.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..drawing import BLUE, GREY, ORANGE, RED, render
from ..files import canonical, write_bytes, write_text

__all__ = ["ENGLISH", "draw", "history", "importance_bars", "parallel", "slices"]

Rows = Sequence[dict[str, Any]]
ENGLISH = {
    "complete": "complete ({n})",
    "pruned": "pruned, last epoch's ({n})",
    "failed": "failed ({n})",
    "best": "best so far",
    "history": "History of the search, n = {n} trials",
    "point": "point",
    "score": "valid {metric}",
    "parallel": "Parameters of n = {n} complete trials; grey: {pruned} pruned",
    "importances": "What mattered ({method}), n = {n} complete trials",
    "share": "share of the score's variance",
    "slices": "Score against each parameter, n = {n} trials",
    "states": {"complete": "complete", "pruned": "pruned"},
}
"""The words of the figures; the journal brings its own language's."""
Words = Mapping[str, Any]
_COLOURS = "cividis"
_COLUMNS = 3


def draw(folder: Path, result: dict[str, Any]) -> None:
    """Write every figure of a study's result into `folder`, as SVG and PNG."""
    rows, metric, space = result["trials"], result["metric"], result["space"]
    figures = {
        "history": lambda: history(rows, metric, lower=result["direction"] == "minimize"),
        "parallel": lambda: parallel(rows, metric, space, lower=result["direction"] == "minimize"),
        "importances": lambda: importance_bars(result["importances"]),
        "slices": lambda: slices(rows, metric, space),
    }
    for name, figure in figures.items():
        svg, png = render(figure, name)
        write_text(folder / f"{name}.svg", svg)
        write_bytes(folder / f"{name}.png", png)


def history(rows: Rows, metric: str, *, lower: bool = False, words: Words = ENGLISH) -> Figure:
    """The score of each trial by its point's place, the best so far as a line; pruned and failed ones marked."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    complete = sorted(_in(rows, "complete"), key=lambda row: row["point"])
    pruned = [row for row in _in(rows, "pruned") if row["value"] is not None]
    axes.plot(
        _places(complete), _values(complete), "o", color=BLUE, ms=4.5, label=words["complete"].format(n=len(complete))
    )
    if pruned:
        axes.plot(
            _places(pruned), _values(pruned), "x", color=ORANGE, ms=5.5, label=words["pruned"].format(n=len(pruned))
        )
    if complete:
        best = (np.minimum if lower else np.maximum).accumulate(_values(complete))
        axes.step(_places(complete), best, where="post", color=BLUE, lw=1.4, label=words["best"])
    if failed := _in(rows, "failed"):
        axes.plot(
            _places(failed),
            [0.02] * len(failed),
            "v",
            color=RED,
            ms=6,
            transform=axes.get_xaxis_transform(),
            label=words["failed"].format(n=len(failed)),
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label(
        axes,
        words["history"].format(n=len(complete) + len(pruned) + len(failed)),
        words["point"],
        words["score"].format(metric=metric),
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def parallel(rows: Rows, metric: str, space: dict[str, Any], *, lower: bool = False, words: Words = ENGLISH) -> Figure:
    """Parallel coordinates: a line a complete trial through its parameters, coloured by its score; pruned ones grey.

    The colours span all but the worst fifth of the scores, which have the last colour: one failure would leave none for the rest.
    A key that does not vary in a trial (its `when` does not hold) has the lowest place on its axis, "-".
    """
    axes_of = {key: _Scale(key, dimension, rows) for key, dimension in space.items()}
    figure = Figure(figsize=(max(1.5 * len(axes_of) + 2.5, 6), 4.2), layout="constrained")
    axes = figure.subplots()
    complete = sorted(_in(rows, "complete"), key=lambda row: -row["value"] if lower else row["value"])
    pruned = _in(rows, "pruned")
    scores = _values(complete) or [0.0, 1.0]
    worst, best = np.quantile(scores, 0.8 if lower else 0.2), (min if lower else max)(scores)
    norm = Normalize(min(worst, best), max(worst, best))
    colours = colormaps[f"{_COLOURS}_r" if lower else _COLOURS]
    places = list(range(len(axes_of)))
    for row in pruned:
        axes.plot(places, [scale.at(row) for scale in axes_of.values()], color=GREY, lw=0.6, alpha=0.35)
    for row in complete:
        heights = [scale.at(row) for scale in axes_of.values()]
        axes.plot(places, heights, color=colours(norm(row["value"])), lw=1.3, alpha=0.9)
    axes.set(xlim=(-0.3, len(places) - 0.7 + 0.3), ylim=(-0.05, 1.05), yticks=[])
    axes.set_xticks(places, [scale.name for scale in axes_of.values()])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    for place, scale in enumerate(axes_of.values()):
        axes.axvline(place, color="#5c6370", lw=1)
        for height, text in scale.ticks():
            axes.annotate(
                text,
                (place, height),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
            )
    if complete:
        extend = "neither" if worst == (max if lower else min)(scores) else "max" if lower else "min"
        figure.colorbar(
            ScalarMappable(norm, colours), ax=axes, label=words["score"].format(metric=metric), pad=0.02, extend=extend
        )
    axes.set_title(
        words["parallel"].format(n=len(complete), pruned=len(pruned)),
        loc="left",
        fontsize=10.5,
        fontweight="bold",
    )
    return figure


def importance_bars(importances: dict[str, Any], *, words: Words = ENGLISH) -> Figure:
    """The share of the score's variance that each parameter explains; where it was not measured, why."""
    shares = importances["values"] or {}
    figure = Figure(figsize=(6.2, 1.2 + 0.36 * max(len(shares), 2)), layout="constrained")
    axes = figure.subplots()
    if not shares:
        axes.text(0.5, 0.5, importances["why"], ha="center", va="center", color=GREY, transform=axes.transAxes)
        axes.set_axis_off()
        return figure
    ordered = sorted(shares.items(), key=lambda item: item[1])
    axes.barh([key for key, _ in ordered], [value for _, value in ordered], color=BLUE, height=0.6)
    for place, (_, value) in enumerate(ordered):
        axes.annotate(
            f"{value:.2f}", (value, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    axes.set_xlim(0, max(shares.values()) * 1.15 or 1)
    axes.grid(visible=False, axis="y")
    title = words["importances"].format(**importances)
    _label(axes, title, words["share"], "")
    return figure


def slices(rows: Rows, metric: str, space: dict[str, Any], *, words: Words = ENGLISH) -> Figure:
    """The score against each parameter: complete trials, and pruned ones with their last epoch's score."""
    columns = min(_COLUMNS, len(space))
    height = -(-len(space) // columns)
    figure = Figure(figsize=(3.3 * columns + 0.4, 2.7 * height + 0.4), layout="constrained")
    grid = figure.subplots(height, columns, squeeze=False, sharey=True)
    n = sum(row["value"] is not None for row in rows)
    for axes, (key, dimension) in zip(grid.flat, space.items(), strict=False):
        for state, mark, colour in (("pruned", "x", ORANGE), ("complete", "o", BLUE)):
            shown = [row for row in _in(rows, state) if key in row["params"] and row["value"] is not None]
            values = [row["params"][key] for row in shown]
            if dimension["choices"] is not None:
                names = [canonical(choice) for choice in dimension["choices"]]
                spread = [0.16 * math.sin(7.0 * row["point"]) for row in shown]
                at = [names.index(canonical(v)) + s for v, s in zip(values, spread, strict=True)]
                axes.set_xticks(range(len(names)), [_short(choice) for choice in dimension["choices"]], fontsize=8)
                axes.set_xlim(-0.5, len(names) - 0.5)
            else:
                at = [float(value) for value in values]
            axes.plot(at, _values(shown), mark, color=colour, ms=4, alpha=0.8, label=words["states"][state])
        if dimension["log"]:
            axes.set_xscale("log")
        axes.set_xlabel(key)
    for axes in grid.flat[len(space) :]:
        axes.set_axis_off()
    for row in grid:
        row[0].set_ylabel(words["score"].format(metric=metric))
    grid[0][0].legend(loc="best", fontsize=8)
    figure.suptitle(words["slices"].format(n=n), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


class _Scale:
    """One axis of the parallel coordinates: a parameter's values as heights from 0 to 1."""

    def __init__(self, key: str, dimension: dict[str, Any], rows: Rows) -> None:
        self.key, self.log = key, dimension["log"]
        self.name = key if not self.log else f"{key}\n(log)"
        self.choices = None if dimension["choices"] is None else [canonical(c) for c in dimension["choices"]]
        self.texts = [] if dimension["choices"] is None else [_short(c) for c in dimension["choices"]]
        self.sometimes = dimension["when"] is not None
        self.low, self.high = dimension["low"], dimension["high"]

    def at(self, row: dict[str, Any]) -> float:
        """The height of a trial's value."""
        if self.key not in row["params"]:
            return 0.0
        value = row["params"][self.key]
        bottom = 0.12 if self.sometimes else 0.0
        if self.choices is not None:
            share = self.choices.index(canonical(value)) / max(len(self.choices) - 1, 1)
        elif self.high == self.low:
            share = 0.5
        elif self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return bottom + (1 - bottom) * share

    def ticks(self) -> list[tuple[float, str]]:
        """(height, text) of what is written beside the axis."""
        found = [(0.0, "-")] if self.sometimes else []
        if self.choices is not None:
            last = max(len(self.choices) - 1, 1)
            bottom = 0.12 if self.sometimes else 0.0
            return found + [(bottom + (1 - bottom) * n / last, text) for n, text in enumerate(self.texts)]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        values = dict.fromkeys((self.low, middle, self.high))
        return found + [(self.at({"params": {self.key: value}}), f"{value:.3g}") for value in values]


def _in(rows: Rows, state: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["state"] == state]


def _places(rows: Rows) -> list[int]:
    return [row["point"] for row in rows]


def _values(rows: Rows) -> list[float]:
    return [row["value"] for row in rows]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else canonical(value)
    return text if len(text) <= 16 else text[:14] + ".."


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
