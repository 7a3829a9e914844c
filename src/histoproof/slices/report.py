"""What is found about the slices of a split, as numbers: which are worse than the rest, and by how much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import bootstrap
from ..evaluate import Predictions
from .cut import Column, Slice, cut
from .family import TESTED, Tested, judge
from .scores import Scored, score_slices
from .trees import halves, tree_slices

__all__ = ["ALPHA", "RANKING", "Settings", "look"]

ALPHA = 0.05
"""A slice is flagged where its corrected p-value is below this."""
RANKING = ("accuracy", "cross_auc")
"""What slices are ranked by. Recall and specificity alone would rank first where the one is paid for by the other, as in any
slice with another share of tumour."""
_ALIKE = 0.5
_SIMPLE = {"bin": 0, "tail": 0, "category": 0, "pair": 1, "tree": 2}


@dataclass(frozen=True)
class Settings:
    """How slices are cut and judged."""

    threshold: float
    least: int = 20
    """The fewest patches of a slice, and of its rest."""
    pairs: bool = True
    shown_pairs: int = 20
    """Pairs that are scored with intervals, the worst first; all of them are tested."""
    permutations: int = 1000
    replicates: int = 1000
    seed: int = 42


def look(
    found: Predictions, columns: Mapping[str, Column], settings: Settings, groups: NDArray[np.str_] | None
) -> tuple[list[dict[str, Any]], list[Slice], dict[str, Any]]:
    """(rows of slices.json, worst first; all slices that were tested; what the family of tests was)."""
    probability = found.probability
    wrong = ((probability >= settings.threshold) != (found.label == 1)).astype(np.float64)
    units = bootstrap.number_units(groups, len(found.label))
    second = halves(units, settings.seed)
    every = cut(columns, least=settings.least, pairs=settings.pairs)
    every += tree_slices(columns, found.label, wrong, second, least=settings.least)
    tested = judge(
        every,
        found.label,
        probability,
        threshold=settings.threshold,
        second=second,
        units=None if groups is None else units,
        permutations=settings.permutations,
        seed=settings.seed,
    )
    order = _order(every, tested)
    shown, pairs = [], 0
    for k in order:
        pairs += every[k].kind == "pair"
        if every[k].kind != "pair" or pairs <= settings.shown_pairs:
            shown.append(k)
    scored = score_slices(
        [every[k] for k in shown],
        found.label,
        probability,
        threshold=settings.threshold,
        groups=groups,
        replicates=settings.replicates,
        seed=settings.seed,
    )
    likes = _likes([every[k] for k in shown])
    rows = [
        {"rank": rank, **_row(every[k], one, _tests(tested, k), columns), "like": like}
        for rank, (k, one, like) in enumerate(zip(shown, scored, likes, strict=True), start=1)
    ]
    family = {
        "slices": len(every),
        "tests": int(np.isfinite(tested.z).sum()),
        "shown": len(rows),
        "least": settings.least,
        "alpha": ALPHA,
        "permutations": settings.permutations,
        "method": "permutation of patches within label" if groups is None else "random signs of groups",
        "assumes": "patches are independent: where several come from one slide, p-values are too small and intervals too narrow"
        if groups is None
        else f"the {int(units.max()) + 1} groups are independent, and many",
    }
    return rows, every, family


def _order(every: Sequence[Slice], tested: Tested) -> list[int]:
    """Worst first: by the smaller corrected p-value of accuracy and cross AUC, then the simpler rule, then the larger excess of
    the two."""
    ranking = [TESTED.index(name) for name in RANKING]
    p = np.nan_to_num(tested.p_corrected[:, ranking], nan=2.0)
    excess = np.nan_to_num(tested.excess[:, ranking], nan=-np.inf)
    least = p.min(axis=1, initial=2.0)
    most = np.where(p == least[:, None], excess, -np.inf).max(axis=1, initial=-np.inf)
    return sorted(range(len(every)), key=lambda k: (least[k], _SIMPLE[every[k].kind], -most[k], every[k].rule))


def _likes(shown: Sequence[Slice]) -> list[dict[str, Any] | None]:
    """Per slice the one before it, by rank, that is mostly the same patches: {"rank", "jaccard"}; None where there is none."""
    found: list[dict[str, Any] | None] = []
    members = np.array([one.members for one in shown], dtype=np.float32)
    for k in range(len(shown)):
        both = members[:k] @ members[k] if k else np.zeros(0, np.float32)
        either = members[:k].sum(axis=1) + members[k].sum() - both
        share = both / np.maximum(either, 1)
        best = int(np.argmax(share)) if k else 0
        found.append({"rank": best + 1, "jaccard": float(share[best])} if k and share[best] >= _ALIKE else None)
    return found


def _tests(tested: Tested, k: int) -> dict[str, dict[str, float]]:
    return {
        name: {
            "z": float(tested.z[k, j]),
            "excess": float(tested.excess[k, j]),
            "p": float(tested.p[k, j]),
            "p_corrected": float(tested.p_corrected[k, j]),
        }
        for j, name in enumerate(TESTED)
        if np.isfinite(tested.z[k, j])
    }


def _row(
    one: Slice, scored: Scored, tests: dict[str, dict[str, float]], columns: Mapping[str, Column]
) -> dict[str, Any]:
    ranked = [name for name in RANKING if name in tests]
    worst = min(ranked, key=lambda name: (tests[name]["p_corrected"], -tests[name]["excess"]), default=None)
    row = {
        "rule": one.rule,
        "kind": one.kind,
        "factors": list(one.factors),
        "n": scored.n,
        "positive": scored.positive,
        "groups": scored.groups,
        "share": scored.n / int(one.universe.sum()),
        "of": int(one.universe.sum()),
        "scores": {name: interval.as_json() for name, interval in scored.scores.items()},
        "rest": scored.rest,
        "gaps": {name: interval.as_json() for name, interval in scored.gaps.items()},
        "tests": tests,
        "worst": worst,
        "p_corrected": None if worst is None else tests[worst]["p_corrected"],
        "flagged": [name for name, test in tests.items() if test["p_corrected"] < ALPHA],
    }
    column = columns[one.factors[0]]
    if len(one.factors) == 1 and column.numeric:
        row["median"] = float(np.median(column.values[one.members].astype(np.float64)))
    return row
