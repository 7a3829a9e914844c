"""Is a slice worse than chance makes some slice? p-values corrected for all slices and scores looked at, by their maximum.

Under the null hypothesis what a model makes of a patch does not depend, given its label, on the patch's factors. Without groups
the scores are then permuted among the patches of one label, and each permutation's largest standardised excess, over all slices
and scores, is what a slice's own must beat: Westfall & Young's single-step max-T (Resampling-Based Multiple Testing, 1993),
which keeps the chance of flagging anything at all at the level. Over groups, patches are not exchangeable: instead the sign of
each group's contribution to the excess is drawn at random (Kline & Santos, A score based approach to wild bootstrap inference,
J. Econometric Methods 1, 2012), which holds for many groups.

Permuting within labels means that a slice with more tumour is not worse for that: what is tested is what its labels do not
explain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import rng
from .cut import Slice

__all__ = ["TESTED", "Tested", "judge"]

Floats = NDArray[np.float64]

TESTED = ("accuracy", "cross_auc", "recall", "specificity")
"""The scores whose gap is tested, for being worse; see `scores`."""
_FEWEST = 5
"""Patches of a class that recall, specificity or AUC of a slice, and of the rest, must rest on to be tested."""
_CELLS = 2**24


@dataclass(frozen=True)
class Tested:
    """The tests of all slices: arrays (S, len(TESTED)), NaN where there is nothing to test."""

    z: Floats
    """Excess over what chance expects, in its standard deviations; positive is worse."""
    excess: Floats
    """The same as a share of the score: how much worse than the labels explain, 0 to 1."""
    p: Floats
    p_corrected: Floats


def judge(
    slices: Sequence[Slice],
    labels: NDArray[np.uint8],
    probabilities: Floats,
    *,
    threshold: float,
    second: NDArray[np.bool_],
    units: NDArray[np.int64] | None,
    permutations: int,
    seed: int,
) -> Tested:
    """Test every slice against its rest. Slices of trees are a family of their own: where there are both, each is corrected at
    half the level (p-values doubled), as the trees know one half of the patches, and a joint maximum would not be exact.
    `second` (N,): the half of `trees.halves`; nothing is permuted across halves, since the trees have seen one of them. `units`
    (N,) numbers the groups; None: patches stand alone."""
    out = Tested(*(np.full((len(slices), len(TESTED)), np.nan) for _ in range(4)))
    of_trees = np.array([one.among is not None for one in slices], dtype=np.bool_)
    families = [np.flatnonzero(of_trees == kind) for kind in (False, True)]
    both = all(len(family) for family in families)
    for family, halved in zip(families, (np.zeros_like(second), second), strict=True):
        if not len(family):
            continue
        mine = [slices[k] for k in family.tolist()]
        found = _family(mine, labels, probabilities, threshold, halved, units, permutations, seed)
        out.z[family], out.excess[family], out.p[family] = found.z, found.excess, found.p
        out.p_corrected[family] = np.minimum(1, 2 * found.p_corrected) if both else found.p_corrected
    return out


def _family(
    slices: Sequence[Slice],
    labels: NDArray[np.uint8],
    probabilities: Floats,
    threshold: float,
    second: NDArray[np.bool_],
    units: NDArray[np.int64] | None,
    permutations: int,
    seed: int,
) -> Tested:
    """One family of slices, corrected among themselves."""
    shape = (len(slices), len(TESTED))
    strata = labels.astype(np.int64) + 2 * second
    values = [x - _stratum_means(x, strata) for x in _badness(labels, probabilities, threshold)]
    members, mixing, usable = _laid_out(slices, labels)
    if not usable.any():
        return Tested(*(np.full(shape, np.nan) for _ in range(4)))
    if units is None:
        z, scale, draws = _permuted(members, mixing, values, strata, slices, permutations, seed)
    else:
        z, scale, draws = _flipped(members, mixing, values, strata, slices, units, permutations, seed)
    z[~usable] = np.nan
    seen = np.nan_to_num(z, nan=np.inf) - 1e-4  # ties are ties whatever the order of the sums, of float32
    above, highest = np.zeros(shape), []
    for drawn in draws:  # (S, K, some permutations)
        above += (drawn >= seen[:, :, None]).sum(axis=2)
        drawn[~usable] = -np.inf
        highest.append(drawn.max(axis=(0, 1)))
    peaks = np.sort(np.concatenate(highest))
    beaten = len(peaks) - np.searchsorted(peaks, seen, side="left")
    p, corrected = (np.where(usable, (1 + times) / (len(peaks) + 1), np.nan) for times in (above, beaten))
    excess = np.divide(z, scale, out=np.zeros(shape), where=scale > 0)
    return Tested(z, excess, p, corrected)


def _badness(labels: NDArray[np.uint8], probabilities: Floats, threshold: float) -> list[Floats]:
    """What counts against a patch, (N,) each: being wrong, and the share of the other class that it ranks on the wrong side
    of."""
    wrong = ((probabilities >= threshold) != (labels == 1)).astype(np.float64)
    misplaced = np.zeros(len(labels))
    for label in (0, 1):
        mine, others = labels == label, np.sort(probabilities[labels != label])
        if len(others):
            below = np.searchsorted(others, probabilities[mine], side="left")
            share = (below + np.searchsorted(others, probabilities[mine], side="right")) / 2 / len(others)
            misplaced[mine] = 1 - share if label else share
    return [wrong, misplaced]


def _laid_out(
    slices: Sequence[Slice], labels: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], Floats, NDArray[np.bool_]]:
    """(S, N) membership; (S, K, 4) how each tested score is made of the slice's sums of the two values over normal and over
    tumour patches; (S, K) what there is enough of to be tested."""
    members = np.zeros((len(slices), len(labels)), dtype=np.float32)
    mixing = np.zeros((len(slices), len(TESTED), 4))
    usable = np.zeros((len(slices), len(TESTED)), dtype=np.bool_)
    for s, one in enumerate(slices):
        members[s] = inside = one.members & one.universe
        rest = one.universe & ~one.members
        normal, tumour = (int((inside & (labels == c)).sum()) for c in (0, 1))
        enough = [min(mine, int((rest & (labels == c)).sum())) >= _FEWEST for c, mine in enumerate((normal, tumour))]
        usable[s] = (normal + tumour > 0, all(enough), enough[1], enough[0])
        mixing[s] = (
            (1 / max(normal + tumour, 1), 1 / max(normal + tumour, 1), 0, 0),
            (0, 0, 0.5 / max(normal, 1), 0.5 / max(tumour, 1)),
            (0, 1 / max(tumour, 1), 0, 0),
            (1 / max(normal, 1), 0, 0, 0),
        )
    return members, mixing, usable


def _stratum_means(values: Floats, strata: NDArray[np.int64]) -> Floats:
    sizes = np.maximum(np.bincount(strata, minlength=4), 1)
    means: Floats = (np.bincount(strata, weights=values, minlength=4) / sizes)[strata]
    return means


def _class_places(strata: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(strata % 2 == label).astype(np.int64) for label in (0, 1)]


def _permuted(
    members: NDArray[np.float32],
    mixing: Floats,
    values: list[Floats],
    strata: NDArray[np.int64],
    slices: Sequence[Slice],
    permutations: int,
    seed: int,
) -> tuple[Floats, Floats, Iterator[Floats]]:
    """Observed z (S, K), what its excess was multiplied by, and the z of permutations. Values are centred within each stratum,
    so the mean is 0; the variance is exact: n (1 - n / N) sum(values^2) / (N - 1) over the strata, for n of N patches in the
    slice."""
    variance = np.zeros((len(slices), 4))
    for stratum in np.unique(strata):
        here = strata == stratum
        size = int(here.sum())
        n = members[:, here].sum(axis=1, dtype=np.float64)
        for v, x in enumerate(values):
            spread = float((x[here] ** 2).sum()) / max(size - 1, 1)
            variance[:, 2 * v + stratum % 2] += n * (1 - n / size) * spread
    scale = _inverse_root(np.einsum("skc,sc->sk", mixing**2, variance))
    mixing = mixing * scale[:, :, None]
    classes = _class_places(strata)
    parts = [np.ascontiguousarray(members[:, place]) for place in classes]
    strata_places = [np.flatnonzero(strata == stratum) for stratum in range(4)]
    key = rng.key(seed, "slices", "permutations")

    def sums(sources: NDArray[np.int64]) -> Floats:
        """(S, K, columns) for patches taken from `sources` (N, columns)."""
        found = np.empty((len(slices), 4, sources.shape[1]), dtype=np.float32)
        for v, x in enumerate(values):
            for label, place in enumerate(classes):
                found[:, 2 * v + label] = parts[label] @ x.astype(np.float32)[sources[place]]
        return np.asarray(np.einsum("skc,scb->skb", mixing, found))

    def permuted(numbers: range) -> NDArray[np.int64]:
        sources = np.empty((len(strata), len(numbers)), dtype=np.int64)
        for column, number in enumerate(numbers):
            for stratum, place in enumerate(strata_places):
                sources[place, column] = place[rng.permutation(rng.key(key, number, stratum), len(place))]
        return sources

    step = max(1, min(permutations, _CELLS // len(strata), _CELLS // (4 * len(slices))))
    starts = range(0, permutations, step)
    observed = sums(np.arange(len(strata), dtype=np.int64)[:, None])[:, :, 0]
    return observed, scale, (sums(permuted(range(start, min(start + step, permutations)))) for start in starts)


def _flipped(
    members: NDArray[np.float32],
    mixing: Floats,
    values: list[Floats],
    strata: NDArray[np.int64],
    slices: Sequence[Slice],
    units: NDArray[np.int64],
    draws: int,
    seed: int,
) -> tuple[Floats, Floats, Iterator[Floats]]:
    """Observed z (S, K), what its excess was multiplied by, and the z with each group's part given a random sign, over the root
    of the sum of the parts' squares. A slice that lies in one group alone has |z| near 1 at most: it cannot be told from what a
    group is."""
    groups = int(units.max()) + 1
    found = np.zeros((len(slices), 4, groups))
    for stratum in np.unique(strata):
        here = np.flatnonzero(strata == stratum)
        mine = members[:, here].astype(np.float64)
        mine -= mine.mean(axis=1, keepdims=True)
        for v, x in enumerate(values):
            for s, row in enumerate(mine * x[here]):
                found[s, 2 * v + stratum % 2] += np.bincount(units[here], weights=row, minlength=groups)
    parts = np.einsum("skc,scg->skg", mixing, found)
    scale = _inverse_root((parts**2).sum(axis=2))
    parts *= scale[:, :, None]
    key = rng.key(seed, "slices", "signs")
    step = max(1, _CELLS // (len(slices) * len(TESTED)))

    def flipped(start: int) -> Floats:
        numbers = np.arange(start, min(start + step, draws), dtype=np.int64)
        signs = np.where(rng.uniform_at(key, numbers, groups) < 0.5, -1.0, 1.0)
        return np.asarray(parts @ signs.T)

    return parts.sum(axis=2), scale, (flipped(start) for start in range(0, draws, step))


def _inverse_root(variance: Floats) -> Floats:
    """1 / sqrt, and 0 where nothing varies."""
    return np.divide(1.0, np.sqrt(variance), out=np.zeros_like(variance), where=variance > 1e-18)
