"""Two models on the same patches: against brute force, exact arithmetic and laws; and how often the tests cry wolf."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from histoproof import metrics
from histoproof.bootstrap import Interval, leave_one_out, t_quantile, t_tails
from histoproof.compare import Comparison, compare_models, holm, paired_bootstrap
from histoproof.delong import auc_covariance, delong
from histoproof.errors import ConfigError, DataError
from histoproof.mcnemar import mcnemar

Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

coarse = st.integers(0, 8).map(lambda k: k / 8)
rows = st.lists(st.tuples(st.integers(0, 1), coarse, coarse, st.integers(0, 4)), min_size=2, max_size=40)


def arrays(case: list[tuple[int, float, float, int]]) -> tuple[Labels, Floats, Floats, Codes]:
    y, a, b, g = zip(*case, strict=True)
    return np.array(y, dtype=np.uint8), np.array(a), np.array(b), np.array(g)


def pair(seed: int, n: int, groups: int | None = None, better: float = 0.0) -> tuple[Labels, Floats, Floats, Codes]:
    """Two models that share half their noise, in groups also half of a group's shift; a is `better` by that shift."""
    g = np.random.default_rng(seed)
    count = groups or n
    code = np.arange(n) % count
    y = (g.random(n) < g.beta(2, 3, count)[code]).astype(np.uint8)
    noise, shift = g.normal(size=(3, n)), g.normal(size=(3, count)) * (0.7 if groups else 0.0)
    x = [1.8 * y + (noise[0] + noise[k] + (shift[0] + shift[k])[code]) / math.sqrt(2) for k in (1, 2)]
    a, b = 1 / (1 + np.exp(-x[0] + 0.9 - better * y)), 1 / (1 + np.exp(-x[1] + 0.9))
    return y, a, b, code


def known(interval: Interval) -> tuple[float, float, float]:
    assert interval.value is not None
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.value, interval.high


# DeLong and Obuchowski


def psi(x: float, y: float) -> float:
    return 1.0 if x > y else 0.5 if x == y else 0.0


def by_definition(y: Labels, models: list[Floats], code: Codes) -> Floats:
    """Obuchowski's covariance, one pair of patches after the other; with every patch its own group, DeLong's."""
    tumour, normal = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    m, n, names = len(tumour), len(normal), np.unique(code)
    v10 = [{i: sum(psi(p[i], p[j]) for j in normal) / n for i in tumour} for p in models]
    v01 = [{j: sum(psi(p[i], p[j]) for i in tumour) / m for j in normal} for p in models]
    area = [sum(v.values()) / m for v in v10]
    x = [{k: sum(v[i] - t for i in tumour if code[i] == k) for k in names} for v, t in zip(v10, area, strict=True)]
    z = [{k: sum(v[j] - t for j in normal if code[j] == k) for k in names} for v, t in zip(v01, area, strict=True)]
    i10, i01, every = len(set(code[tumour])), len(set(code[normal])), len(names)
    out = np.empty((len(models), len(models)))
    for r in range(len(models)):
        for s in range(len(models)):
            s10 = i10 / ((i10 - 1) * m) * sum(x[r][k] * x[s][k] for k in names)
            s01 = i01 / ((i01 - 1) * n) * sum(z[r][k] * z[s][k] for k in names)
            s11 = every / (every - 1) * sum(x[r][k] * z[s][k] for k in names)
            s11_turned = every / (every - 1) * sum(x[s][k] * z[r][k] for k in names)
            out[r, s] = s10 / m + s01 / n + (s11 + s11_turned) / (m * n)
    return out


@settings(max_examples=60, deadline=None)
@given(rows, st.booleans())
def test_the_covariance_of_aucs_is_that_of_the_definition(
    case: list[tuple[int, float, float, int]], grouped: bool
) -> None:
    y, a, b, code = arrays(case)
    mine = code if grouped else np.arange(len(y))
    assume(all(len(set(mine[y == k])) > 1 for k in (0, 1)))
    found = auc_covariance(y, [a, b], mine if grouped else None)
    assert found.covariance is not None
    np.testing.assert_allclose(found.covariance, by_definition(y, [a, b], mine), atol=1e-14)
    np.testing.assert_allclose(found.aucs, [metrics.auc(y, p) or 0.0 for p in (a, b)], atol=1e-14)


def test_delong_by_hand() -> None:
    # placements of a: tumour 1, 1, 2/3, normal 1, 2/3, 1; of b: tumour 1, 1/3, 1, normal 2/3, 1, 2/3
    y, a, b = [1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.4, 0.3, 0.5, 0.1], [0.9, 0.3, 0.8, 0.7, 0.2, 0.4]
    found = delong(y, a, b)
    assert found.a == pytest.approx(8 / 9)
    assert found.b == pytest.approx(7 / 9)
    d10, d01 = np.array([1 - 1, 1 - 1 / 3, 2 / 3 - 1]), np.array([1 - 2 / 3, 2 / 3 - 1, 1 - 2 / 3])
    assert found.error == pytest.approx(math.sqrt(d10.var(ddof=1) / 3 + d01.var(ddof=1) / 3))
    low, value, high = known(found.difference)
    assert value == pytest.approx(1 / 9)
    assert found.error is not None
    assert (high - low) / 2 == pytest.approx(1.9599640 * found.error, rel=1e-6)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(value / found.error))


def test_the_variance_of_one_auc_is_close_to_what_the_bootstrap_sees() -> None:
    for groups in (None, 60):
        y, a, b, code = pair(5, 900, groups)
        given_groups = code if groups else None
        mine = delong(y, a, b, groups=given_groups)
        theirs = paired_bootstrap(y, a, b, groups=given_groups)["auc"]
        low, _, high = known(mine.difference)
        assert known(theirs.difference) == pytest.approx((low, mine.difference.value, high), abs=0.1 * (high - low))


def test_few_groups_that_decide_leave_few_degrees_of_freedom() -> None:
    y, a, b, _ = pair(1, 300)
    code = np.maximum(np.arange(300) - 149, 0)  # one group of 150 patches, 150 groups of one
    found = auc_covariance(y, [a, b], code)
    shares = found.shares[0] - found.shares[1]
    got = delong(y, a, b, groups=code)
    assert got.freedom == pytest.approx(3 * (shares**2).sum() ** 2 / (shares**4).sum())
    assert got.freedom < found.units - 1
    assert got.error is not None
    low, value, high = known(got.difference)
    assert (high - low) / 2 == pytest.approx(t_quantile(0.975, got.freedom) * got.error)
    assert got.p_value == pytest.approx(t_tails(value / got.error, got.freedom))
    assert delong(y, a, b).freedom == math.inf


@settings(max_examples=60, deadline=None)
@given(rows, st.booleans())
def test_laws_of_delong(case: list[tuple[int, float, float, int]], grouped: bool) -> None:
    y, a, b, code = arrays(case)
    groups = code if grouped else None
    got, turned = delong(y, a, b, groups=groups), delong(y, b, a, groups=groups)
    if got.p_value is None:
        assert turned.p_value is None
        assert got.difference.why
        assert got.difference.why == turned.difference.why
        return
    low, value, high = known(got.difference)
    assert known(turned.difference) == pytest.approx((-high, -value, -low), abs=1e-12)
    assert turned.p_value == pytest.approx(got.p_value, abs=1e-12)
    assert (got.p_value < 0.05) == (not low <= 0 <= high)
    assert delong(y, a**3 / 2, b / 7, groups=groups) == got  # only the order counts
    renamed = None if groups is None else [f"slide {9 - c}" for c in code]
    again = delong(y, a, b, groups=renamed)
    assert known(again.difference) == pytest.approx((low, value, high), abs=1e-12)
    assert delong(1 - y, 1 - a, 1 - b, groups=groups).p_value == pytest.approx(got.p_value, abs=1e-9)


def test_delong_says_why_it_cannot() -> None:
    def why(*arguments: Any, **more: Any) -> tuple[float | None, str | None]:
        found = delong(*arguments, **more)
        assert (found.p_value, found.error) == (None, None)
        return found.difference.value, found.difference.why

    assert why([1, 1], [0.1, 0.2], [0.3, 0.4]) == (None, "one class only: every label is 1")
    assert why([1], [0.1], [0.3]) == (None, "one class only: every label is 1")
    assert why([1, 0, 0], [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]) == (-1.0, "one patch with tumour only: two or more needed")
    assert why([1, 1, 0, 0], [0.9, 0.2, 0.3, 0.4], [0.9, 0.8, 0.3, 0.4], groups=["a"] * 4) == (
        -0.5,
        "one group with tumour only: two or more needed",
    )
    same = [0.9, 0.2, 0.3, 0.4]
    assert why([1, 1, 0, 0], same, same) == (0.0, "both models place every patch alike")
    assert why([1, 1, 0, 0], [0.9, 0.8, 0.1, 0.2], [0.1, 0.2, 0.9, 0.8]) == (
        1.0,
        "the placements' difference does not vary: no variance",
    )
    with pytest.raises(DataError, match="one class only"):
        auc_covariance([0, 0], [[0.1, 0.2]])
    with pytest.raises(ConfigError, match="level is 95"):
        delong([0, 1], [0.1, 0.2], [0.1, 0.2], level=95)


# McNemar


def test_mcnemar_by_hand() -> None:
    y = np.ones(20)
    a = np.array([0.9] * 18 + [0.1] * 2)
    b = np.array([0.9] * 9 + [0.1] * 9 + [0.9] * 2)
    found = mcnemar(y, a, b)
    assert (found.only_a, found.only_b) == (9, 2)
    assert found.exact == pytest.approx(2 * (1 + 11 + 55) / 2048, rel=1e-15)
    assert found.mid_p == found.p_value == pytest.approx((2 * (1 + 11 + 55) - 55) / 2048, rel=1e-15)
    spread = math.sqrt(9.5 + 2.5 - (9.5 - 2.5) ** 2 / 22) / 22
    assert known(found.difference) == pytest.approx((7 / 22 - 1.959964 * spread, 0.35, 7 / 22 + 1.959964 * spread))


@given(st.integers(0, 60), st.integers(0, 60))
def test_exact_p_values_are_the_binomial_test(b: int, c: int) -> None:
    assume(b + c > 1)
    found = mcnemar([1] * (b + c), [0.9] * b + [0.1] * c, [0.1] * b + [0.9] * c)
    assert found.exact == pytest.approx(stats.binomtest(b, b + c).pvalue, rel=1e-9)
    mid = 1.0 if b == c else stats.binomtest(b, b + c).pvalue - stats.binom.pmf(b, b + c, 0.5)
    assert found.mid_p == pytest.approx(mid, rel=1e-7)


def test_thousands_of_patches_need_no_approximation() -> None:
    found = mcnemar([1] * 20000, [0.9] * 10300 + [0.1] * 9700, [0.1] * 10300 + [0.9] * 9700)
    assert found.exact == pytest.approx(stats.binomtest(10300, 20000).pvalue, rel=1e-9)


def test_mcnemar_over_groups_by_hand() -> None:
    # d = only_a - only_b of each group: 2, 1, -1 of 3, 1, 2 patches
    groups = ["s", "s", "s", "t", "u", "u"]
    found = mcnemar([1] * 6, [0.9, 0.9, 0.9, 0.9, 0.1, 0.9], [0.1, 0.1, 0.9, 0.1, 0.9, 0.9], groups=groups)
    assert found.p_value == pytest.approx(stats.chi2.sf(2 / 3 * 2**2 / 6, 1))
    share = np.array([2 / 3, 1.0, -1 / 2])
    assert found.durkalski == pytest.approx(stats.chi2.sf(share.sum() ** 2 / (share**2).sum(), 1))
    error = math.sqrt(3 / 2 * ((2 - 1) ** 2 + (1 - 1 / 3) ** 2 + (-1 - 2 / 3) ** 2)) / 6
    reach = 4.3026527 * error
    assert known(found.difference) == pytest.approx((max(-1, 1 / 3 - reach), 1 / 3, min(1, 1 / 3 + reach)))


@settings(max_examples=60, deadline=None)
@given(rows, st.booleans())
def test_laws_of_mcnemar(case: list[tuple[int, float, float, int]], grouped: bool) -> None:
    y, a, b, code = arrays(case)
    groups = code if grouped else None
    got, turned = mcnemar(y, a, b, groups=groups), mcnemar(y, b, a, groups=groups)
    assert (got.only_a, got.only_b) == (turned.only_b, turned.only_a)
    assert (got.exact, got.mid_p, got.p_value) == (turned.exact, turned.mid_p, turned.p_value)
    assert got.mid_p <= got.exact
    assert got.a - got.b == pytest.approx(got.difference.value)
    again = mcnemar(y, a, b, groups=None if groups is None else [f"slide {9 - c}" for c in code])
    for mine, theirs in ((again.p_value, got.p_value), (again.durkalski, got.durkalski)):
        assert mine == (None if theirs is None else pytest.approx(theirs, rel=1e-12))
    assert mcnemar(y, a, b, groups=np.arange(len(y))).only_a == got.only_a
    if got.difference.low is not None:
        low, value, high = known(got.difference)
        assert -1 <= low <= value <= high <= 1
        assert known(turned.difference) == pytest.approx((-high, -value, -low), abs=1e-12)


def test_mcnemar_says_why_it_cannot() -> None:
    same = mcnemar([1, 0, 1], [0.9, 0.1, 0.2], [0.8, 0.2, 0.1])
    assert (same.p_value, same.exact, same.mid_p) == (None, 1.0, 1.0)
    assert same.difference == Interval(0.0, None, None, "no patch is right in one model only")
    one = mcnemar([1], [0.9], [0.1])
    assert one.difference == Interval(1.0, None, None, "one patch only: an interval needs two or more")
    alone = mcnemar([1, 1], [0.9, 0.9], [0.1, 0.9], groups=["a", "a"])
    assert (alone.p_value, alone.durkalski) == (None, None)
    assert alone.difference == Interval(0.5, None, None, "one group only: an interval needs two or more")
    balanced = mcnemar([1] * 4, [0.9, 0.1, 0.9, 0.1], [0.1, 0.9, 0.1, 0.9], groups=["a", "a", "b", "b"])
    assert (balanced.p_value, balanced.difference.value) == (None, 0.0)
    assert balanced.difference.why == "no group differs: in each, a and b alone are right equally often"
    with pytest.raises(ConfigError, match="level is 0"):
        mcnemar([1], [0.9], [0.1], level=0)


# The paired bootstrap


def test_every_score_has_a_difference() -> None:
    y, a, b, code = pair(1, 200, 20, better=0.8)
    for groups in (None, code):
        found = paired_bootstrap(y, a, b, groups=groups, thresholds=(0.6, 0.4))
        values = [metrics.score(y, p, threshold=t) for p, t in ((a, 0.6), (b, 0.4))]
        assert list(found) == list(values[0])
        for name, row in found.items():
            assert (row.a, row.b) == (values[0][name], values[1][name])
            if name == "prevalence":
                assert row.difference.why == "the difference is the same in every bootstrap replicate"
                continue
            low, value, high = known(row.difference)
            assert low <= value <= high
            assert row.p_value is not None
            assert (row.p_value < 0.05) == (not low <= 0 <= high)
    assert found["auc"].method == "paired bootstrap over 20 groups"


def test_the_difference_of_models_that_move_together_is_surer_than_either() -> None:
    y, a, _, _ = pair(2, 300)
    noise = np.random.default_rng(0).normal(size=300)
    b = 1 / (1 + np.exp(-np.log(a / (1 - a)) - 0.3 * noise))
    low, _, high = known(paired_bootstrap(y, a, b)["auc"].difference)
    single = metrics.score_with_intervals(y, a)["auc"]
    low_a, _, high_a = known(single)
    assert high - low < (high_a - low_a) / 2


def test_paired_bootstrap_by_its_definition() -> None:
    y, a, b, code = pair(3, 60, 12)
    found = paired_bootstrap(y, a, b, groups=code, replicates=50, seed=3)["brier"]
    g = list(bootstrap_weights(code, 50, 3))
    moved = [np.average((a - y) ** 2, weights=w) - np.average((b - y) ** 2, weights=w) for w in g]
    value = ((a - y) ** 2).mean() - ((b - y) ** 2).mean()
    out = [
        np.average((a - y) ** 2, weights=w) - np.average((b - y) ** 2, weights=w) - value
        for w in next(leave_one_out(code))
    ]
    squares = float(np.sum(np.square(out)))
    error = max(float(np.std(moved, ddof=1)) * math.sqrt(12 / 11), math.sqrt(11 / 12 * squares))
    freedom = min(11.0, 3 * squares**2 / float(np.sum(np.power(out, 4))))
    reach = t_quantile(0.975, freedom) * error
    assert known(found.difference) == pytest.approx((value - reach, value, value + reach))
    assert found.p_value == pytest.approx(t_tails(value / error, freedom))


def test_paired_bootstrap_of_patches_by_its_definition() -> None:
    y, a, b, _ = pair(3, 25)
    found = paired_bootstrap(y, a, b, replicates=50, seed=3)["brier"]
    g = list(bootstrap_weights(np.arange(25), 50, 3))
    moved = [np.average((a - y) ** 2, weights=w) - np.average((b - y) ** 2, weights=w) for w in g]
    reach = t_quantile(0.975, 24) * float(np.std(moved, ddof=1)) * math.sqrt(25 / 24)
    value = float(((a - y) ** 2).mean() - ((b - y) ** 2).mean())
    assert known(found.difference) == pytest.approx((value - reach, value, value + reach))


def bootstrap_weights(code: Codes, replicates: int, seed: int) -> Floats:
    from histoproof.bootstrap import resample

    return np.concatenate(list(resample(code, replicates, seed)))


@settings(max_examples=25, deadline=None)
@given(rows, st.booleans())
def test_laws_of_the_paired_bootstrap(case: list[tuple[int, float, float, int]], grouped: bool) -> None:
    y, a, b, code = arrays(case)
    groups = np.unique(code, return_inverse=True)[1] if grouped else None
    got = paired_bootstrap(y, a, b, groups=groups, replicates=20)
    turned = paired_bootstrap(y, b, a, groups=groups, replicates=20)
    monotone = paired_bootstrap(y, a**3, b / 2, groups=groups, replicates=20)
    renamed = paired_bootstrap(
        y, a, b, groups=None if groups is None else [f"slide {g}" for g in groups], replicates=20
    )
    assert monotone["auc"].difference.value == got["auc"].difference.value
    for name, row in got.items():
        assert (row.difference.low is None) == (row.p_value is None) == (row.difference.why is not None)
        assert renamed[name] == row
        if row.difference.low is None:
            assert turned[name].difference.low is None
            continue
        low, value, high = known(row.difference)
        assert known(turned[name].difference) == pytest.approx((-high, -value, -low), abs=1e-12)
        assert turned[name].p_value == pytest.approx(row.p_value, abs=1e-12)
        if name == "auc" and monotone[name].difference.low is not None:
            assert known(monotone[name].difference) == pytest.approx((low, value, high), abs=1e-9)


def test_the_paired_bootstrap_says_why_it_cannot() -> None:
    y, a, b, _ = pair(4, 30)
    assert paired_bootstrap(y, a, a)["auc"].difference == Interval(
        0.0, None, None, "both models give every patch the same probability"
    )
    assert paired_bootstrap(y, a, a, thresholds=(0.5, 0.6))["accuracy"].difference.low is not None
    alone = paired_bootstrap(y, a, b, groups=["s"] * 30)["auc"].difference
    assert (alone.low, alone.why) == (None, "one group only: an interval needs two or more")
    assert (
        paired_bootstrap([1], [0.4], [0.6])["brier"].difference.why == "one patch only: an interval needs two or more"
    )
    undefined = paired_bootstrap([1, 1], [0.4, 0.6], [0.6, 0.4])["auc"]
    assert undefined.difference == Interval(
        None, None, None, "a: one class only: every label is 1; b: one class only: every label is 1"
    )
    nobody = paired_bootstrap([1, 0, 1], [0.4, 0.1, 0.2], [0.6, 0.4, 0.2])["precision"]
    assert nobody.difference == Interval(None, None, None, "a: no patch is called tumour")


# Many comparisons


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, None, 0.005]) == pytest.approx([0.03, 0.06, 0.06, None, 0.02], abs=1e-15)
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_laws_of_holm(p_values: list[float], random: Any) -> None:
    adjusted = [p for p in holm(p_values) if p is not None]
    bonferroni = [min(1.0, p * len(p_values)) for p in p_values]
    assert all(p <= q <= r for p, q, r in zip(p_values, adjusted, bonferroni, strict=True))
    order = list(range(len(p_values)))
    random.shuffle(order)
    assert holm([p_values[i] for i in order]) == [adjusted[i] for i in order]
    assert [p for _, p in sorted(zip(p_values, adjusted, strict=True))] == sorted(adjusted)


def test_a_champion_against_baselines() -> None:
    y, a, b, code = pair(6, 400, 40, better=1.0)
    others = {"mean colour": b, "majority": np.zeros(400), "itself": a}
    found = compare_models(
        y, a, others, groups=code, scores=("f2", "nll"), threshold=0.4, thresholds={"mean colour": 0.3}
    )
    assert list(found) == list(others)
    assert [row.score for row in found["majority"]] == ["auc", "accuracy", "f2", "nll"]
    all_rows = [row for rows in found.values() for row in rows]
    assert [row.p_holm for row in all_rows] == holm([row.p_value for row in all_rows])
    assert found["mean colour"][2].b == metrics.score(y, b, threshold=0.3)["f2"]
    assert found["mean colour"][0].p_value == delong(y, a, b, groups=code).p_value
    assert found["itself"][0].p_value is None
    first = found["majority"][1].as_json()
    assert first["method"] == "McNemar over 40 groups (Obuchowski)"
    assert set(first["difference"]) == {"value", "low", "high"}
    assert first["detail"]["only_a"] > first["detail"]["only_b"]
    with pytest.raises(ConfigError, match="there is no score 'f3'"):
        compare_models(y, a, {"b": b}, scores=("f3",), replicates=2)


def test_nothing_is_compared_that_does_not_match() -> None:
    for function in (delong, mcnemar, paired_bootstrap):
        with pytest.raises(DataError, match="2 labels for 3 probabilities"):
            function([0, 1], [0.1, 0.2], [0.1, 0.2, 0.3])
        with pytest.raises(DataError, match="groups have shape"):
            function([0, 1], [0.1, 0.2], [0.2, 0.1], groups=["a"])


# How often there is a false alarm


def alarms(tries: int, n: int, groups: int | None, *, bootstrap: bool = False) -> dict[str, int]:
    found: dict[str, int] = {}
    for seed in range(tries):
        y, a, b, code = pair(seed, n, groups)
        chosen = code if groups else None
        accuracy = mcnemar(y, a, b, groups=chosen)
        p_values = {"auc": delong(y, a, b, groups=chosen).p_value, "accuracy": accuracy.p_value}
        p_values |= {"auc alone": delong(y, a, b).p_value, "exact": accuracy.exact, "durkalski": accuracy.durkalski}
        if bootstrap:
            p_values["bootstrap"] = paired_bootstrap(y, a, b, groups=chosen, replicates=200)["f2"].p_value
        for name, p in p_values.items():
            found[name] = found.get(name, 0) + (p is not None and p < 0.05)
    return found


def test_false_alarms_are_as_rare_as_said() -> None:
    tries = 400  # binomial(400, 0.05) is above 33 once in 1000 times
    alone, grouped = alarms(tries, 200, None), alarms(tries, 300, 20)
    for found in (
        alone["auc"],
        alone["accuracy"],
        alone["exact"],
        grouped["auc"],
        grouped["accuracy"],
        grouped["durkalski"],
    ):
        assert found <= 33
    assert alone["auc"] >= 8  # and not so rare that the test is blind
    assert grouped["auc"] >= 8
    assert grouped["auc alone"] > 40  # patches taken for independent that are not
    assert grouped["exact"] > 40


@pytest.mark.slow
@pytest.mark.parametrize("groups", [None, 40, 20, 10])
def test_false_alarms_are_as_rare_as_said_at_length(groups: int | None) -> None:
    found = alarms(1500, 400, groups, bootstrap=True)
    for name in ("auc", "accuracy", "bootstrap", *(["durkalski"] if groups else [])):
        assert 30 <= found[name] <= 105, (name, found)  # 2 % to 7 %


def test_a_difference_that_is_there_is_found() -> None:
    y, a, b, code = pair(7, 600, 30, better=1.5)
    for row in [*compare_models(y, a, {"b": b}, groups=code)["b"]]:
        assert isinstance(row, Comparison)
        assert row.p_holm is not None
        assert row.p_holm < 0.01


# Student's t


@given(st.floats(0.1, 6), st.integers(1, 1200))
def test_tails_of_t_agree_with_scipy(x: float, freedom: int) -> None:
    rel = 1e-9 if freedom <= 1000 else 1e-2
    assert t_tails(x, freedom) == t_tails(-x, freedom) == pytest.approx(2 * stats.t.sf(x, freedom), rel=rel, abs=1e-14)


@given(st.floats(2, 900))
def test_degrees_of_freedom_between_whole_ones(freedom: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.03)
    assert t_tails(t_quantile(0.975, freedom), freedom) == pytest.approx(0.05, rel=1e-9)


def test_infinite_freedom_is_the_normal_distribution() -> None:
    assert t_quantile(0.975, math.inf) == pytest.approx(1.959963984540054, rel=1e-12)
    assert t_tails(1.959963984540054, math.inf) == pytest.approx(0.05, rel=1e-12)
