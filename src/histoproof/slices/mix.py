"""Silent failure: what a monitor on global accuracy alone would miss.

The same slices in another mix (more dark patches, another scanner's share doubled) give another accuracy and another recall,
though the model errs as before in each of them. Within stated bounds the worst mix is a linear program: each slice's share of
the patches may become at most `bound` times what it is, and at least that part of it. Recall is a ratio of two sums that are
linear in the shares, and is minimised by Dinkelbach's iteration (On nonlinear fractional programming, Management Science 13,
1967).

The worst mix is chosen on one half of the patches and its scores are taken on the other, and the reverse; the mean is given.
Chosen and scored on the same patches it would look worse than it is, for the slices that were unlucky would be called the bad
ones."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import bootstrap
from ..bootstrap import Interval
from ..errors import ConfigError
from .cut import Column, Slice, cut

__all__ = ["BOUND", "check_bound", "silent", "unseen", "worst_mix"]

Floats = NDArray[np.float64]

BOUND = 2.0
"""How many times its share a slice may be, or how many times less."""
_FEWEST = 5
_STILL = 1e-9
_WHATS = ("accuracy", "recall", "unnoticed")


def silent(
    columns: Mapping[str, Column],
    labels: NDArray[np.uint8],
    probabilities: Floats,
    *,
    threshold: float,
    second: NDArray[np.bool_],
    units: NDArray[np.int64],
    accuracy: Interval,
    least: int,
    bound: float,
    replicates: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Per factor, for accuracy and for recall, the worst that a shift of its slices' mix does; the most recall lost first.

    Rows are {"factor", "bound", "slices": [{"rule", "share", "worst_share"}...], "accuracy", "recall", "unnoticed"}, each of
    the last three {"now", "worst": Interval as JSON}: `unnoticed` is the lowest recall among the mixes under which accuracy
    stays within the interval it has now, so that nobody who watches accuracy would look; None where there is no such interval.
    Shares and `worst_share` are of the whole split, for recall. `second` (N,) are the halves; `units` (N,) what the bootstrap
    draws."""
    check_bound(bound)
    right = ((probabilities >= threshold) == (labels == 1)).astype(np.float64)
    rows, found, everyone = [], [], np.ones(len(labels), dtype=np.bool_)
    for name, column in columns.items():
        parts = _partition(column, least)
        if len(parts) < 2:
            continue
        case = _Case([one.members for one in parts], labels, right, second, units, accuracy.low)
        shares = [float(one.members.mean()) for one in parts]
        mixed = case.shares("recall", bound, everyone)
        worst = shares if mixed is None else mixed.tolist()
        told = [
            {"rule": one.rule, "share": share, "worst_share": other}
            for one, share, other in zip(parts, shares, worst, strict=True)
        ]
        rows.append({"factor": name, "bound": bound, "slices": told})
        found.append([case.weighed(what, bound) for what in _WHATS])
    matrices = [one.matrix for row in found for one in row if one.matrix is not None]
    draws: list[Floats] = []
    apart: list[Floats | None] = [None] * len(matrices)
    if matrices and units.max() > 0:
        together = np.concatenate(matrices, axis=1)

        def sums(weights: Iterable[Floats]) -> list[Floats]:
            return np.split(np.concatenate([w @ together for w in weights]), len(matrices), axis=1)

        draws = sums(bootstrap.resample(units, replicates, seed))
        if units.max() + 1 < len(units):  # groups, of which few may carry most of the score
            apart = list(sums(bootstrap.leave_one_out(units)))
    drawn, left_out = iter(draws), iter(apart)
    for row, mine in zip(rows, found, strict=True):
        for what, one in zip(_WHATS, mine, strict=True):
            ready, without = (next(drawn, None), next(left_out)) if one.matrix is not None else (None, None)
            row[what] = {"now": one.now, "worst": one.interval(ready, without).as_json()}
    return sorted(rows, key=_loss)


def check_bound(bound: float) -> None:
    """Raise ConfigError for a bound that bounds nothing."""
    if not (math.isfinite(bound) and bound > 1):
        raise ConfigError(f"bound is {bound}", valid="a number above 1, e.g. 2: a slice's share may double or halve")


def unseen(
    slices: Sequence[Slice], labels: NDArray[np.uint8], called: NDArray[np.bool_], accuracy: Interval
) -> list[dict[str, Any]]:
    """Slices so small that a monitor of accuracy would not notice if every tumour patch in them were missed: [{"rule", "n",
    "positive", "accuracy_lost", "recall_lost"}...], those that cost most recall first; `*_lost` are of the whole split."""
    if accuracy.value is None or accuracy.low is None:
        return []
    found = []
    caught = called & (labels == 1)
    for one in slices:
        lost = int((caught & one.members).sum())
        if one.among is None and lost > 0 and lost / len(labels) < accuracy.value - accuracy.low:
            positive = int(((labels == 1) & one.members).sum())
            row = {"rule": one.rule, "n": int(one.members.sum()), "positive": positive}
            found.append({**row, "accuracy_lost": lost / len(labels), "recall_lost": lost / int((labels == 1).sum())})
    return sorted(found, key=lambda row: -row["recall_lost"])


def worst_mix(
    shares: Floats, over: Floats, under: Floats, bound: float, floor: tuple[Floats, float] | None = None
) -> Floats | None:
    """The shares (K,), summing to 1 and each within `bound` times of `shares`, that make (p @ over) / (p @ under) least; under
    a floor (values, least) also p @ values >= least. None where no mix does."""
    from scipy.optimize import linprog

    limits = [(float(share) / bound, min(1.0, float(share) * bound)) for share in shares]
    best: Floats | None = None
    ratio = float(shares @ over) / max(float(shares @ under), _STILL)
    for _ in range(50):
        found = linprog(
            over - ratio * under,
            A_ub=None if floor is None else -floor[0][None],
            b_ub=None if floor is None else [-floor[1]],
            A_eq=np.ones((1, len(shares))),
            b_eq=[1.0],
            bounds=limits,
            method="highs",
        )
        if not found.success:
            return best
        mix = np.asarray(found.x)
        value = float(mix @ over) / max(float(mix @ under), _STILL)
        if best is not None and value >= ratio - _STILL:
            return best
        best, ratio = mix, value
    return best


@dataclass(frozen=True)
class _Case:
    """One factor's slices, which part the patches."""

    parts: list[NDArray[np.bool_]]
    labels: NDArray[np.uint8]
    right: Floats
    second: NDArray[np.bool_]
    units: NDArray[np.int64]
    accuracy_low: float | None

    def shares(self, what: str, bound: float, among: NDArray[np.bool_]) -> Floats | None:
        """The worst mix as the patches `among` (N,) tell it."""
        if what == "unnoticed" and self.accuracy_low is None:
            return None
        tumour = self.labels == 1
        counts = np.array([float((part & among).sum()) for part in self.parts])
        if (counts < _FEWEST).any():
            return None
        right, rate, hit = (
            np.array([float(values[part & among].mean()) for part in self.parts])
            for values in (self.right, tumour.astype(np.float64), self.right * tumour)
        )
        shares = counts / counts.sum()
        if what == "accuracy":
            return worst_mix(shares, right, np.ones(len(shares)), bound)
        # A half of the patches has an accuracy of its own: what may be lost is what the interval lets the whole lose.
        allowed = 0.0 if self.accuracy_low is None else float(self.right.mean()) - self.accuracy_low
        floor = (right, float(shares @ right) - allowed) if what == "unnoticed" else None
        return worst_mix(shares, hit, rate, bound, floor) if rate.any() else None

    def weighed(self, what: str, bound: float) -> "_Weighed":
        """The worst mix chosen on each half, ready to be scored on the other."""
        chosen = [self.shares(what, bound, half) for half in (self.second, ~self.second)]
        eligible = np.ones(len(self.labels), dtype=np.bool_) if what == "accuracy" else self.labels == 1
        if not eligible.any():
            return _Weighed(None, None, 0, "recall undefined (0 positives)")
        now = float(self.right[eligible].mean())
        rests = len(np.unique(self.units[eligible]))
        columns = []
        for mix, half in zip(chosen, (~self.second, self.second), strict=True):
            if mix is None:
                return _Weighed(now, None, rests, "too few patches in a slice of one half to choose the mix by")
            lift = np.zeros(len(self.labels))
            for share, part in zip(mix, self.parts, strict=True):
                mine = part & half
                lift[mine] = share * int(half.sum()) / max(int(mine.sum()), 1)
            columns += [lift * eligible * self.right, lift * eligible]
        return _Weighed(now, np.column_stack(columns), rests)


@dataclass(frozen=True)
class _Weighed:
    """A score as it is, and per patch what the worst mix makes of it: (N, 4), right and counted, for the two halves."""

    now: float | None
    matrix: Floats | None
    rests: int
    why: str | None = None

    def interval(self, drawn: Floats | None, left_out: Floats | None = None) -> Interval:
        """The worst score; `drawn` (R, 4): sums of the columns under bootstrap weights; `left_out` (G, 4): without each group."""
        if self.matrix is None:
            return Interval(None, None, None, self.why)
        value = float(_mean_ratio(self.matrix.sum(axis=0)[None])[0])
        if math.isnan(value):
            return Interval(None, None, None, "one half holds no tumour")
        if drawn is None:
            return Interval(value, None, None, "one patch or group only: an interval needs two or more")
        apart = None if left_out is None else _mean_ratio(left_out)
        return bootstrap.logit_interval(value, _mean_ratio(drawn), units=self.rests, left_out=apart)


def _mean_ratio(sums: Floats) -> Floats:
    halves = [
        np.divide(sums[:, k], sums[:, k + 1], out=np.full(len(sums), np.nan), where=sums[:, k + 1] > 0) for k in (0, 2)
    ]
    return np.asarray(np.mean(halves, axis=0))


def _partition(column: Column, least: int) -> list[Slice]:
    """Bins or categories that each hold `least` patches; of categories with fewer, all together."""
    kind = "bin" if column.numeric else "category"
    found = [one for one in cut({column.name: column}, least=least, pairs=False) if one.kind == kind]
    if not found:
        return []
    rest = ~np.logical_or.reduce([one.members for one in found])
    if rest.any():
        found.append(Slice("category", (column.name,), f"any other {column.name}", rest))
    return found


def _loss(row: dict[str, Any]) -> float:
    worst, now = row["recall"]["worst"]["value"], row["recall"]["now"]
    return 0.0 if worst is None else float(worst - now)
