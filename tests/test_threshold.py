"""The choice of a threshold: by hand, against trying every threshold, and laws."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import fbeta_score, precision_recall_curve

from histoproof import metrics
from histoproof.bootstrap import Interval
from histoproof.errors import ConfigError, DataError
from histoproof.rules import ExpectedCost, FBeta, RecallAtLeast, Rule
from histoproof.threshold import Choice, choose_threshold, precision_recall

Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]

cases = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12).map(lambda k: k / 12)), min_size=2, max_size=30)
RULES: list[Rule] = [
    FBeta(),
    FBeta(0.5),
    RecallAtLeast(0.8),
    RecallAtLeast(1.0, "precision"),
    ExpectedCost(5.0),
    ExpectedCost(1.0, 3.0, prevalence=0.1),
]
rules = st.sampled_from(RULES)


def arrays(case: list[tuple[int, float]]) -> tuple[Labels, Floats]:
    return np.array([y for y, _ in case], dtype=np.uint8), np.array([p for _, p in case])


def calibrated(seed: int, n: int, groups: int | None = None) -> tuple[Labels, Floats, NDArray[np.int64]]:
    g = np.random.default_rng(seed)
    code = np.arange(n) % (groups or n)
    y = (g.random(n) < 0.4).astype(np.uint8)
    x = g.normal(size=n) + 1.8 * y + (0.7 * g.normal(size=groups)[code] if groups else 0.0)
    return y, 1 / (1 + np.exp(-(1.8 * x - 1.62) / (1.49 if groups else 1.0) - math.log(2 / 3))), code


def known(interval: Interval) -> tuple[float, float, float]:
    assert interval.value is not None
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.value, interval.high


def quick(y: Any, p: Any, rule: Rule | None = None, **more: Any) -> Choice:
    return choose_threshold(y, p, rule, replicates=20, **more)


def worth(rule: Rule, y: Labels, p: Floats, threshold: float) -> float:
    """What a threshold is worth by the rule, counted by hand; -inf where it is not allowed."""
    called, tumour = p >= threshold, y == 1
    tp, fp, fn = (int(np.sum(c)) for c in (called & tumour, called & ~tumour, ~called & tumour))
    if isinstance(rule, FBeta):
        return (1 + rule.beta**2) * tp / ((1 + rule.beta**2) * tp + rule.beta**2 * fn + fp)
    if isinstance(rule, RecallAtLeast):
        if tp / tumour.sum() < rule.recall - 1e-12:
            return -math.inf
        return 1 - fp / np.sum(~tumour) if rule.then == "specificity" else tp / (tp + fp)
    share = tumour.mean() if rule.prevalence is None else rule.prevalence
    return float(-(rule.cost_fn * share * fn / tumour.sum() + rule.cost_fp * (1 - share) * fp / np.sum(~tumour)))


@settings(max_examples=60, deadline=None)
@given(cases, rules)
def test_no_other_threshold_is_better(case: list[tuple[int, float]], rule: Rule) -> None:
    y, p = arrays(case)
    assume(0 < y.sum() < len(y))
    found = quick(y, p, rule)
    value = found.threshold.value
    assert value is not None
    assert found.plateau is not None
    low, high = found.plateau
    assert low < value <= high or low == value == high == 0
    if isinstance(rule, FBeta):
        assert worth(rule, y, p, value) == pytest.approx(fbeta_score(y, p >= value, beta=rule.beta))
    best = worth(rule, y, p, value)
    assert worth(rule, y, p, high) == pytest.approx(best, abs=1e-12)
    assert worth(rule, y, p, min(math.nextafter(low, 2), high)) == pytest.approx(best, abs=1e-12)
    for other in [0.0, *np.linspace(-0.01, 1.01, 40), *p]:
        assert worth(rule, y, p, other) <= best + 1e-12
    below, above = worth(rule, y, p, low), worth(rule, y, p, math.nextafter(high, 2))
    assert low == 0 or below < best - 1e-13  # a plateau ends where it ends
    assert high >= 1 or above < best - 1e-13


def test_the_middle_of_the_widest_plateau() -> None:
    # F2 is the same, 1, for every threshold in (0.3, 0.7]
    assert quick([0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9]).threshold.value == 0.5
    assert quick([0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9]).plateau == (0.3, 0.7)
    # one missed patch costs as much as one false alarm: (0.2, 0.3] and (0.4, 0.8] cost 1/4 each; the wider is taken
    y, p = [0, 1, 0, 1], [0.2, 0.3, 0.4, 0.8]
    assert quick(y, p, ExpectedCost(1.0)).plateau == (0.4, 0.8)
    assert quick(y, p, ExpectedCost(1.0)).threshold.value == pytest.approx(0.6)
    # of equally wide ones the lower
    assert quick(y, [0.25, 0.5, 0.625, 0.875], ExpectedCost(1.0)).plateau == (0.25, 0.5)


def test_the_ends() -> None:
    everything = quick([1, 0, 1], [0.2, 0.4, 0.6], ExpectedCost(100.0))
    assert everything.plateau == (0.0, 0.2)
    assert everything.threshold.value == pytest.approx(0.1)
    nothing = quick([1, 0, 0], [0.2, 0.4, 0.6], ExpectedCost(0.1))
    assert nothing.plateau == (0.6, 1.0)
    certain = quick([1, 0, 0], [0.2, 0.4, 1.0], ExpectedCost(0.1))
    assert certain.threshold.value == math.nextafter(1.0, 2.0)
    assert certain.chosen["specificity"].value == 1.0
    neighbours = quick([0, 1], [0.5, math.nextafter(0.5, 1)])
    assert neighbours.threshold.value == math.nextafter(0.5, 1)  # the middle of two neighbours is the upper one
    assert neighbours.chosen["f2"].value == 1.0


def test_recall_at_least_by_hand() -> None:
    y, p = [1, 1, 1, 1, 0, 0, 0, 0], [0.9, 0.8, 0.6, 0.2, 0.7, 0.5, 0.3, 0.1]
    assert quick(y, p, RecallAtLeast(0.75)).plateau == (0.5, 0.6)
    assert quick(y, p, RecallAtLeast(0.5)).plateau == (0.7, 0.8)
    assert quick(y, p, RecallAtLeast(0.51)).plateau == (0.5, 0.6)
    assert quick(y, p, RecallAtLeast(1.0)).plateau == (0.1, 0.2)
    assert quick(y, p, RecallAtLeast(0.2)).plateau == (0.7, 0.9)  # no false alarm with either
    assert quick(y, p, RecallAtLeast(0.2, "precision")).plateau == (0.7, 0.9)


def test_recall_at_least_is_not_missed_by_rounding() -> None:
    assert 0.55 * 100 > 55
    found = quick([1] * 100 + [0], [0.9] * 55 + [0.2] * 45 + [0.3], RecallAtLeast(0.55))
    assert found.plateau == (0.3, 0.9)


def test_costs_are_counted_in_patches() -> None:
    y, p = [1, 0, 0, 0], [0.3, 0.4, 0.5, 0.1]
    assert quick(y, p, ExpectedCost(1.5)).plateau == (0.5, 1.0)  # 1 missed at 1.5 is less than 2 false alarms at 1
    assert quick(y, p, ExpectedCost(2.5)).plateau == (0.1, 0.3)
    assert quick(y, p, ExpectedCost(1.5, prevalence=0.5)).plateau == (0.1, 0.3)


def test_prevalence_moves_the_threshold() -> None:
    y, p, _ = calibrated(0, 4000)
    rare, common = (quick(y, p, ExpectedCost(4.0, prevalence=q)).threshold.value for q in (0.02, 0.6))
    assert rare is not None
    assert common is not None
    assert rare > common
    # calibrated for 0.4: the cheapest threshold is where the odds are cost_fp : cost_fn
    assert quick(y, p, ExpectedCost(4.0)).threshold.value == pytest.approx(0.2, abs=0.08)


@settings(max_examples=30, deadline=None)
@given(cases, rules, st.integers(2, 6))
def test_laws(case: list[tuple[int, float]], rule: Rule, groups: int) -> None:
    y, p = arrays(case)
    code = np.arange(len(y)) % groups
    found = quick(y, p, rule, groups=code)
    assert quick(y, p, rule, groups=[f"slide {c}" for c in code]) == found
    if found.threshold.value is None:
        assert found.threshold.why == f"one class only: every label is {y[0]}"
        assert not found.chosen
        assert not found.corrected
        return
    assert (found.threshold.low is None) == (found.threshold.why is not None)
    if found.threshold.low is not None:
        low, value, high = known(found.threshold)
        assert 0 <= low <= value <= high <= math.nextafter(1, 2)
    assert {k: v.value for k, v in found.chosen.items()} == metrics.score(y, p, threshold=found.threshold.value)
    assert {k: v.value for k, v in found.half.items()} == metrics.score(y, p)
    for name, corrected in found.corrected.items():
        optimism = found.optimism[name]
        assert (corrected is None) == (optimism is None)
        if corrected is not None and optimism is not None and name in found.chosen:
            assert corrected + optimism == pytest.approx(found.chosen[name].value)
            assert 0 <= corrected <= 1
    order = np.random.default_rng(0).permutation(len(y))
    assert quick(y[order], p[order], rule).threshold.value == found.threshold.value


def test_the_f2_rule_has_the_highest_f2_and_says_what_to_expect() -> None:
    y, p, code = calibrated(1, 600, 30)
    found = choose_threshold(y, p, groups=code)
    chosen, half = (scores["f2"].value or 0.0 for scores in (found.chosen, found.half))
    assert found.rule == "the highest F2"
    assert chosen > half
    assert found.optimism["f2"] is not None
    assert 0 < found.optimism["f2"] < 0.05
    low, value, high = known(found.threshold)
    assert low < value < high < 0.5
    alone = known(choose_threshold(y, p).threshold)
    assert alone != (low, value, high)
    assert alone[1] == value
    assert found == choose_threshold(y, p, groups=code)
    document = found.as_json()
    assert document["threshold"] == {"value": value, "low": low, "high": high}
    assert document["chosen"]["f2"]["value"] == chosen


def test_the_correction_comes_closer_to_new_patches() -> None:
    seen, corrected = [], []
    new_y, new_p, _ = calibrated(999, 200_000)
    for seed in range(40):
        y, p, _ = calibrated(seed, 100)
        found = choose_threshold(y, p, replicates=100)
        value, expected, optimism = found.threshold.value, found.corrected["f2"], found.optimism["f2"]
        assert value is not None
        assert expected is not None
        assert optimism is not None
        cells = metrics.confusion(new_y, new_p, value)
        true = 5 * cells["tp"] / (5 * cells["tp"] + 4 * cells["fn"] + cells["fp"])
        seen.append(expected + optimism - true)
        corrected.append(expected - true)
    assert np.mean(seen) > 0.01
    assert abs(np.mean(corrected)) < np.mean(seen) / 2


def test_the_threshold_s_interval_holds_the_best_threshold() -> None:
    held, tries = 0, 80
    for seed in range(tries):
        y, p, _ = calibrated(seed, 200)
        low, _, high = known(choose_threshold(y, p, ExpectedCost(4.0), replicates=100).threshold)
        held += low <= 0.2 <= high
    assert 68 <= held <= tries  # binomial(80, 0.95) is below 68 once in 1000 times


def test_it_says_why_there_is_none() -> None:
    nothing = choose_threshold([1, 1], [0.2, 0.7])
    assert nothing.threshold == Interval(None, None, None, "one class only: every label is 1")
    assert nothing.plateau is None
    assert nothing.half["recall"].value == 0.5
    alone = choose_threshold([1, 0], [0.7, 0.2], groups=["a", "a"])
    assert alone.threshold.value == pytest.approx(0.45)
    assert (alone.threshold.low, alone.threshold.why) == (None, "one group only: an interval needs two or more")
    assert set(alone.corrected.values()) == {None}
    torn = choose_threshold([1, 0, 0, 0], [0.7, 0.2, 0.1, 0.3], groups=["a", "b", "b", "b"], replicates=1000)
    assert torn.threshold.value == 0.5
    assert torn.threshold.why is None or "undefined in" in torn.threshold.why


@given(cases, st.floats(0, 1))
def test_points_for_the_figure(case: list[tuple[int, float]], threshold: float) -> None:
    y, p = arrays(case)
    assume(y.any())
    found = precision_recall(y, p, {"chosen": threshold, "0.5": 0.5})
    precision, recall, thresholds = precision_recall_curve(y, p)
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_allclose(found.thresholds, thresholds)
    scores = metrics.score(y, p, threshold=threshold)
    assert found.marks["chosen"] == (scores["recall"], scores["precision"])
    assert list(found.marks) == ["chosen", "0.5"]


def test_rules_say_what_they_are() -> None:
    assert [str(rule) for rule in RULES] == [
        "the highest F2",
        "the highest F0.5",
        "recall at least 0.8, then the highest specificity",
        "recall at least 1, then the highest precision",
        "the least cost, 5 for a missed tumour patch, 1 for a false alarm",
        "the least cost, 1 for a missed tumour patch, 3 for a false alarm, 0.1 of patches tumour",
    ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (FBeta(0.0), "beta is 0.0"),
        (FBeta(math.nan), "beta is nan"),
        (RecallAtLeast(95), "recall is 95"),
        (RecallAtLeast(0.9, "luck"), "then is 'luck'"),  # type: ignore[arg-type]
        (ExpectedCost(-1.0), "the costs are -1.0 and 1.0"),
        (ExpectedCost(0.0, 0.0), "the costs are 0.0 and 0.0"),
        (ExpectedCost(1.0, prevalence=1.0), "prevalence is 1.0"),
    ],
)
def test_bad_rules_are_named(rule: Rule, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_threshold([0, 1], [0.1, 0.2], rule)


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="the label of patch 1 is 2"):
        choose_threshold([0, 2], [0.1, 0.2])
    with pytest.raises(ConfigError, match="replicates is 1"):
        choose_threshold([0, 1], [0.1, 0.2], replicates=1)
