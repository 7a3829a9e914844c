"""Labels that a model doubts which never saw the patch: confident learning (Northcutt et al., JAIR 70, 2021).

The model is kernel ridge regression on the features of `features`, cross-validated: fast, without random parts. A
suspicion is all that it can give.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import rng
from .findings import Finding
from .pcam import SplitName

__all__ = ["Suspect", "fold_of_each", "suspect_findings", "suspects"]

_MOST_FITTED = 8_000
"""Patches that one fold is fitted on, at most: the time grows with their third power, the memory with their square."""
_LEAST_SHARE = 0.05
_COMPONENTS, _WHITENING, _RIDGE = 200, 0.4, 0.15
_BLOCK = 4096


@dataclass(frozen=True)
class Suspect:
    """A patch whose label is doubted."""

    row: int
    label: int
    tumour: float
    """Probability of tumour by a model that never saw the patch, 0-1: a ranking, not calibrated."""


def suspects(
    features: NDArray[np.float16] | NDArray[np.float32],
    labels: NDArray[np.integer],
    *,
    groups: NDArray[np.str_] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> tuple[list[Suspect], str | None]:
    """(suspects, most suspicious first; why there are none, or None).

    `features` (N, D), `labels` (N,): 0, 1, or anything else for unknown, which takes no part. Patches of one group are never on
    both sides of a fold. How many are named: confident learning's own estimate (patches whose other class is at least as
    probable as it is on average among the patches that bear its label), or 5 % of all, whichever is more; none whose label the
    model shares.
    """
    known = np.flatnonzero((labels == 0) | (labels == 1))
    given = np.asarray(labels[known], dtype=np.int64)
    scarce = min(int((given == 0).sum()), int((given == 1).sum())) if len(given) else 0
    if scarce < 2 * folds:
        return [], f"one class has {scarce} patches: {2 * folds} are needed for {folds} folds"
    parts = fold_of_each(given, None if groups is None else groups[known], folds, seed)
    tumour = np.full(len(known), np.nan)
    for part in range(folds):
        inside = parts == part
        if not inside.any():
            continue
        outside = np.flatnonzero(~inside)
        if len(np.unique(given[outside])) < 2:
            return [], "the groups leave a fold with one class"
        if len(outside) > _MOST_FITTED:
            outside = outside[np.sort(rng.permutation(rng.key(seed, "fitted", part), len(outside))[:_MOST_FITTED])]
        tumour[inside] = _ridge(features, known[outside], given[outside], known[inside])
    probability = np.stack([1 - tumour, tumour], axis=1)
    usual = np.array([probability[given == label, label].mean() for label in (0, 1)])
    other = probability[np.arange(len(given)), 1 - given]
    own = probability[np.arange(len(given)), given]
    doubted = (other >= usual[1 - given]) & (other > own)
    order = np.argsort(own, kind="stable")
    named = max(int(doubted.sum()), math.ceil(_LEAST_SHARE * len(given)))
    return [Suspect(int(known[k]), int(given[k]), float(tumour[k])) for k in order[:named] if own[k] < 0.5], None


def suspect_findings(split: SplitName, found: Sequence[Suspect]) -> Iterator[Finding]:
    """A finding label_suspect for each, the most suspicious first; never more than a suspicion."""
    for rank, suspect in enumerate(found, start=1):
        said = "tumour" if suspect.label else "no tumour"
        detail = (
            f"suspicion {rank} of {len(found)}: the label says {said}; a model that never saw this patch gives tumour "
            f"{suspect.tumour:.2f}. Look at it: the model errs as well"
        )
        yield Finding("label_suspect", "warning", split, suspect.row, detail)


def fold_of_each(given: NDArray[np.int64], groups: NDArray[np.str_] | None, folds: int, seed: int) -> NDArray[np.int64]:
    """(n,) the fold of each patch, classes balanced."""
    parts = np.empty(len(given), dtype=np.int64)
    if groups is None:
        for label in (0, 1):
            rows = np.flatnonzero(given == label)
            parts[rows[rng.permutation(rng.key(seed, "suspects", label), len(rows))]] = np.arange(len(rows)) % folds
        return parts
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(folds, len(np.unique(groups)))
    if count < 2:
        return fold_of_each(given, None, folds, seed)
    for part, (_, rows) in enumerate(StratifiedGroupKFold(count).split(given, given, groups)):
        parts[rows] = part
    return parts


def _ridge(
    features: NDArray[np.floating], fitted: NDArray[np.int64], given: NDArray[np.int64], asked: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Kernel ridge regression with a Gaussian kernel on whitened principal components; clipped to 0-1."""
    x = features[fitted].astype(np.float32)
    mean, deviation = x.mean(0), x.std(0) + 1e-6

    def standardised(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        z: NDArray[np.float32] = np.clip((features[rows].astype(np.float32) - mean) / deviation, -5, 5)
        return z * block_weights

    block_weights = _block_weights(features.shape[1])
    z = standardised(fitted)
    centre = z.mean(0)
    z -= centre
    values, vectors = np.linalg.eigh((z.T @ z).astype(np.float64) / len(z))
    values, vectors = values[::-1][:_COMPONENTS], vectors[:, ::-1][:, :_COMPONENTS]
    keep = values > values[0] * 1e-9
    turn = (vectors[:, keep] * values[keep] ** (-_WHITENING / 2)).astype(np.float32)
    points = z @ turn
    squares = (points**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * points @ points.T, 0)
    width = float(np.median(distances)) or 1.0
    kernel = np.exp(-distances / width).astype(np.float64)
    kernel[np.diag_indices(len(kernel))] += _RIDGE
    target = given * 2.0 - 1
    weights = np.linalg.solve(kernel, target - target.mean())
    answers = []
    for start in range(0, len(asked), _BLOCK):
        theirs = (standardised(asked[start : start + _BLOCK]) - centre) @ turn
        away = np.maximum((theirs**2).sum(1)[:, None] + squares[None] - 2 * theirs @ points.T, 0)
        answers.append(np.exp(-away / width) @ weights + target.mean())
    return np.clip((np.concatenate(answers) + 1) / 2, 0, 1)


def _block_weights(width: int) -> NDArray[np.float32]:
    """(D,): each family of features counts as much as another, however many numbers it has."""
    from .features import FAMILIES

    if width != sum(FAMILIES):
        return np.full(width, width**-0.5, dtype=np.float32)
    return np.concatenate([np.full(n, n**-0.5, dtype=np.float32) for n in FAMILIES])
