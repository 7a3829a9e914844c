"""Numbers as languages with a decimal comma write them, in text and in figures."""

import re
from collections.abc import Callable

from matplotlib.figure import Figure
from matplotlib.text import Text

__all__ = ["in_commas", "use_commas"]

_NUMBER = re.compile(r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]\d+)?(?![\w]|[.,]\d)")


def in_commas(text: str) -> str:
    """Text whose numbers, written with decimal points, have decimal commas, and points between thousands."""
    return _NUMBER.sub(lambda number: number.group().translate(str.maketrans(",.", ".,")), text)


def use_commas(figure: Figure) -> None:
    """Decimal commas in every text of a figure, and in the labels of ticks, which are made when it is drawn."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(in_commas(text.get_text()))
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    formatters = [f for axis in axes for f in (axis.get_major_formatter(), axis.get_minor_formatter())]
    for formatter in {id(f): f for f in formatters}.values():  # panels that share an axis share its formatter
        formatter.format_ticks = _in_commas(formatter.format_ticks)  # type: ignore[assignment, method-assign]


def _in_commas(format_ticks: Callable[[list[float]], list[str]]) -> Callable[[list[float]], list[str]]:
    return lambda values: [in_commas(label) for label in format_ticks(values)]
