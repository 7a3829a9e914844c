"""Which slices are looked at: bins and tails of each number, each category, and pairs; every one with a rule that can be read.

Edges are rounded to four significant digits before anything is cut, so that the rule as printed is the rule as applied.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_LEVELS", "Column", "Slice", "column_of", "cut", "rounded"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

Kind = Literal["bin", "tail", "category", "pair", "tree"]
MOST_LEVELS = 400
"""A column of texts with more distinct ones than this is left out: a slice for each would be patches, not slices."""
_FEW_LEVELS = 8
"""Columns with at most this many enter pairs."""
_BINS = 5
_TAIL = 0.05


@dataclass(frozen=True)
class Column:
    """One factor of all patches: numbers (N,), or texts (N,)."""

    name: str
    values: Floats | NDArray[np.str_]

    @property
    def numeric(self) -> bool:
        """Whether it is cut by quantiles."""
        return self.values.dtype.kind == "f"

    def levels(self) -> list[str]:
        """The distinct texts, sorted; those that are empty say nothing and are left out."""
        return [str(level) for level in np.unique(self.values) if str(level)]


@dataclass(frozen=True)
class Slice:
    """Patches that a rule picks."""

    kind: Kind
    factors: tuple[str, ...]
    rule: str
    members: Bools
    """(N,)"""
    among: Bools | None = None
    """(N,) the patches that slice and rest are taken from; None: all. A tree's: those it was not fitted to."""

    @property
    def universe(self) -> Bools:
        """(N,) slice and rest together."""
        return np.ones(len(self.members), dtype=np.bool_) if self.among is None else self.among


def column_of(name: str, values: NDArray[np.str_]) -> Column | None:
    """A column of texts as a factor: by category, or by number where it has very many and all are numbers; else None."""
    if len(np.unique(values)) <= MOST_LEVELS:
        return Column(name, values)
    try:
        numbers = values.astype(np.float64)
    except ValueError:
        return None
    return Column(name, numbers) if np.isfinite(numbers).all() else None


def cut(columns: Mapping[str, Column], *, least: int, pairs: bool) -> list[Slice]:
    """The slices of all `columns` that hold at least `least` patches and leave as many, each set of patches once, simple ones
    first."""
    singles = [one for column in columns.values() for one in (*_bins(column), *_tails(column), *_categories(column))]
    found = singles + (list(_pairs(columns)) if pairs else [])
    kept, seen = [], set()
    for one in found:
        size, key = int(one.members.sum()), np.packbits(one.members).tobytes()
        if size >= least and len(one.members) - size >= least and key not in seen:
            seen.add(key)
            kept.append(one)
    return kept


def rounded(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")


def _between(column: Column, low: float | None, high: float | None) -> tuple[str, Bools]:
    """The rule low <= value < high, and whom it picks; None: no bound."""
    values = column.values.astype(np.float64)
    if low is None:
        assert high is not None
        return f"{column.name} < {high:g}", values < high
    if high is None:
        return f"{column.name} >= {low:g}", values >= low
    return f"{low:g} <= {column.name} < {high:g}", (values >= low) & (values < high)


def _edges(column: Column, shares: list[float]) -> list[float]:
    """Quantiles as rounded edges, rising, each once; the least value is no edge, since nothing lies below it."""
    values = column.values.astype(np.float64)
    found = sorted({rounded(float(q)) for q in np.quantile(values, shares)})
    return [edge for edge in found if edge > values.min()]


def _bins(column: Column) -> Iterator[Slice]:
    if not column.numeric:
        return
    edges = [None, *_edges(column, [k / _BINS for k in range(1, _BINS)]), None]
    for low, high in itertools.pairwise(edges):
        if low is not None or high is not None:
            yield Slice("bin", (column.name,), *_between(column, low, high))


def _tails(column: Column) -> Iterator[Slice]:
    if not column.numeric:
        return
    for edge in _edges(column, [_TAIL]):
        yield Slice("tail", (column.name,), *_between(column, None, edge))
    for edge in _edges(column, [1 - _TAIL]):
        yield Slice("tail", (column.name,), *_between(column, edge, None))


def _categories(column: Column) -> Iterator[Slice]:
    if column.numeric:
        return
    for level in column.levels():
        yield Slice("category", (column.name,), f"{column.name} = {level}", column.values == level)


def _pairs(columns: Mapping[str, Column]) -> Iterator[Slice]:
    """The outer thirds of two numbers, and the categories of columns with few of them."""
    parts: dict[str, list[tuple[str, Bools]]] = {}
    for name, column in columns.items():
        if column.numeric:
            edges = _edges(column, [1 / 3, 2 / 3])
            parts[name] = [_between(column, None, edges[0]), _between(column, edges[-1], None)] if edges else []
        elif len(column.levels()) <= _FEW_LEVELS:
            parts[name] = [(f"{name} = {level}", column.values == level) for level in column.levels()]
    for a, b in itertools.combinations(parts, 2):
        for (rule_a, in_a), (rule_b, in_b) in itertools.product(parts[a], parts[b]):
            yield Slice("pair", (a, b), f"{rule_a} and {rule_b}", in_a & in_b)
