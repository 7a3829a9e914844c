"""The figure of a bench result; it needs nothing but the JSON."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from ..drawing import BLUE, GREY, INK, ORANGE, RED, label

__all__ = ["ENGLISH", "throughput"]

ENGLISH = {
    "title": "Throughput, n = {n} samples a point",
    "batch": "batch size (patches)",
    "rate": "images per second",
    "interval": "median and 95 % interval; dotted: the ceiling that binds",
    "nothing": "nothing was measured",
}
"""The words of the figure; the journal brings its own language's."""
_COLOURS = (BLUE, ORANGE, INK, RED, GREY)
_LINES = {"fp32": "-", "bf16": "--", "fp16": "-."}
_MARKS = {"cpu": "o", "cuda": "s"}


def throughput(content: dict[str, Any], *, words: dict[str, str] = ENGLISH) -> Figure:
    """Images a second against batch size, a line for each model, variant, precision and device; for an audit, bars."""
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.subplots()
    rows = [row for row in content["rows"] if row["images_per_s"] is not None]
    if not rows:
        axes.axis("off")
        axes.text(0.5, 0.5, words["nothing"], ha="center", va="center", color=INK)
        return figure
    counts = sorted({len(row["images_per_s"]["samples"]) for row in rows})
    title = words["title"].format(n="-".join(map(str, dict.fromkeys((counts[0], counts[-1])))))
    if any(row["batch_size"] is None for row in rows):
        _bars(axes, rows)
        label(axes, title, words["rate"], "")
        return figure
    kinds = list(dict.fromkeys((row["model"], row["variant"]) for row in rows))
    lines: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault((row["model"], row["variant"], row["precision"], row["device"]), []).append(row)
    for (model, variant, precision, device), found in lines.items():
        _line(axes, found, _COLOURS[kinds.index((model, variant)) % len(_COLOURS)], (model, variant, precision, device))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    batches = sorted({row["batch_size"] for row in rows})
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_minor_formatter(FuncFormatter(_between))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    label(axes, title, f"{words['batch']}\n{words['interval']}", words["rate"])
    return figure


def _line(axes: Any, rows: list[dict[str, Any]], colour: str, name: tuple[Any, ...]) -> None:
    rows = sorted(rows, key=lambda row: row["batch_size"])
    x = [row["batch_size"] for row in rows]
    rates = [row["images_per_s"] for row in rows]
    middle = [rate["median"] for rate in rates]
    low, high = ([rate[end] or rate["median"] for rate in rates] for end in ("low", "high"))
    style = _LINES.get(name[2], "-")
    axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    words = " ".join(str(part) for part in name if part)
    axes.plot(x, middle, style, marker=_MARKS.get(name[3], "^"), color=colour, ms=4.5, lw=1.5, label=words)
    bound = [row for row in rows if row["ceiling"]]
    if bound:
        tops = [row["ceiling"]["images_per_s"] for row in bound]
        axes.plot([row["batch_size"] for row in bound], tops, ":", color=colour, lw=1, alpha=0.9)


def _bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    names = [" ".join(str(part) for part in (row["what"], row["variant"]) if part) for row in rows]
    for place, row in enumerate(rows):
        rate = row["images_per_s"]
        axes.barh(place, rate["median"], color=BLUE if row["variant"] is None else GREY, height=0.6)
        if rate["low"] is not None:
            axes.plot([rate["low"], rate["high"]], [place, place], color=INK, lw=1.5)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.grid(visible=False, axis="y")


def _plain(value: float, _: object) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _between(value: float, _: object) -> str:
    return f"{value:,.0f}" if value >= 1 and f"{value:e}"[0] in "25" else ""
