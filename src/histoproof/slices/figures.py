"""Figures of a result of `slices`, as matplotlib Figures; `drawing.render` turns each into SVG and PNG. All but the galleries
need nothing but slices.json."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ..drawing import BLUE, GREY, INK, ORANGE, RED, label, patch_grid
from .gallery import Gallery

__all__ = ["ENGLISH", "curve", "curves", "forest", "gallery", "mixes", "of_result"]

ENGLISH = {
    "forest": "Slices against their rest: gap in {score}",
    "forest_axis": "{score} of the slice less its rest's, 95 % interval",
    "significant": "worse at corrected p < {alpha}",
    "open": "not shown to be worse",
    "curve": "{factor}: scores by fifths of the patches, n = {n}",
    "factors": "each factor",
    "share": "score, 95 % interval as band",
    "mixes": "Worst mix of each factor's slices, shares up to {bound:g} times; n = {n}",
    "mixes_axis": "recall, 95 % interval",
    "now": "as it is",
    "worst": "worst mix",
    "unnoticed": "worst with accuracy inside its interval",
    "false_positives": "Most confident false positives",
    "false_negatives": "Most confident false negatives",
    "least_certain": "Least certain",
    "shown": "{title}: {n} of {of}",
    "none": "there are none",
    "saliency": "{title}: where occlusion moves the logit",
    "centre": "centre {share:.0%} (chance 11 %)",
    "accuracy": "accuracy",
    "auc": "AUC",
    "cross_auc": "AUC against all",
    "recall": "recall",
    "specificity": "specificity",
    "bias": "probability less rate of tumour",
    "ece": "ECE",
}
"""The words of the figures; the journal brings its own language's."""
_MOST = 20
_PANELS = 5
_LINES = (("recall", BLUE, "-"), ("specificity", ORANGE, "--"), ("auc", GREY, ":"))


def of_result(
    result: dict[str, Any], drawn: Sequence[Gallery], maps: dict[str, NDArray[np.float64]]
) -> dict[str, Callable[[], Figure]]:
    """{file name: draw} of all figures of a result."""
    found: dict[str, Callable[[], Figure]] = {
        "forest-cross_auc": partial(forest, result, "cross_auc"),
        "forest-recall": partial(forest, result, "recall"),
        "curves": partial(curves, result),
    }
    if result["mixes"]:
        found["mixes"] = partial(mixes, result)
    for one in drawn:
        found[f"gallery-{one.name}"] = partial(gallery, one)
        if len(maps.get(one.name, ())):
            found[f"saliency-{one.name}"] = partial(gallery, one, maps[one.name])
    return found


def forest(
    result: dict[str, Any], score: str = "cross_auc", *, most: int = _MOST, words: dict[str, str] = ENGLISH
) -> Figure:
    """The gaps of the foremost slices with their intervals; filled red where the corrected test of this score flags them."""
    rows = [row for row in result["slices"] if row["gaps"][score]["value"] is not None][:most]
    figure = Figure(figsize=(9.2, 1.3 + 0.28 * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    alpha, names = result["family"]["alpha"], []
    for place, row in enumerate(rows):
        gap, test = row["gaps"][score], row["tests"].get(score)
        flagged = test is not None and test["p_corrected"] < alpha
        colour = RED if flagged else GREY
        if gap["low"] is not None:
            axes.plot([gap["low"], gap["high"]], [place, place], color=colour, lw=1.6)
        axes.plot(
            [gap["value"]], [place], "D" if flagged else "o", color=colour, ms=5, mfc=colour if flagged else "white"
        )
        p = "" if test is None else f", p {test['p_corrected']:.3f}"
        names.append(f"{_short(row['rule'])}  (n {row['n']}{p})")
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.plot([], [], "D", color=RED, label=words["significant"].format(alpha=alpha))
    axes.plot([], [], "o", color=GREY, mfc="white", label=words["open"])
    axes.legend(loc="best", fontsize=8)
    title = f"{words['forest'].format(score=words[score])}, n = {result['n']}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")  # over the rules too, which are long
    axes.set_xlabel(words["forest_axis"].format(score=words[score]))
    return figure


def curve(result: dict[str, Any], factor: str, *, words: dict[str, str] = ENGLISH) -> Figure:
    """Recall, specificity and AUC along a factor, from its bins."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    _curve(axes, result, factor, words)
    label(axes, words["curve"].format(factor=factor, n=result["n"]), _with_unit(result, factor), words["share"])
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", fontsize=8)
    return figure


def curves(result: dict[str, Any], *, words: dict[str, str] = ENGLISH) -> Figure:
    """`curve` of every number, as small panels with one scale of scores."""
    factors = list(result["factors"])
    rows = -(-max(len(factors), 1) // _PANELS)
    figure = Figure(figsize=(2.6 * _PANELS, 2.3 * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, _PANELS, squeeze=False, sharey=True)
    for axes, factor in zip(grid.flat, factors, strict=False):
        _curve(axes, result, factor, words)
        axes.set_xlabel(_with_unit(result, factor), fontsize=8)
        axes.tick_params(labelsize=7.5)
    for axes in grid.flat[len(factors) :]:
        axes.axis("off")
    for axes in grid[:, 0]:
        axes.set_ylabel(words["share"], fontsize=7)
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="upper right", ncols=len(_LINES), fontsize=8)
    title = words["curve"].format(factor=words["factors"], n=result["n"])
    figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.01, ha="left")
    return figure


def _curve(axes: Axes, result: dict[str, Any], factor: str, words: dict[str, str]) -> None:
    rows = [row for row in result["slices"] if row["kind"] == "bin" and row["factors"] == [factor]]
    rows = sorted(rows, key=lambda row: row["median"])
    for score, colour, style in _LINES:
        mine = [(row["median"], row["scores"][score]) for row in rows if row["scores"][score]["value"] is not None]
        if not mine:
            continue
        x = [at for at, _ in mine]
        axes.plot(x, [s["value"] for _, s in mine], "o", ls=style, color=colour, lw=1.4, ms=3.5, label=words[score])
        low, high = ([np.nan if s[end] is None else s[end] for _, s in mine] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        whole = result["whole"][score]["value"]
        if whole is not None:
            axes.axhline(whole, color=colour, lw=0.6, ls=style, alpha=0.6)
    if not rows:
        axes.text(0.5, 0.5, words["none"], transform=axes.transAxes, ha="center")


def _with_unit(result: dict[str, Any], factor: str) -> str:
    unit = result["factors"].get(factor, {}).get("unit")
    return f"{factor} ({unit})" if unit else factor


def mixes(result: dict[str, Any], *, words: dict[str, str] = ENGLISH) -> Figure:
    """Recall under the worst mix of each factor's slices."""
    rows = [row for row in result["mixes"] if row["recall"]["worst"]["value"] is not None]
    figure = Figure(figsize=(7.6, 1.3 + 0.34 * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        for what, colour, marker, offset in (("recall", RED, "D", 0.0), ("unnoticed", BLUE, "s", 0.22)):
            worst = row[what]["worst"]
            if worst["value"] is not None:
                _bar(axes, worst, place + offset, colour, marker)
    if rows:
        axes.axvline(rows[0]["recall"]["now"], color=INK, lw=1, ls="--", label=words["now"])
    axes.plot([], [], "D", color=RED, label=words["worst"])
    axes.plot([], [], "s", color=BLUE, label=words["unnoticed"])
    axes.legend(loc="best", fontsize=8)
    axes.set_yticks(range(len(rows)), [row["factor"] for row in rows], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    bound = rows[0]["bound"] if rows else 1
    title = words["mixes"].format(bound=bound, n=result["n"])
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    axes.set_xlabel(words["mixes_axis"])
    return figure


def gallery(
    one: Gallery, maps: NDArray[np.float64] | None = None, *, columns: int = 6, words: dict[str, str] = ENGLISH
) -> Figure:
    """Patches with the centre 32x32 px outlined, their probability, and the factor that is most unusual; `maps`: saliency over
    them."""
    figure, grid = patch_grid(len(one.rows), columns, height=2.05)
    for axes, image, row, k in zip(grid, one.images, one.rows, range(len(one.rows)), strict=False):
        axes.imshow(image, extent=(0, 96, 96, 0), interpolation="nearest")
        if maps is not None:
            most = max(float(np.abs(maps[k]).max()), 1e-12)
            axes.imshow(maps[k] / most, extent=(0, 96, 96, 0), cmap="PuOr_r", vmin=-1, vmax=1, alpha=0.55)
        axes.add_patch(Rectangle((32, 32), 32, 32, fill=False, ec="white", lw=2.2))
        axes.add_patch(Rectangle((32, 32), 32, 32, fill=False, ec="black", lw=0.9))
        axes.set_title(_caption(row, words if maps is not None else None), fontsize=6.8)
    if not one.rows:
        grid[0].text(0.5, 0.5, words["none"], ha="center")
    title = words[one.name] if maps is None else words["saliency"].format(title=words[one.name])
    figure.suptitle(
        words["shown"].format(title=title, n=len(one.rows), of=one.of),
        fontsize=10.5,
        fontweight="bold",
        x=0.01,
        ha="left",
    )
    return figure


def _caption(row: dict[str, Any], words: dict[str, str] | None) -> str:
    text = f"#{row['index']}  y={row['label']}  p={row['probability']:.2f}"
    share = row.get("centre_share")
    if words is not None and share is not None and np.isfinite(share):
        return f"{text}\n{words['centre'].format(share=share)}"
    if row["unusual"]:
        first = row["unusual"][0]
        text += f"\n{first['factor']} {first['value']:.3g} (P{first['percentile']:.0f})"
    return text


def _bar(axes: Axes, interval: dict[str, Any], place: float, colour: str, marker: str) -> None:
    if interval["low"] is not None:
        axes.plot([interval["low"], interval["high"]], [place, place], color=colour, lw=1.4)
    axes.plot([interval["value"]], [place], marker, color=colour, ms=4.5)


def _short(rule: str, most: int = 64) -> str:
    return rule if len(rule) <= most else f"{rule[: most - 1]}…"
