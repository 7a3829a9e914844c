"""Groups dealt into parts, so that each part has its share of the patches and of each class.

Counts are (G, 2): how many normal and how many tumour patches each group has. No group is ever cut.
"""

import numpy as np
from numpy.typing import NDArray

from .. import rng

__all__ = ["deal", "folds", "imbalance", "mend"]

_MOVES = 10_000
_MANY = 20_000
"""Groups from which on one try is enough: each is a small part of the whole."""


def folds(counts: NDArray[np.int64], k: int, seed: int) -> NDArray[np.int64]:
    """(G,) the fold of each group, 0 to k - 1: never less balanced than scikit-learn's StratifiedGroupKFold (shuffled) makes
    them, since that is where one of the tries begins. It is left out beyond 20,000 groups, where it takes a minute and single
    groups no longer matter.

    Needs k groups with each class (else AssertionError).
    """
    starts = [_scikit_learns(counts, k, rng.key(seed, "folds") % 2**32)] if len(counts) <= _MANY else []
    return _best(counts, np.full(k, 1 / k), seed, starts)


def deal(counts: NDArray[np.int64], fractions: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """(G,) the part of each group, for P parts with these fractions of the patches and of each class.

    Needs P groups with each class (else AssertionError).
    """
    return _best(counts, fractions, seed, [])


def _best(
    counts: NDArray[np.int64], fractions: NDArray[np.float64], seed: int, starts: list[NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Groups in keyed random order go where they bring the counts nearest to the fractions, then single groups are moved while
    that brings them nearer. The best of up to 32 such orders, and of `starts`, which are mended in the same way."""
    for turn in range(int(np.clip(_MANY // len(counts), 1, 32))):
        order = rng.permutation(rng.key(seed, "deal", turn), len(counts))
        starts.append(_greedy(counts, fractions, order))
    mended = [mend(counts, fractions, parts) for parts in starts]
    return min(mended, key=lambda parts: imbalance(counts, fractions, parts))


def _scikit_learns(counts: NDArray[np.int64], k: int, state: int) -> NDArray[np.int64]:
    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.tile(np.array([0, 1]), len(counts)).repeat(counts.ravel())
    groups = np.repeat(np.arange(len(counts)), counts.sum(axis=1))
    out = np.empty(len(counts), dtype=np.int64)
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=state)
    for fold, (_, members) in enumerate(splitter.split(np.zeros((len(groups), 1)), labels, groups)):
        out[groups[members]] = fold
    return out


def imbalance(counts: NDArray[np.int64], fractions: NDArray[np.float64], parts: NDArray[np.int64]) -> float:
    """How far the parts' counts are from their fractions: the squared distance in shares of each class, over the fraction, summed
    over parts and classes; 0 is exact."""
    shares = _held(counts / counts.sum(axis=0), parts, len(fractions))
    return float(((shares - fractions[:, None]) ** 2 / fractions[:, None]).sum())


def mend(counts: NDArray[np.int64], fractions: NDArray[np.float64], parts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Parts (G,) after moving single groups, the best move first: while a part lacks a class, then while `imbalance` falls."""
    parts, share = parts.copy(), counts / counts.sum(axis=0)
    having = (counts > 0).astype(np.int64)
    assert (having.sum(axis=0) >= len(fractions)).all()
    everyone = np.arange(len(counts))
    for _ in range(_MOVES):
        held, carriers = _held(share, parts, len(fractions)), _held(having, parts, len(fractions))
        lacking = carriers == 0
        rest = (held - fractions[:, None]) / fractions[:, None]
        # (G, P): by how much the imbalance grows when a group goes from its part to another
        out_of = (share * (share / fractions[parts, None] - 2 * rest[parts])).sum(axis=1)
        into = (share[:, None] * (share[:, None] / fractions[:, None] + 2 * rest)).sum(axis=2)
        growth = out_of[:, None] + into
        growth[everyone, parts] = np.inf
        if lacking.any():
            left = ((having > 0) & (carriers[parts] == 1)).sum(axis=1)
            filled = ((having[:, None] > 0) & lacking).sum(axis=2)
            gain = np.where(np.isinf(growth), -np.inf, filled - left[:, None])
            growth = np.where(gain == gain.max(), growth, np.inf)
            if gain.max() <= 0:
                raise AssertionError("a class that is missing from a part can always be moved there")
        else:  # a move that would leave a part without a class is none
            last = ((having > 0) & (carriers[parts] == 1)).any(axis=1)
            growth[last] = np.inf
        group, part = np.unravel_index(int(growth.argmin()), growth.shape)
        if not lacking.any() and growth[group, part] >= -1e-12:
            break
        parts[group] = part
    return parts


def _greedy(counts: NDArray[np.int64], fractions: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    share = counts / counts.sum(axis=0)
    rest = -np.ones((len(fractions), 2))  # (held - fraction) / fraction
    parts = np.empty(len(counts), dtype=np.int64)
    for group in order.tolist():
        mine = share[group]
        part = int((mine * (mine / fractions[:, None] + 2 * rest)).sum(axis=1).argmin())
        parts[group] = part
        rest[part] += mine / fractions[part]
    return parts


def _held(values: NDArray[np.generic], parts: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """(P, 2) the sum of (G, 2) values in each part."""
    return np.stack([np.bincount(parts, weights=values[:, c], minlength=count) for c in range(2)], axis=1)
