"""The scores against hand-computed cases, scikit-learn and laws."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from histoproof import metrics
from histoproof.errors import ConfigError, DataError
from histoproof.metrics import score, score_with_intervals

Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]

NAMES = ["auc", "average_precision", "accuracy", "balanced_accuracy", "f1", "f2", "recall", "precision", "specificity"]
NAMES += ["ece", "nll", "brier", "prevalence"]
LABELS = np.array([1, 1, 0, 1, 0, 0, 0, 1], dtype=np.uint8)
PROBABILITIES = np.array([0.9, 0.8, 0.8, 0.6, 0.5, 0.3, 0.1, 0.3])

coarse = st.integers(0, 8).map(lambda k: k / 8)  # many ties
fine = st.floats(0, 1, allow_subnormal=False)
cases = st.lists(st.tuples(st.integers(0, 1), st.one_of(coarse, fine)), min_size=1, max_size=40)
weights = st.lists(st.integers(0, 4), min_size=40, max_size=40)


def arrays(case: list[tuple[int, float]]) -> tuple[Labels, Floats]:
    return np.array([y for y, _ in case], dtype=np.uint8), np.array([p for _, p in case], dtype=np.float64)


def nearly(expected: Any, rel: float = 1e-12) -> Any:
    return pytest.approx(expected, rel=rel, abs=1e-15)


def known(scores: dict[str, float | None]) -> dict[str, float]:
    """Infinity for None, which `nearly` cannot compare."""
    return {name: math.inf if value is None else value for name, value in scores.items()}


# Hand-computed


def test_hand_computed() -> None:
    got = score(LABELS, PROBABILITIES)
    # called: 0.9 0.8 0.8 0.6 0.5 -> tp 3, fp 2, fn 1, tn 2
    assert metrics.confusion(LABELS, PROBABILITIES, 0.5) == {"tp": 3, "fp": 2, "tn": 2, "fn": 1}
    expected = {
        "auc": (4 + 3.5 + 3 + 1.5) / 16,
        "average_precision": (1 + 2 / 3 + 3 / 4 + 4 / 7) / 4,
        "accuracy": 5 / 8,
        "balanced_accuracy": (3 / 4 + 2 / 4) / 2,
        "f1": 6 / 9,
        "f2": 15 / (15 + 4 + 2),
        "recall": 3 / 4,
        "precision": 3 / 5,
        "specificity": 2 / 4,
        # bins of 1/15: 0.9 | 0.8 0.8 | 0.6 | 0.5 | 0.3 0.3 | 0.1
        "ece": (0.1 + 0.6 + 0.4 + 0.5 + 0.4 + 0.1) / 8,
        "nll": -math.log(0.9 * 0.8 * 0.2 * 0.6 * 0.5 * 0.7 * 0.9 * 0.3) / 8,
        "brier": (0.01 + 0.04 + 0.64 + 0.16 + 0.25 + 0.09 + 0.01 + 0.49) / 8,
        "prevalence": 4 / 8,
    }
    assert list(got) == NAMES
    assert got == pytest.approx(expected, rel=1e-14)


def test_a_probability_at_the_threshold_is_called() -> None:
    assert metrics.confusion([1, 0, 1], [0.7, 0.7, 0.69], 0.7) == {"tp": 1, "fp": 1, "tn": 0, "fn": 1}
    assert score([1, 0, 1], [0.7, 0.7, 0.69], threshold=0.7)["recall"] == 0.5
    assert score([1, 0], [1.0, 1.0], threshold=1.1)["specificity"] == 1.0


def test_certain_and_wrong_costs_16_nats() -> None:
    assert score([0, 1], [1.0, 1.0])["nll"] == pytest.approx(-math.log(1e-7) / 2, rel=1e-6)


def test_ece_is_zero_where_bins_are_calibrated() -> None:
    labels = [1] + [0] * 3 + [1] * 3 + [0]
    assert score(labels, [0.25] * 4 + [0.75] * 4)["ece"] == 0.0
    assert score(labels, [0.5] * 8)["ece"] == 0.0
    assert score([0, 1], [0.0, 1.0])["ece"] == 0.0
    assert score([1, 0], [0.0, 1.0])["ece"] == 1.0


def test_reliability_table() -> None:
    table = metrics.reliability([0, 1, 1, 1], [0.0, 0.5, 0.3, 1.0], bins=2)
    assert table == [
        metrics.ReliabilityBin(0.0, 0.5, 3, nearly(0.8 / 3), nearly(2 / 3)),
        metrics.ReliabilityBin(0.5, 1.0, 1, 1.0, 1.0),
    ]
    empty = metrics.reliability([1], [0.9], bins=2)[0]
    assert (empty.count, empty.mean_probability, empty.observed_rate) == (0, None, None)


# Against scikit-learn


@given(cases)
def test_agrees_with_scikit_learn(case: list[tuple[int, float]]) -> None:
    y, p = arrays(case)
    got, called = score(y, p), p >= 0.5
    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    expected: dict[str, Any] = {
        "accuracy": reference.accuracy_score(y, called),
        "nll": reference.log_loss(y, clipped, labels=[0, 1]),
        "brier": reference.brier_score_loss(y, p, pos_label=1, labels=[0, 1]),
        "prevalence": y.mean(),
    }
    if y.any():
        expected["recall"] = reference.recall_score(y, called)
        expected["average_precision"] = reference.average_precision_score(y, p)
    if called.any():
        expected["precision"] = reference.precision_score(y, called)
    if y.any() or called.any():
        expected["f1"] = reference.f1_score(y, called)
        expected["f2"] = reference.fbeta_score(y, called, beta=2)
    if not y.all():
        expected["specificity"] = reference.recall_score(y, called, pos_label=0)
    if y.any() and not y.all():
        expected["auc"] = reference.roc_auc_score(y, p)
        expected["balanced_accuracy"] = reference.balanced_accuracy_score(y, called)
    assert {k: v for k, v in got.items() if v is not None and k != "ece"} == pytest.approx(
        expected, rel=1e-12, abs=1e-15
    )


@settings(max_examples=50)
@given(cases, weights)
def test_whole_weights_are_repeated_patches(case: list[tuple[int, float]], counts: list[int]) -> None:
    y, p = arrays(case)
    w = np.array(counts[: len(y)])
    assume(w.any())
    repeated = score(np.repeat(y, w), np.repeat(p, w))
    table = metrics._table(y, p)
    values, _ = metrics._scores(table, w[None].astype(np.float64), 0.5)
    found = {name: metrics._plain(value[0]) for name, value in values.items()}
    assert known(found) == nearly(known(repeated))
    assert metrics.auc(y, p, w) == repeated["auc"]
    if repeated["auc"] is not None:
        assert found["auc"] == nearly(reference.roc_auc_score(y, p, sample_weight=w))
        average = reference.average_precision_score(y, p, sample_weight=w)
        assert found["average_precision"] == nearly(average)


@given(cases)
def test_curves_agree_with_scikit_learn(case: list[tuple[int, float]]) -> None:
    y, p = arrays(case)
    assume(y.any() and not y.all())
    for drop in (True, False):
        found = metrics.roc_curve(y, p, drop_intermediate=drop)
        for mine, theirs in zip(found, reference.roc_curve(y, p, drop_intermediate=drop), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-14)
    for mine, theirs in zip(metrics.precision_recall_curve(y, p), reference.precision_recall_curve(y, p), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-14)


@given(cases)
def test_reliability_agrees_with_scikit_learn_and_with_ece(case: list[tuple[int, float]]) -> None:
    y, p = arrays(case)
    table = metrics.reliability(y, p)
    assert sum(row.count for row in table) == len(y)
    full = [(row.count, row.mean_probability, row.observed_rate) for row in table if row.count]
    ece = math.fsum(n * abs((mean or 0.0) - (rate or 0.0)) for n, mean, rate in full) / len(y)
    assert score(y, p)["ece"] == pytest.approx(ece, abs=1e-14)
    if y.any() and not y.all():
        rate, mean = calibration_curve(y, p, n_bins=15)
        assert [row[1] for row in full] == pytest.approx(mean, abs=1e-14)
        assert [row[2] for row in full] == pytest.approx(rate, abs=1e-14)


# Laws


@given(cases)
def test_laws(case: list[tuple[int, float]]) -> None:
    y, p = arrays(case)
    p = np.round(p, 6)  # so that 1 - p, p / 2 and p ** 3 keep order and ties
    got = score(y, p)
    assert all(v is None or 0 <= v <= (16.2 if k == "nll" else 1) for k, v in got.items())
    area = got["auc"]
    if area is None:
        return
    assert metrics.auc(y, p / 2) == metrics.auc(y, p**3) == area
    assert metrics.auc(y, 1 - p) == nearly(1 - area)
    assert metrics.auc(1 - y, p) == nearly(1 - area)
    flipped = score(1 - y, 1 - p)
    for name in ("auc", "nll", "brier"):
        assert flipped[name] == nearly(got[name], 1e-9)


@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_the_patches_does_not_matter(case: list[tuple[int, float]], random: Any) -> None:
    shuffled = list(case)
    random.shuffle(shuffled)
    assert known(score(*arrays(shuffled))) == nearly(known(score(*arrays(case))))


# Undefined


def test_undefined_scores_are_none_with_a_reason() -> None:
    got = score_with_intervals([1, 1, 1], [0.1, 0.2, 0.3])
    why = {name: interval.why for name, interval in got.items() if interval.value is None}
    assert why == {
        "auc": "one class only: every label is 1",
        "balanced_accuracy": "one class only: every label is 1",
        "precision": "no patch is called tumour",
        "specificity": "no patch is labelled normal",
    }
    got = score_with_intervals([0, 0, 0], [0.1, 0.2, 0.3])
    why = {name: interval.why for name, interval in got.items() if interval.value is None}
    assert why == {
        "auc": "one class only: every label is 0",
        "balanced_accuracy": "one class only: every label is 0",
        "average_precision": "no patch is labelled tumour",
        "recall": "no patch is labelled tumour",
        "f1": "no patch is labelled or called tumour",
        "f2": "no patch is labelled or called tumour",
        "precision": "no patch is called tumour",
    }
    assert got["auc"].as_json() == {"value": None, "low": None, "high": None, "why": "one class only: every label is 0"}
    assert "why" not in got["accuracy"].as_json()
    assert metrics.auc([0, 0], [0.1, 0.2]) is None
    assert metrics.auc([0, 1], [0.1, 0.2], [1, 0]) is None
    assert score([1, 0], [0.1, 0.2])["f1"] == 0.0


# Bad input


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], [], "there are no patches to score"),
        ([0, 2, 1], [0.1, 0.2, 0.3], "the label of patch 1 is 2"),
        ([0, 1, math.nan], [0.1, 0.2, 0.3], "the label of patch 2 is nan"),
        ([0, 1, 1], [0.1, math.nan, 0.3], "the probability of patch 1 is nan"),
        ([0, 1, 1], [0.1, 0.2, 1.5], "the probability of patch 2 is 1.5"),
        ([0, 1], [0.1, -0.5], "the probability of patch 1 is -0.5"),
        ([0, 1], [0.1, 0.2, 0.3], "2 labels for 3 probabilities: index 2 is without a partner"),
        ([[0], [1]], [0.1, 0.2], r"labels have shape \(2, 1\)"),
    ],
)
def test_bad_input_is_named(labels: Any, probabilities: Any, message: str) -> None:
    for function in (
        score,
        score_with_intervals,
        metrics.auc,
        metrics.confusion,
        metrics.roc_curve,
        metrics.reliability,
    ):
        with pytest.raises(DataError, match=message):
            function(labels, probabilities)


def test_bad_choices_are_named() -> None:
    def plan(**bad: Any) -> None:
        score_with_intervals([0, 1], [0.1, 0.2], **bad)

    with pytest.raises(ConfigError, match="replicates is 1"):
        plan(replicates=1)
    with pytest.raises(ConfigError, match=r"level is 95"):
        plan(level=95)
    with pytest.raises(ConfigError, match="threshold is nan"):
        plan(threshold=math.nan)
    with pytest.raises(DataError, match=r"groups have shape \(3,\)"):
        plan(groups=["a", "b", "c"])
    with pytest.raises(DataError, match="patch 1 has no group: nan"):
        plan(groups=[1.0, math.nan])
    with pytest.raises(DataError, match="patch 0 has no group: None"):
        plan(groups=np.array([None, "a"], dtype=object))
    with pytest.raises(DataError, match="the weight of patch 1 is -1"):
        metrics.auc([0, 1], [0.1, 0.2], [1, -1])
    with pytest.raises(ConfigError, match="bins is 0"):
        metrics.reliability([0, 1], [0.1, 0.2], bins=0)
    with pytest.raises(DataError, match="this curve is undefined: one class only: every label is 1"):
        metrics.roc_curve([1, 1], [0.1, 0.2])
    with pytest.raises(DataError, match="this curve is undefined: no patch is labelled tumour"):
        metrics.precision_recall_curve([0, 0], [0.1, 0.2])
