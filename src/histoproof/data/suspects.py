"""Patches whose label a fast, cross-validated model doubts: finding kind `label_suspect`. A suspicion to look at, never more.

Confident learning (Northcutt, Jiang & Chuang 2021, doi:10.1613/jair.1.12125) over kernel ridge regression (`crossfit`) on
`features`. Each patch is judged only by models that were fitted without it and without its copies, or without its whole group
where groups are known. Patches are ranked by self-confidence; how many are named is confident learning's own estimate. With
faultless labels that number is not 0: hard patches are doubted as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from .. import rng
from ..errors import DataError
from .crossfit import CHUNK, out_of_fold
from .findings import Finding

__all__ = ["FIT_ROWS", "Suspect", "suspect_findings", "suspects", "why_not"]

FIT_ROWS = 6144
"""Models are fitted to at most so many patches (drawn by the seed): time grows with its cube, memory with its square."""
_REPEATS = 4
"""Cross-validations whose probabilities are averaged; all share one matrix inverse."""


@dataclass(frozen=True)
class Suspect:
    """A patch whose label the model doubts."""

    row: int
    """Its row in the features and labels that were given."""
    label: int
    """The given label, 0 or 1."""
    probability: float
    """Out-of-fold probability of tumour, 0-1: a least-squares estimate, only roughly calibrated."""
    score: float
    """1 minus the model's confidence in the given label, before clipping to 0-1: about 0 to 1, the higher the more doubtful."""


def why_not(labels: NDArray[np.uint8], *, groups: NDArray[Any] | None = None, folds: int = 5) -> str | None:
    """Why labels cannot be doubted, in words; None where they can. Labels other than 0 and 1 count as unknown.

    Needs 2 * folds patches of each class, and with groups each class in two groups at least.
    """
    counts = {label: int(np.count_nonzero(labels == label)) for label in (0, 1)}
    if not sum(counts.values()):
        return "no patch has a label"
    for label, name in ((1, "tumour"), (0, "no tumour")):
        if counts[label] < 2 * folds:
            return (
                f"only {counts[label]} of {sum(counts.values())} labelled patches say {name}; "
                f"cross-validation in {folds} folds needs {2 * folds}"
            )
        if groups is not None and len(np.unique(groups[labels == label])) < 2:
            return f"all patches labelled {name} are of one group, so no model can judge them without having seen that group"
    return None


def suspects(
    features: NDArray[np.floating[Any]],
    labels: NDArray[np.uint8],
    *,
    seed: int,
    groups: NDArray[Any] | None = None,
    folds: int = 5,
    limit: int | None = None,
) -> list[Suspect]:
    """The patches whose label is doubted, most doubtful first; the same list for the same input.

    `features` (N, d), `labels` (N,) with 0, 1, or anything else for unknown; `groups` (N,) keeps whole groups out of the
    models that judge them. Without `limit`, as many as the confident joint estimates to be wrong; with it, that many.
    Raises DataError with the words of `why_not`, for features that are not finite, and for lengths that do not fit.
    """
    _check(features, labels, groups, folds)
    rows = np.flatnonzero(labels <= 1)
    given = labels[rows].astype(np.int64)
    judges = [_folds(features, rows, given, groups, folds, rng.key(seed, "suspects", k)) for k in range(_REPEATS)]
    fitted = np.sort(rng.permutation(rng.key(seed, "suspects", "fit"), len(rows))[:FIT_ROWS])
    tumour = out_of_fold(features, rows, given, judges, fitted)
    judged = np.isfinite(tumour)
    rows, given, tumour = rows[judged], given[judged], tumour[judged]
    confidence = np.where(given == 1, tumour, 1 - tumour)
    order = np.argsort(confidence, kind="stable")
    named = order[:limit] if limit is not None else order[_doubted(tumour, given)[order]]
    return [
        Suspect(int(rows[k]), int(given[k]), float(np.clip(tumour[k], 0, 1)), float(1 - confidence[k])) for k in named
    ]


def suspect_findings(split: str, ranked: Sequence[Suspect]) -> list[Finding]:
    """Findings label_suspect, severity warning, in the order of suspicion; a suspect's row is taken as the patch's index."""
    words = ("no tumour", "tumour")
    return [
        Finding(
            "label_suspect",
            "warning",
            split,
            suspect.row,
            f"suspect {place} of {len(ranked)}: the label says {words[suspect.label]}, a model that never saw this patch "
            f"gives tumour a probability of {suspect.probability:.2f}; look at it",
        )
        for place, suspect in enumerate(ranked, start=1)
    ]


def _check(features: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any] | None, folds: int) -> None:
    if folds < 2:
        raise DataError(f"cross-validation in {folds} folds", valid="2 or more")
    for name, other in (("labels", labels), ("groups", groups)):
        if other is not None and other.shape != (len(features),):
            raise DataError(f"{len(features)} patches, but {name} of shape {other.shape}", valid=f"({len(features)},)")
    reason = why_not(labels, groups=groups, folds=folds)
    if reason:
        raise DataError(f"labels cannot be doubted: {reason}")
    if not all(np.isfinite(features[k : k + CHUNK]).all() for k in range(0, len(features), CHUNK)):
        raise DataError("features hold values that are not finite", next="describe patches with `features`, as uint8")


def _folds(
    features: NDArray[Any],
    rows: NDArray[np.int64],
    given: NDArray[np.int64],
    groups: NDArray[Any] | None,
    folds: int,
    key: int,
) -> NDArray[np.int64]:
    """The fold that judges each row, stratified by label: groups stay together, or else the copies of a patch."""
    if groups is not None:
        from sklearn.model_selection import StratifiedGroupKFold

        fold = np.empty(len(rows), dtype=np.int64)
        parts = min(folds, len(np.unique(groups[rows])))
        splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=key % 2**32)
        for number, (_, held_out) in enumerate(splitter.split(given, given, groups[rows])):
            fold[held_out] = number
        return fold
    digests = np.array([xxh3_64_intdigest(features[row].tobytes()) for row in rows], dtype=np.uint64)
    _, first, patch = np.unique(digests, return_index=True, return_inverse=True)
    order = rng.permutation(key, len(first))
    order = order[np.argsort(given[first[order]], kind="stable")]
    of_patch = np.empty(len(first), dtype=np.int64)
    of_patch[order] = np.arange(len(first)) % folds
    return of_patch[patch]


def _doubted(tumour: NDArray[np.float64], given: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which labels to name: of each class as many as the confident joint estimates to be wrong, the least confident first.

    The joint counts a patch where the model's probability of a class reaches the mean of that class's own patches; its rows
    are scaled to the class counts (equations 1 to 3 of the paper; "prune by class"). A patch whose label the model
    agrees with is never named.
    """
    of_class = np.stack([1 - tumour, tumour], axis=1)
    thresholds = np.array([of_class[given == label, label].mean() for label in (0, 1)])
    best = of_class.argmax(axis=1)
    confident = of_class[np.arange(len(given)), best] >= thresholds[best]
    named = np.zeros(len(given), dtype=np.bool_)
    for label in (0, 1):
        mine = np.flatnonzero(given == label)
        counted = int(np.count_nonzero(confident[mine]))
        against = int(np.count_nonzero(confident[mine] & (best[mine] != label)))
        order = mine[np.argsort(of_class[mine, label], kind="stable")]
        named[order[: round(len(mine) * against / max(counted, 1))]] = True
    return np.asarray(named & (best != given))
