"""The journal's figures. Each takes evidence and words, and returns a matplotlib Figure; equal evidence gives equal bytes."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from .. import metrics
from ..data.partition import PooledImages
from ..drawing import BLUE as _BLUE
from ..drawing import GREY as _GREY
from ..drawing import ORANGE as _ORANGE
from ..drawing import RED as _RED
from ..evaluate import Predictions
from .evidence.runs import RunEvidence

__all__ = ["confusion", "curves", "gallery", "gradients", "ranking"]

Words = dict[str, Any]
_MOST_POINTS = 1500
_ROWS, _COLUMNS = 3, 12


def curves(run: RunEvidence, words: Words) -> Figure:
    """Loss of train and valid, and valid AUC, by epoch."""
    figure, (left, right) = _panels(2)
    epoch = [line["epoch"] for line in run.epochs]
    left.plot(epoch, [line["train"]["loss"] for line in run.epochs], "o-", color=_BLUE, label=words["train"], ms=3.5)
    left.plot(epoch, _column(run, "loss"), "o-", color=_ORANGE, label=words["valid"], ms=3.5)
    _label(left, words["loss_title"], words["epoch"], words["loss_axis"])
    left.legend()
    right.plot(epoch, _column(run, "auc"), "o-", color=_ORANGE, label=words["valid"], ms=3.5)
    right.axhline(0.5, color=_GREY, lw=1, ls="--")
    right.annotate(
        words["chance"], (epoch[0], 0.5), xytext=(0, 3), textcoords="offset points", color=_GREY, fontsize=8.5
    )
    best = run.summary["best"] if run.summary else None
    if best and best["valid"]["auc"] is not None:
        right.plot([best["epoch"]], [best["valid"]["auc"]], "o", ms=9, mfc="none", mec=_RED, label=words["best"])
        right.legend(loc="lower right")
    right.set_ylim(min(0.45, *[v for v in _column(run, "auc") if np.isfinite(v)], 0.5) - 0.02, 1.01)
    _label(right, words["auc_title"], words["epoch"], "AUC")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def gradients(run: RunEvidence, words: Words) -> Figure:
    """Gradient norm (before clipping) and learning rate, by step."""
    figure, (left, right) = _panels(2)
    step, norm = run.steps["step"], run.steps["grad_norm"]
    middle, low, high = _thin(norm)
    x = _thin(step)[0]
    left.fill_between(x, low, high, color=_BLUE, alpha=0.25, lw=0)
    left.plot(x, middle, color=_BLUE, lw=0.9)
    marked = run.spikes["spikes"] if run.spikes else []
    if marked:
        at = [(spike["step"], spike["grad_norm"]) for spike in marked if spike["grad_norm"] is not None]
        left.plot(*zip(*at, strict=True), "o", color=_RED, ms=4, label=words["spikes"])
        left.legend(loc="best")
    most = run.config["optim"]["max_grad_norm"]
    if most is not None:
        left.axhline(most, color=_RED, lw=1, ls="--")
        left.annotate(
            words["clipped"],
            (1, most),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            color=_RED,
            fontsize=8.5,
            va="center",
        )
    if np.nanmin(norm, initial=np.inf) > 0:
        left.set_yscale("log")
        few = np.nanmax(norm) / np.nanmin(norm) < 100  # less than two decades: the ticks between need labels too
        left.yaxis.set_major_formatter(FuncFormatter(_plain_number))
        left.yaxis.set_minor_formatter(FuncFormatter(_between) if few else NullFormatter())
    _label(left, words["gradient_title"], words["step"], words["gradient_axis"])
    right.plot(x, _thin(run.steps["lr"])[0], color=_BLUE, lw=1.2)
    right.set_ylim(bottom=0)
    right.yaxis.set_major_formatter(FuncFormatter(_plain_number))
    _label(right, words["lr_title"], words["step"], words["lr_axis"])
    return figure


def gallery(run: RunEvidence, images: NDArray[np.uint8] | PooledImages, words: Words) -> Figure:
    """Patches in the batches of the highest spikes, faulty ones first. `images` (N, 96, 96, 3): the train split's pixels."""
    assert run.spikes is not None
    top = sorted(run.spikes["spikes"], key=lambda spike: -spike["score"])[:_ROWS]
    figure = Figure(figsize=(9.2, 1.02 * len(top) + 0.1), layout="constrained")
    grid = figure.subplots(len(top), _COLUMNS, squeeze=False)
    for row, spike in zip(grid, top, strict=True):
        first = sorted(spike["indices"], key=lambda index: index not in spike["faulty"])[:_COLUMNS]
        for axes, index in zip(row, first, strict=False):
            axes.imshow(images[index])
            faulty = spike["faulty"].get(index)
            axes.set_title(
                "\n".join([str(index), *(faulty or [])]), fontsize=6.5, color=_RED if faulty else "#20242c", pad=2
            )
        for place, axes in enumerate(row):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(place < len(first))
        row[0].text(
            -0.25,
            0.5,
            words["at_step"].format(step=spike["step"]),
            transform=row[0].transAxes,
            fontsize=8,
            rotation=90,
            va="center",
            ha="center",
        )
    return figure


def confusion(evaluation: dict[str, Any], words: Words) -> Figure:
    """The four counts at the threshold, with the share of each true class."""
    counts = evaluation["confusion"]
    table = np.array([[counts["tn"], counts["fp"]], [counts["fn"], counts["tp"]]], dtype=float)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(2):
        for column in range(2):
            text = f"{table[row, column]:.0f}\n{share[row, column]:.1%}"
            colour = "white" if share[row, column] > 0.55 else "#20242c"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=12)
    names = [words["normal"], words["tumour"]]
    axes.set_xticks([0, 1], names)
    axes.set_yticks([0, 1], names, rotation=90, va="center")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    _label(
        axes, words["confusion_title"].format(threshold=evaluation["threshold"]), words["predicted"], words["actual"]
    )
    return figure


def ranking(found: Predictions, evaluation: dict[str, Any], words: Words) -> Figure:
    """ROC and precision-recall curves, with the threshold in use."""
    figure, (left, right) = _panels(2)
    fpr, tpr, _ = metrics.roc_curve(found.label, found.probability)
    precision, recall, _ = metrics.precision_recall_curve(found.label, found.probability)
    scores = evaluation["metrics"]
    left.plot(fpr, tpr, color=_BLUE, lw=1.6)
    left.plot([0, 1], [0, 1], color=_GREY, lw=1, ls="--")
    _label(left, f"ROC, AUC {_range(scores['auc'])}", words["fpr"], words["recall"])
    right.plot(recall, precision, color=_BLUE, lw=1.6)
    share = float(found.label.mean())
    right.axhline(share, color=_GREY, lw=1, ls="--")
    _label(right, f"PR, AP {_range(scores['average_precision'])}", words["recall"], words["precision"])
    here = words["at_threshold"].format(threshold=evaluation["threshold"])
    if scores["specificity"]["value"] is not None and scores["recall"]["value"] is not None:
        left.plot([1 - scores["specificity"]["value"]], [scores["recall"]["value"]], "o", color=_RED, label=here)
        left.legend(loc="lower right")
    if scores["precision"]["value"] is not None and scores["recall"]["value"] is not None:
        right.plot([scores["recall"]["value"]], [scores["precision"]["value"]], "o", color=_RED, label=here)
        right.legend(loc="lower left")
    for axes in (left, right):
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
    return figure


def _panels(count: int) -> tuple[Figure, NDArray[np.object_]]:
    figure = Figure(figsize=(4.6 * count, 3.3), layout="constrained")
    return figure, figure.subplots(1, count)


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _column(run: RunEvidence, name: str) -> list[float]:
    values = [line["valid"].get(name) for line in run.epochs]
    return [float("nan") if value is None else float(value) for value in values]


def _thin(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(median, lowest, highest) of runs of steps, so that a long run draws at most 1,500 points and hides no spike."""
    if len(values) <= _MOST_POINTS:
        return values, values, values
    parts = np.array_split(values, _MOST_POINTS)
    return (
        np.array([np.median(part) for part in parts]),
        np.array([np.nanmin(part) for part in parts]),
        np.array([np.nanmax(part) for part in parts]),
    )


def _plain_number(value: float, _: object) -> str:
    return f"{value:g}"


def _between(value: float, _: object) -> str:
    """The label of a tick between powers of ten: of 2 and 5 only, so that labels stay apart."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _range(interval: dict[str, Any]) -> str:
    if interval["value"] is None:
        return "-"
    if interval["low"] is None:
        return f"{interval['value']:.3f}"
    return f"{interval['value']:.3f} ({interval['low']:.3f}-{interval['high']:.3f})"
