"""The intervals: what they hold, what moves them, and how often they hold the truth in simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from histoproof import bootstrap, metrics
from histoproof.bootstrap import Interval
from histoproof.metrics import score, score_with_intervals, scorer

Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]

coarse = st.integers(0, 8).map(lambda k: k / 8)  # many ties
DRAWN = [[1, 0, 1, 1, 2, 1], [0, 1, 1, 0, 1, 3], [1, 2, 2, 0, 0, 1]]
cases = st.lists(st.tuples(st.integers(0, 1), st.one_of(coarse, st.floats(0, 1))), min_size=1, max_size=40)


def simulated(seed: int, n: int, shift: float = 1.8) -> tuple[Labels, Floats]:
    """Labels, and probabilities that are calibrated: the posterior of two normal distributions `shift` apart."""
    g = np.random.default_rng(seed)
    labels = (g.random(n) < 0.4).astype(np.uint8)
    x = g.normal(size=n) + shift * labels
    return labels, 1 / (1 + np.exp(shift * shift / 2 - shift * x - math.log(0.4 / 0.6)))


def clustered(seed: int, groups: int, each: int) -> tuple[Labels, Floats, NDArray[np.int64]]:
    g = np.random.default_rng(seed)
    code = np.repeat(np.arange(groups), each)
    labels = (g.random(len(code)) < g.beta(0.5, 0.5, groups)[code]).astype(np.uint8)
    x = g.normal(size=len(code)) + 1.5 * labels + 1.5 * g.normal(size=groups)[code]
    return labels, 1 / (1 + np.exp(-x)), code


def width(interval: Interval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low


def test_one_unit_has_no_interval() -> None:
    got = score_with_intervals([0, 1], [0.2, 0.7], groups=["a", "a"])
    assert got["auc"] == Interval(1.0, None, None, "one group only: an interval needs two or more")
    assert score_with_intervals([1], [0.7])["brier"].why == "one patch only: an interval needs two or more"
    assert score_with_intervals([1], [0.7])["auc"].why == "one class only: every label is 1"


def test_no_interval_where_most_replicates_are_undefined() -> None:
    nothing = bootstrap.logit_interval(0.5, np.array([0.5, np.nan, np.nan]), units=9)
    assert nothing == Interval(0.5, None, None, "undefined in 2 of 3 bootstrap replicates")
    assert bootstrap.logit_interval(0.5, np.array([0.4, 0.6, np.nan, np.nan]), units=9).low is not None


def test_hand_computed() -> None:
    replicates = np.array([0.7, 0.8, 0.9])  # se 0.1, 0.625 on the logit scale of 0.8
    reach = 3.1824463 * math.sqrt(4 / 3) * 0.1 / 0.16
    for top in (1.0, 16.0):
        got = bootstrap.logit_interval(0.8 * top, replicates * top, units=4, top=top)
        assert got.low == pytest.approx(top / (1 + math.exp(reach) / 4), rel=1e-7)
        assert got.high == pytest.approx(top / (1 + math.exp(-reach) / 4), rel=1e-7)


def test_a_calibrated_model_may_have_no_calibration_error() -> None:
    gaps = np.array([0.02, -0.01])
    noise = np.linspace(-0.05, 0.05, 101)
    got = bootstrap.norm_interval(0.03, gaps, gaps + np.stack([noise, noise], axis=1), units=1000)
    assert got.low == 0.0
    far = bootstrap.norm_interval(0.3, gaps * 10, gaps * 10 + np.stack([noise, noise * 0], axis=1), units=1000)
    assert far.low == pytest.approx(0.3 - 0.0475, abs=0.002)  # noise adds up to it as it is
    assert far.high == pytest.approx(0.3 + 0.059, abs=0.003)  # from the standard error, 0.0293


def test_intervals_hold_the_value_and_repeat_for_a_seed() -> None:
    y, p = simulated(0, 300)
    first = score_with_intervals(y, p, seed=7)
    assert first == score_with_intervals(list(y), list(p), seed=7)
    assert first != score_with_intervals(y, p, seed=8)
    assert {name: interval.value for name, interval in first.items()} == score(y, p)
    for interval in first.values():
        assert interval.low is not None
        assert interval.high is not None
        assert interval.value is not None
        assert 0 <= interval.low <= interval.value <= interval.high
    wide, narrow = score_with_intervals(y, p, level=0.99)["auc"], score_with_intervals(y, p, level=0.5)["auc"]
    assert width(narrow) < width(first["auc"]) < width(wide)


@settings(max_examples=60)
@given(cases, st.integers(1, 6))
def test_intervals_stay_in_range_whatever_comes(case: list[tuple[int, float]], groups: int) -> None:
    y, p = np.array([y for y, _ in case]), np.array([p for _, p in case])
    for interval in score_with_intervals(y, p, groups=np.arange(len(y)) % groups, replicates=20).values():
        assert (interval.low is None) == (interval.high is None) == (interval.why is not None)
        if interval.low is not None and interval.high is not None and interval.value is not None:
            assert 0 <= interval.low <= interval.value <= interval.high <= 16.2


def test_neither_chunks_nor_the_order_of_patches_change_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p, code = clustered(1, 12, 10)
    whole = score_with_intervals(y, p, groups=code, replicates=100)
    order = np.random.default_rng(0).permutation(len(y))
    moved = score_with_intervals(y[order], p[order], groups=[f"slide {code[i]:02}" for i in order], replicates=100)
    for name in ("auc", "accuracy", "f2", "precision"):
        assert moved[name] == whole[name]
    monkeypatch.setattr(bootstrap, "_CELLS", 1)
    assert score_with_intervals(y, p, groups=code, replicates=100) == whole


def test_draws_are_the_same_everywhere() -> None:
    (drawn,) = bootstrap.resample(np.arange(6), 3, seed=42)
    assert drawn.tolist() == DRAWN
    (grouped,) = bootstrap.resample(np.array([0, 0, 1, 2, 3, 4, 5]), 3, seed=42)
    assert grouped[:, 1:].tolist() == DRAWN
    assert (grouped[:, 0] == grouped[:, 1]).all()


def test_groups_widen_intervals_where_patches_cluster() -> None:
    y, p, code = clustered(3, 30, 40)
    alone, together = score_with_intervals(y, p), score_with_intervals(y, p, groups=code)
    for name in ("auc", "accuracy", "recall", "brier", "prevalence"):
        assert together[name].value == alone[name].value
        assert width(together[name]) > 1.5 * width(alone[name])


def test_every_replicate_alike_is_no_proof() -> None:
    got = score_with_intervals([1] * 20 + [0] * 30, [0.9] * 20 + [0.1] * 30)
    low = 0.025 ** (1 / 20)  # the exact binomial interval of 20 out of 20
    for name, base in (("recall", 20), ("specificity", 30), ("precision", 20), ("accuracy", 50), ("auc", 20)):
        assert got[name].value == got[name].high == 1.0
        assert got[name].low == pytest.approx(0.025 ** (1 / base), rel=1e-12)
    nothing = score_with_intervals([1] * 20 + [0] * 30, [0.1] * 20 + [0.4] * 30)["recall"]
    assert nothing.value == nothing.low == 0.0
    assert nothing.high == pytest.approx(1 - low)
    certain = score_with_intervals([1] * 20 + [0] * 30, [1.0] * 20 + [0.0] * 30)
    assert certain["ece"].low == 0.0
    assert certain["ece"].high == pytest.approx(1 - 0.025 ** (1 / 50))


def test_ece_of_bins_calibrated_by_chance_has_an_interval() -> None:
    got = score_with_intervals([1] * 5 + [0] * 5, [0.5] * 10)["ece"]
    assert (got.value, got.low) == (0.0, 0.0)
    assert got.high is not None
    assert 0.2 < got.high < 0.5


def test_t_quantile() -> None:
    table = {1: 12.7062047, 2: 4.3026527, 3: 3.1824463, 4: 2.7764451, 9: 2.2621572, 30: 2.0422725, 999: 1.9623415}
    for freedom, expected in table.items():
        assert bootstrap.t_quantile(0.975, freedom) == pytest.approx(expected, rel=1e-7)
    assert bootstrap.t_quantile(0.975, 1001) == pytest.approx(bootstrap.t_quantile(0.975, 1000), rel=1e-5)
    assert bootstrap.t_quantile(0.975, 10**7) == pytest.approx(1.959964, rel=1e-6)


def test_coverage() -> None:
    truth = {"auc": 0.8985, "recall": 0.7505, "ece": 0.0}
    tries, held = 200, dict.fromkeys(truth, 0)
    for seed in range(tries):
        got = score_with_intervals(*simulated(seed, 150), replicates=200)
        for name, true in truth.items():
            low, high = got[name].low, got[name].high
            assert low is not None
            assert high is not None
            held[name] += low <= true <= high
    for name, count in held.items():  # binomial(200, 0.95) is below 180 once in 1000 times
        assert 180 <= count <= tries, (name, count)


# Groups: what leaving out one at a time tells


def test_hand_computed_with_groups_left_out() -> None:
    replicates = np.array([0.79, 0.8, 0.81])  # se 0.01: the jackknife sees more
    left_out = np.array([0.7, 0.9, 0.8, 0.8])
    moves = np.log(left_out / (1 - left_out)) - math.log(4)
    error = math.sqrt(3 / 4 * (moves**2).sum())
    freedom = 3 * (moves**2).sum() ** 2 / (moves**4).sum()
    assert 3 < freedom < 6
    got = bootstrap.logit_interval(0.8, replicates, units=4, left_out=left_out)
    assert got.high == pytest.approx(1 / (1 + math.exp(-3.1824463 * error) / 4), rel=1e-7)  # 3: units - 1 is fewer
    wide = bootstrap.logit_interval(0.8, replicates, units=40, left_out=left_out)
    reach = bootstrap.t_quantile(0.975, freedom) * error
    assert wide.low == pytest.approx(1 / (1 + math.exp(reach) / 4), rel=1e-7)


def test_one_group_that_decides_alone_leaves_few_degrees_of_freedom() -> None:
    replicates = np.array([0.7, 0.8, 0.9])
    even = bootstrap.logit_interval(0.8, replicates, units=20, left_out=0.8 + 0.01 * np.array([1, -1] * 10))
    alone = bootstrap.logit_interval(0.8, replicates, units=20, left_out=np.array([0.7] + [0.8] * 19))
    assert width(alone) > 1.3 * width(even)


def test_the_jackknife_never_narrows_and_what_it_cannot_say_is_left_out() -> None:
    replicates = np.array([0.7, 0.8, 0.9])
    plain = bootstrap.logit_interval(0.8, replicates, units=9)
    assert bootstrap.logit_interval(0.8, replicates, units=9, left_out=np.array([0.8, np.nan, 0.7])) == plain
    assert bootstrap.logit_interval(0.8, replicates, units=9, left_out=np.full(9, 0.8)) == plain
    ends = bootstrap.logit_interval(0.8, replicates, units=9, left_out=np.array([1.0] * 4 + [0.8] * 5))
    assert width(plain) < width(ends) < 1


def test_scores_over_groups_are_left_out_of_for_their_intervals() -> None:
    y, p, code = clustered(2, 8, 25)
    got = score_with_intervals(y, p, groups=code, replicates=100)
    function = scorer(y, p)
    drawn = [function(part) for part in bootstrap.resample(code, 100, 42)]
    without = [score(y[code != k], p[code != k]) for k in range(8)]
    for name in ("auc", "accuracy", "f2", "brier"):
        replicates = np.concatenate([part[name] for part in drawn])
        left_out = np.array([row[name] for row in without], dtype=np.float64)
        value = got[name].value
        assert value is not None
        units = metrics.bases(y == 1, p >= 0.5, code)[name]
        expected = bootstrap.logit_interval(value, replicates, units=units, left_out=left_out)
        assert got[name].low == pytest.approx(expected.low, rel=1e-9)
        if name == "auc":
            assert width(got[name]) > width(bootstrap.logit_interval(value, replicates, units=units))


def test_each_unit_is_left_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    units = np.array([0, 1, 1, 2])
    expected = [[0, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 0]]
    assert np.concatenate(list(bootstrap.leave_one_out(units))).tolist() == expected
    monkeypatch.setattr(bootstrap, "_CELLS", 1)
    assert [part.tolist() for part in bootstrap.leave_one_out(units)] == [[row] for row in expected]


def held_over_groups(tries: int, groups: int, replicates: int) -> dict[str, int]:
    """How often the interval held the AUC that patches of other groups have among each other, and the accuracy."""
    y, p, _ = clustered(0, 200_000, 1)
    truth, held = score(y, p), {"auc": 0, "accuracy": 0, "recall": 0}
    for seed in range(1, tries + 1):
        y, p, code = clustered(seed, groups, 400 // groups)
        got = score_with_intervals(y, p, groups=code, replicates=replicates)
        for name in held:
            low, high, true = got[name].low, got[name].high, truth[name]
            assert low is not None
            assert high is not None
            assert true is not None
            held[name] += low <= true <= high
    return held


def test_coverage_over_groups() -> None:
    for name, count in held_over_groups(150, 20, 100).items():  # binomial(150, 0.95) is below 134 once in 1000 times
        assert 134 <= count <= 150, (name, count)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [20, 40])
def test_coverage_over_groups_is_nominal(groups: int) -> None:
    held = held_over_groups(2000, groups, 500)
    assert 1870 <= held["auc"] <= 1930, held  # 93.5 to 96.5 %
    assert all(1850 <= count <= 1950 for count in held.values()), held
