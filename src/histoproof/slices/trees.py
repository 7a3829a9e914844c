"""Slices found by shallow trees over the errors, and judged on patches that the trees were not fitted to.

The patches (or groups) are dealt into two halves; a tree fitted to the errors of one names leaves, which are slices of the other.
What is fitted is the error beyond the mean of the patch's class, so that a tree does not find the class again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import rng
from .cut import Column, Slice, rounded

__all__ = ["halves", "tree_slices"]

_DEPTH = 3
_LEAVES = 3
"""Of each tree those with the most errors beyond the expected."""
_SHARE = 0.04
"""Of its half, the least that a leaf holds."""
_MOST_COLUMNS = 64


@dataclass(frozen=True)
class _Feature:
    name: str
    level: str | None
    """None: a number; else whether the category is this."""
    values: NDArray[np.float64]


def halves(units: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """(N,) which half each patch is in; whole units are dealt."""
    draw = rng.uniform(rng.key(seed, "slices", "halves"), int(units.max()) + 1)
    order = np.argsort(draw, kind="stable")
    second = np.zeros(len(order), dtype=np.bool_)
    second[order[len(order) // 2 :]] = True
    return second[units]


def tree_slices(
    columns: Mapping[str, Column],
    labels: NDArray[np.uint8],
    wrong: NDArray[np.float64],
    second: NDArray[np.bool_],
    *,
    least: int,
) -> list[Slice]:
    """Leaves of the two trees, as slices among the half that each tree has not seen, with at least `least` patches there."""
    features = _features(columns)
    found = []
    for fitted in (~second, second):
        if fitted.sum() < 4 * least or (~fitted).sum() < 2 * least or not features:
            continue
        excess = wrong - _class_means(wrong, labels, fitted)
        for rule, factors, members in _leaves(features, excess, fitted, least):
            size = int((members & ~fitted).sum())
            if least <= size <= int((~fitted).sum()) - least:
                found.append(Slice("tree", factors, rule, members, ~fitted))
    return found


def _features(columns: Mapping[str, Column]) -> list[_Feature]:
    numbers = [_Feature(c.name, None, c.values.astype(np.float64)) for c in columns.values() if c.numeric]
    flags = [
        _Feature(c.name, level, (c.values == level).astype(np.float64))
        for c in columns.values()
        if not c.numeric and len(c.levels()) <= _MOST_COLUMNS
        for level in c.levels()
    ]
    return numbers + flags


def _class_means(
    wrong: NDArray[np.float64], labels: NDArray[np.uint8], fitted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    means = np.zeros(2)
    for label in (0, 1):
        mine = fitted & (labels == label)
        means[label] = wrong[mine].mean() if mine.any() else 0.0
    out: NDArray[np.float64] = means[labels]
    return out


def _leaves(
    features: list[_Feature], excess: NDArray[np.float64], fitted: NDArray[np.bool_], least: int
) -> list[tuple[str, tuple[str, ...], NDArray[np.bool_]]]:
    """(rule, factors, members) of the worst leaves."""
    from sklearn.tree import DecisionTreeRegressor

    matrix = np.column_stack([feature.values for feature in features])
    smallest = max(least, int(_SHARE * fitted.sum()))
    tree = DecisionTreeRegressor(max_depth=_DEPTH, min_samples_leaf=smallest, random_state=0)
    parts = tree.fit(matrix[fitted], excess[fitted]).tree_
    leaves: list[tuple[float, list[tuple[int, bool, float]]]] = []

    def walk(node: int, path: list[tuple[int, bool, float]]) -> None:
        if parts.children_left[node] < 0:
            leaves.append((float(parts.value[node].ravel()[0]), path))
            return
        column, edge = int(parts.feature[node]), rounded(float(parts.threshold[node]))
        walk(int(parts.children_left[node]), [*path, (column, False, edge)])
        walk(int(parts.children_right[node]), [*path, (column, True, edge)])

    walk(0, [])
    worst = sorted((leaf for leaf in leaves if leaf[0] > 0 and leaf[1]), key=lambda leaf: -leaf[0])[:_LEAVES]
    return [_rule(features, path) for _, path in worst]


def _rule(
    features: list[_Feature], path: list[tuple[int, bool, float]]
) -> tuple[str, tuple[str, ...], NDArray[np.bool_]]:
    """A path as words; of conditions on one number only the tightest are said."""
    members = np.ones(len(features[0].values), dtype=np.bool_)
    words: dict[tuple[int, bool], str] = {}
    for column, above, edge in path:
        feature = features[column]
        if feature.level is None:
            members &= feature.values >= edge if above else feature.values < edge
            words[column, above] = f"{feature.name} {'>=' if above else '<'} {edge:g}"
        else:
            members &= feature.values == (1 if above else 0)
            words[column, above] = f"{feature.name} {'=' if above else '≠'} {feature.level}"
    factors = tuple(dict.fromkeys(features[column].name for column, _ in words))
    return " and ".join(words.values()), factors, members
