"""How every figure looks: colours that colour-blind readers can tell apart, one style, and equal bytes for equal evidence."""

import io
import re
from collections.abc import Callable
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["BLUE", "GREY", "INK", "ORANGE", "RED", "STYLE", "label", "patch_grid", "png", "render"]

BLUE, ORANGE, GREY, RED, INK = "#1f5fa8", "#d9730d", "#8a8f98", "#b3261e", "#20242c"
STYLE: dict[str, Any] = {
    "figure.dpi": 100,
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5c6370",
    "axes.grid": True,
    "grid.color": "#e4e7ec",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "histoproof",
}


def render(draw: Callable[[], Figure], name: str) -> tuple[str, bytes]:
    """(SVG text, PNG bytes) of a figure, without clock times or random ids. `name` goes before every id inside the SVG, since
    several figures share a page."""
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = draw()
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        figure.savefig(png, format="png", dpi=144, metadata={"Software": None})
    text = svg.getvalue()
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text[text.index("<svg") :]), png.getvalue()


def png(draw: Callable[[], Figure]) -> bytes:
    """A figure as PNG, as `render` makes it."""
    with rc_context(STYLE):  # type: ignore[arg-type]
        content = io.BytesIO()
        draw().savefig(content, format="png", dpi=144, metadata={"Software": None})
    return content.getvalue()


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title at the left, and both axes named with their units."""
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def patch_grid(count: int, columns: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with room for `count` patches, `columns` in a row of `height` inches, with its axes, row by row, switched off."""
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(1.55 * columns, height * rows + 0.45), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    return figure, list(grid.flat)
