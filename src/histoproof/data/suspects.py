"""Labels that a model doubts which never saw the patch: confident learning (Northcutt et al., JAIR 70, 2021).

The model is kernel ridge regression on the features of `features`, cross-validated: fast, without random parts. A
suspicion is all that it can give.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import rng
from ..compute import deterministic
from .features import FAMILIES
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
        with deterministic(torch.device("cpu"), 1):
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
    """(len(asked),) kernel ridge regression with a Gaussian kernel on whitened principal components; clipped to 0-1."""
    raw = torch.from_numpy(features[fitted].astype(np.float32))
    mean, deviation = raw.mean(0), raw.std(0, correction=0) + 1e-6
    weights = _block_weights(features.shape[1])

    def standardised(rows: NDArray[np.int64]) -> Tensor:
        x = torch.from_numpy(features[rows].astype(np.float32))
        return ((x - mean) / deviation).clamp_(-5, 5) * weights

    z = standardised(fitted)
    centre = z.mean(0)
    z -= centre
    values, vectors = torch.linalg.eigh((z.T @ z).double() / len(z))
    values, vectors = values.flip(0)[:_COMPONENTS], vectors.flip(1)[:, :_COMPONENTS]
    keep = values > values[0] * 1e-9
    turn = (vectors[:, keep] * values[keep] ** (-_WHITENING / 2)).float()
    points = z @ turn
    distances = _squared_distances(points, points)
    width = float(distances.flatten().median()) or 1.0
    kernel = torch.exp(-distances / width).double()
    kernel.diagonal().add_(_RIDGE)
    target = torch.from_numpy(given * 2.0 - 1)
    solved = torch.cholesky_solve((target - target.mean())[:, None], torch.linalg.cholesky(kernel))[:, 0]
    answers = []
    for start in range(0, len(asked), _BLOCK):
        theirs = (standardised(asked[start : start + _BLOCK]) - centre) @ turn
        answers.append(torch.exp(-_squared_distances(theirs, points) / width).double() @ solved + target.mean())
    answer: NDArray[np.float64] = ((torch.cat(answers) + 1) / 2).clamp(0, 1).numpy()
    return answer


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    return ((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T).clamp_(min=0)


def _block_weights(width: int) -> Tensor:
    """(D,): each family of features counts as much as another, however many numbers it has."""
    families = FAMILIES if width == sum(FAMILIES) else (width,)
    return torch.cat([torch.full((n,), n**-0.5) for n in families])
