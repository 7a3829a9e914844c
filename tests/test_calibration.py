"""Temperature scaling and the reliability diagram: against scipy, by hand, and laws."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats
from sklearn.metrics import log_loss

from histoproof import metrics
from histoproof.bootstrap import Interval
from histoproof.calibration import apply_temperature, calibrate, fit_temperature, logit, reliability, wilson
from histoproof.errors import ConfigError, DataError

Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]

cases = st.lists(st.tuples(st.integers(0, 1), st.integers(-40, 40).map(lambda k: k / 4)), min_size=1, max_size=40)


def overconfident(
    seed: int, n: int, temperature: float, groups: int | None = None
) -> tuple[Labels, Floats, NDArray[np.int64]]:
    """Logits that are `temperature` times too extreme; groups with a shift of their own."""
    g = np.random.default_rng(seed)
    code = np.arange(n) % (groups or n)
    variance = 1 + (0.25 if groups else 0.0)
    y = (g.random(n) < 0.5).astype(np.uint8)
    x = g.normal(size=n) + 1.8 * y + (0.5 * g.normal(size=groups)[code] if groups else 0.0)
    return y, temperature * (1.8 * x - 1.62) / variance, code


def arrays(case: list[tuple[int, float]]) -> tuple[Labels, Floats]:
    return np.array([y for y, _ in case], dtype=np.uint8), np.array([z for _, z in case])


def loss(y: Labels, z: Floats, temperature: float) -> float:
    return float(np.logaddexp(0, np.where(y == 1, -z, z) / temperature).mean())


def known(interval: Interval) -> tuple[float, float, float]:
    assert interval.value is not None
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.value, interval.high


def temperature_of(fitted: Interval) -> float:
    assert fitted.value is not None
    return fitted.value


def test_the_temperature_is_found() -> None:
    y, z, _ = overconfident(0, 50_000, 2.5)
    low, found, high = known(fit_temperature(y, z))
    assert found == pytest.approx(2.5, rel=0.03)
    assert 2.4 < low < high < 2.6


@pytest.mark.parametrize("temperature", [0.4, 1.0, 7.0])
def test_agrees_with_a_general_minimiser(temperature: float) -> None:
    y, z, _ = overconfident(1, 300, temperature)
    theirs = optimize.minimize_scalar(
        lambda t: log_loss(y, 1 / (1 + np.exp(-z / t))), bounds=(0.05, 50), method="bounded", options={"xatol": 1e-10}
    )
    assert fit_temperature(y, z).value == pytest.approx(theirs.x, rel=1e-6)


def test_by_hand() -> None:
    # 3 of 4 right at logit 2: the best is sigmoid(2 / T) = 3/4
    got = fit_temperature([1, 1, 1, 0], [2.0] * 4)
    assert got.value == pytest.approx(2 / math.log(3), rel=1e-14)
    # derivatives of the loss -1/2 (three times), 3/2; curvature 4 x 4 x 3/16
    error = math.sqrt(4 / 3 * (3 / 4 + 9 / 4)) / 3 * 2 / math.log(3)
    assert known(got)[2] == pytest.approx(2 / math.log(3) * math.exp(3.1824463 * error))


@given(cases)
def test_no_other_temperature_is_better(case: list[tuple[int, float]]) -> None:
    y, z = arrays(case)
    fitted = fit_temperature(y, z)
    found, at_an_end = temperature_of(fitted), fitted.value in (0.01, 100.0)
    assert 0.01 <= found <= 100
    best = loss(y, z, found)
    for other in (0.01, 0.5 * found, 0.99 * found, 1.01 * found, 2 * found, 100.0):
        if 0.01 <= other <= 100:
            assert best <= loss(y, z, other) + 1e-12
    assert at_an_end <= (fitted.why is not None)
    doubled = temperature_of(fit_temperature(y, 2 * z))
    if not at_an_end and 0.01 < doubled < 100:
        assert doubled == pytest.approx(2 * found, rel=1e-9)
    assert temperature_of(fit_temperature(1 - y, -z)) == pytest.approx(found, rel=1e-12)


@given(cases, st.floats(0.1, 10))
def test_order_auc_and_calls_stay(case: list[tuple[int, float]], temperature: float) -> None:
    y, z = arrays(case)
    assume(np.abs(z / temperature).max() < 27)  # beyond it, probabilities in float64 run into 1
    p = 1 / (1 + np.exp(-z))
    scaled = apply_temperature(p, temperature)
    assert ((scaled >= 0) & (scaled <= 1)).all()
    assert metrics.auc(y, scaled) == metrics.auc(y, p)
    assert ((scaled >= 0.5) == (p >= 0.5)).all()
    np.testing.assert_allclose(logit(scaled), np.clip(z / temperature, -27.631, 27.631), atol=1e-3)
    np.testing.assert_array_equal(apply_temperature(p, 1), p)


def test_certain_probabilities_stay_finite() -> None:
    got = apply_temperature([0.0, 1.0, 0.5], 2.0)
    assert got == pytest.approx([1e-6, 1 - 1e-6, 0.5], rel=1e-6)
    assert apply_temperature([0.0, 1.0], 1.0).tolist() == [0.0, 1.0]


def test_where_there_is_no_best_temperature_it_says_so() -> None:
    separable = calibrate([1, 1, 0, 0], [2.0, 1.0, -1.0, -3.0])
    assert separable.temperature.value == 0.01
    assert separable.temperature.low is None
    assert separable.temperature.why == "every patch is on its side of 0.5 (separable): no temperature is too low"
    wrong = fit_temperature([0, 0, 1], [2.0, 1.0, -1.0])
    assert wrong == Interval(
        100.0, None, None, "the logits say nothing of the labels, or the wrong thing: no temperature is too high"
    )
    assert fit_temperature([0, 1], [0.0, 0.0]).value == 100.0
    one = calibrate([1, 0, 1, 1], [2.0, 0.5, -0.5, 1.0], groups=["a"] * 4)
    assert one.temperature.low is None
    assert one.temperature.why == "one group only: an interval needs two or more"
    assert one.cross_fitted == {}
    all_tumour = calibrate([1, 1, 1], [2.0, 1.0, -1.0])
    assert all_tumour.before["auc"].why == "one class only: every label is 1"


def test_calibration_before_and_after() -> None:
    y, z, code = overconfident(4, 1500, 3.0, groups=30)
    for groups in (None, code):
        found = calibrate(y, z, groups=groups, replicates=200)
        low, value, high = known(found.temperature)
        assert low < value < high
        assert value == pytest.approx(3.0, rel=0.25)
        assert (
            found.before["nll"]
            == metrics.score_with_intervals(y, 1 / (1 + np.exp(-z)), groups=groups, replicates=200)["nll"]
        )
        for name in ("ece", "nll", "brier"):
            after = found.after[name].value or 0.0
            assert after < (found.before[name].value or 0.0)
            assert found.cross_fitted[name] == pytest.approx(after, rel=0.1)
        assert found.cross_fitted["nll"] is not None
        assert found.cross_fitted["nll"] > (found.after["nll"].value or 0.0)  # a fold had no say in its temperature
        assert found.after["auc"].value == pytest.approx(found.before["auc"].value, rel=1e-12)
    document = found.as_json()
    assert set(document) == {"temperature", "before", "after", "cross_fitted"}


def test_patches_told_ten_times_are_no_surer_if_the_groups_are_known() -> None:
    y, z, code = overconfident(5, 400, 1.0)
    once = known(fit_temperature(y, z))
    repeated = fit_temperature(np.tile(y, 10), np.tile(z, 10), groups=np.tile(code, 10))
    assert known(repeated) == pytest.approx(once, rel=1e-9)
    alone = known(fit_temperature(np.tile(y, 10), np.tile(z, 10)))
    assert math.log(once[2] / once[0]) == pytest.approx(math.sqrt(10) * math.log(alone[2] / alone[0]), rel=0.01)


@pytest.mark.parametrize("groups", [None, 20])
def test_the_temperature_s_interval_holds_the_truth(groups: int | None) -> None:
    held, tries = 0, 400
    for seed in range(tries):
        y, z, code = overconfident(seed, 400, 2.0, groups)
        low, _, high = known(fit_temperature(y, z, groups=code if groups else None))
        held += low <= 2.0 <= high
    assert 366 <= held < tries  # binomial(400, 0.95) is below 366 once in 1000 times


def test_wilson_by_hand_and_by_scipy() -> None:
    assert known(wilson(8, 10)) == pytest.approx((0.490162, 0.8, 0.943318), abs=1e-6)
    for k, n in ((0, 7), (3, 9), (20, 20), (1, 1)):
        theirs = stats.binomtest(k, n).proportion_ci(method="wilson")
        assert known(wilson(k, n)) == pytest.approx((theirs.low, k / n, theirs.high), abs=1e-12)


@settings(max_examples=30)
@given(cases, st.integers(1, 20), st.integers(1, 6))
def test_the_reliability_diagram_s_points(case: list[tuple[int, float]], bins: int, groups: int) -> None:
    y, z = arrays(case)
    p = 1 / (1 + np.exp(-z))
    code = np.arange(len(y)) % groups
    for chosen in (None, code):
        points = reliability(y, p, bins=bins, groups=chosen, replicates=20)
        table = metrics.reliability(y, p, bins)
        assert [(q.low, q.high, q.count, q.mean_probability) for q in points] == [
            (r.low, r.high, r.count, r.mean_probability) for r in table
        ]
        for point, row in zip(points, table, strict=True):
            assert point.observed.value == row.observed_rate
            assert (point.observed.low is None) == (point.observed.why is not None)
            if chosen is None and row.count:
                assert known(point.observed) == known(wilson(round(row.count * (row.observed_rate or 0.0)), row.count))
            if point.observed.low is not None:
                low, rate, high = known(point.observed)
                assert 0 <= low <= rate <= high <= 1


def test_points_over_groups_are_less_sure_where_groups_lean_together() -> None:
    g = np.random.default_rng(0)
    code = np.arange(600) % 20
    y = (g.random(600) < g.beta(0.5, 0.5, 20)[code]).astype(np.uint8)
    p = np.full(600, 0.55)
    alone, together = (next(q for q in reliability(y, p, groups=c) if q.count).observed for c in (None, code))
    low, _, high = known(alone)
    low_g, _, high_g = known(together)
    assert high_g - low_g > 2 * (high - low)
    empty = reliability(y, p)[0]
    assert (empty.mean_probability, empty.observed.why) == (None, "no patch has such a probability")
    one = next(q for q in reliability([1, 0], [0.55, 0.56], groups=["a", "a"]) if q.count)
    assert one.observed.why == "one group only: an interval needs two or more"


@settings(max_examples=15)
@given(cases)
def test_names_of_groups_do_not_matter(case: list[tuple[int, float]]) -> None:
    y, z = arrays(case)
    assume(len(y) > 4)
    code = np.arange(len(y)) % 4
    found = calibrate(y, z, groups=code, replicates=5)
    assert calibrate(y, z, groups=[f"slide {c}" for c in code], replicates=5) == found


@pytest.mark.parametrize(
    ("labels", "logits", "message"),
    [
        ([0, 1], [0.1, math.inf], "the logit of patch 1 is inf"),
        ([0, 1], [math.nan, 0.1], "the logit of patch 0 is nan"),
        ([0, 2], [0.1, 0.2], "the label of patch 1 is 2"),
        ([0], [0.1, 0.2], "1 labels for 2 probabilities"),
        ([], [], "there are no patches"),
    ],
)
def test_bad_input_is_named(labels: Any, logits: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_temperature(labels, logits)
    with pytest.raises(DataError, match=message):
        calibrate(labels, logits)


def test_bad_temperatures_are_named() -> None:
    with pytest.raises(ConfigError, match="level is 95"):
        fit_temperature([0, 1], [0.1, 0.2], level=95)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match=f"temperature is {bad}"):
            apply_temperature([0.5], bad)
    with pytest.raises(DataError, match="not between 0 and 1"):
        apply_temperature([1.5], 2.0)
