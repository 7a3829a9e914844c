"""Doubtful labels: ranked by models that never saw the patch, told as suspicions, the same on every run."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from histoproof import rng
from histoproof.data import crossfit
from histoproof.data import suspects as module
from histoproof.data.features import WIDTH, features
from histoproof.data.pcam import official_name
from histoproof.data.suspects import suspect_findings, suspects, why_not
from histoproof.errors import DataError

Labels = NDArray[np.uint8]


def clouds(n: int, seed: int = 0, apart: float = 3.0) -> tuple[NDArray[np.float32], Labels]:
    """Two clouds of points in 6 dimensions, `apart` standard deviations from each other, and which is which."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n).astype(np.uint8)
    points = generator.standard_normal((n, 6)).astype(np.float32)
    points += (apart / 6**0.5 * labels[:, None]).astype(np.float32)
    return points, labels


def flip(labels: Labels, count: int, seed: int) -> tuple[Labels, NDArray[np.int64]]:
    rows = rng.permutation(rng.key(seed, "flips"), len(labels))[:count]
    flipped = labels.copy()
    flipped[rows] ^= 1
    return flipped, rows


def real_train(real_data: Path, rows: slice) -> tuple[NDArray[np.uint8], Labels]:
    with (
        h5py.File(real_data / "pcam-real" / official_name("train", "x.h5")) as x,
        h5py.File(real_data / "pcam-real" / official_name("train", "y.h5")) as y,
    ):
        return x["x"][rows], y["y"][rows].reshape(-1)


def mean_precision(described: NDArray[Any], truth: Labels, count: int, seeds: int) -> float:
    """Precision among the `count` most doubtful with as many labels flipped, mean over seeds."""
    found = []
    for seed in range(seeds):
        flipped, rows = flip(truth, count, seed)
        top = suspects(described, flipped, seed=seed, limit=count)
        found.append(np.isin([suspect.row for suspect in top], rows).mean())
    return float(np.mean(found))


@pytest.mark.real
def test_planted_label_errors_come_first(real_data: Path) -> None:
    # 0.61 as mean of 10 seeds; chance is 0.05, and a quarter of the patches teaches less than all of them (below: 0.69).
    images, truth = real_train(real_data, slice(0, 1024))
    assert mean_precision(features(images), truth, count=51, seeds=4) >= 0.50


@pytest.mark.real
@pytest.mark.slow
def test_of_205_labels_flipped_at_random_60_percent_stand_among_the_205_most_doubtful(real_data: Path) -> None:
    images, truth = real_train(real_data, slice(None))
    assert mean_precision(features(images), truth, count=205, seeds=5) >= 0.60


def test_a_label_that_contradicts_its_neighbours_is_named_and_the_most_doubtful_stands_first() -> None:
    points, truth = clouds(400, apart=8.0)
    flipped, rows = flip(truth, 12, seed=1)
    ranked = suspects(points, flipped, seed=1)
    assert len(ranked) >= 6
    assert {suspect.row for suspect in ranked} <= set(rows.tolist())
    assert {suspect.row for suspect in suspects(points, flipped, seed=1, limit=12)} == set(rows.tolist())
    assert [s.score for s in ranked] == sorted((s.score for s in ranked), reverse=True)
    for suspect in ranked:
        assert suspect.label == flipped[suspect.row]
        assert 0 <= suspect.probability <= 1
        assert (suspect.probability > 0.5) != bool(suspect.label)


def test_limit_gives_that_many_of_the_same_ranking() -> None:
    points, truth = clouds(400, apart=2.0)
    named = suspects(points, truth, seed=3)
    assert 0 < len(named) < 100
    longer = suspects(points, truth, seed=3, limit=100)
    assert len(longer) == 100
    assert longer[0] == named[0]


def test_same_input_same_ranking_on_any_number_of_threads() -> None:
    points, truth = clouds(600, apart=2.0)
    with threadpool_limits(1):
        one = suspects(points, truth, seed=5)
    with threadpool_limits(2):
        two = suspects(points, truth, seed=5)
    assert one == two
    assert one != suspects(points, truth, seed=6), "the folds are drawn by the seed"


@pytest.mark.parametrize("fitted", [90, 60])
def test_a_patch_is_judged_by_a_model_that_never_saw_its_fold(fitted: int) -> None:
    points, truth = clouds(90, apart=1.0)
    rows, fold = np.arange(90), np.arange(90) % 5
    sample = np.arange(fitted)
    before = crossfit.out_of_fold(points, rows, truth.astype(np.int64), [fold], sample)
    changed = np.where(fold == 2, 1 - truth, truth).astype(np.int64)
    after = crossfit.out_of_fold(points, rows, changed, [fold], sample)
    np.testing.assert_allclose(after[fold == 2], before[fold == 2], atol=1e-4)
    assert np.abs(after - before)[fold != 2].max() > 0.05


def test_the_closed_form_gives_what_fitting_without_the_fold_gives() -> None:
    points, truth = clouds(80, apart=1.0)
    kernel = crossfit._kernel(points, points, 6.0)
    fold = np.arange(80) % 4
    (closed,) = crossfit._fit(kernel.copy(), truth.astype(np.int64), [fold], [4])
    for number in range(4):
        kept = np.flatnonzero(fold != number)
        ridge = kernel[np.ix_(kept, kept)].astype(np.float64) + crossfit._RIDGE * np.eye(len(kept))
        np.testing.assert_allclose(closed[kept, number], np.linalg.solve(ridge, 2.0 * truth[kept] - 1), atol=2e-3)
        assert not closed[fold == number, number].any()


def test_copies_of_a_patch_never_vouch_for_each_other() -> None:
    points, truth = clouds(100)
    points, truth = np.concatenate([points, points]), np.concatenate([truth, truth])
    fold = module._folds(points, np.arange(200), truth.astype(np.int64), None, 5, 7)
    assert (fold[:100] == fold[100:]).all()
    assert np.bincount(fold).tolist() == [40] * 5


def test_a_group_is_judged_whole() -> None:
    points, truth = clouds(300)
    groups = np.array([f"slide-{k % 13}" for k in range(300)])
    fold = module._folds(points, np.arange(300), truth.astype(np.int64), groups, 5, 7)
    assert set(fold) == set(range(5))
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))
    # What only a slide's own patches could teach counts for nothing: each has the other label on a spot of its own.
    spots = np.random.default_rng(0).standard_normal((300, 13)).astype(np.float32) / 100
    spots[np.arange(300), np.arange(300) % 13] = 9.0
    labels = (np.arange(300) % 13 % 2).astype(np.uint8)
    assert not suspects(spots, labels, seed=1)
    assert suspects(spots, labels, seed=1, groups=groups)


def test_two_groups_are_enough_when_each_has_both_classes() -> None:
    points, truth = clouds(400, apart=8.0)
    flipped, rows = flip(truth, 6, seed=2)
    ranked = suspects(points, flipped, seed=2, groups=np.arange(400) % 2, limit=6)
    assert {suspect.row for suspect in ranked} == set(rows.tolist())


def test_a_patch_without_a_label_is_never_a_suspect_and_rows_are_those_given() -> None:
    points, truth = clouds(300, apart=8.0)
    flipped, rows = flip(truth, 8, seed=4)
    unknown = np.setdiff1d(np.arange(0, 300, 3), rows)
    flipped[unknown] = 255
    assert {suspect.row for suspect in suspects(points, flipped, seed=4, limit=8)} == set(rows.tolist())


def test_the_fit_is_to_a_sample_where_there_are_many_and_all_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIT_ROWS", 120)
    points, truth = clouds(600, apart=8.0)
    flipped, rows = flip(truth, 12, seed=1)
    assert {suspect.row for suspect in suspects(points, flipped, seed=1, limit=12)} == set(rows.tolist())


def test_a_fold_of_which_nothing_was_drawn_for_the_fit_is_judged_too() -> None:
    points, truth = clouds(90, apart=8.0)
    fold = np.where(np.arange(90) < 80, np.arange(90) % 3, 3)
    tumour = crossfit.out_of_fold(points, np.arange(90), truth.astype(np.int64), [fold], np.arange(80))
    assert ((tumour > 0.5) == truth).mean() > 0.95


def test_what_only_one_class_could_teach_is_not_judged() -> None:
    points, truth = clouds(60)
    tumour = crossfit.out_of_fold(
        points, np.arange(60), truth.astype(np.int64), [truth.astype(np.int64)], np.arange(60)
    )
    assert np.isnan(tumour).all()


@pytest.mark.parametrize(
    ("labels", "groups", "words"),
    [
        ([255] * 40, None, "no patch has a label"),
        ([1] * 40, None, "only 0 of 40 labelled patches say no tumour"),
        ([0] * 40, None, "only 0 of 40 labelled patches say tumour"),
        ([0] * 40 + [1] * 9, None, "only 9 of 49 labelled patches say tumour"),
        ([0] * 40 + [1] * 40, [0, 1] * 20 + [0] * 40, "all patches labelled tumour are of one group"),
    ],
)
def test_where_labels_cannot_be_doubted_words_say_why(labels: list[int], groups: list[int] | None, words: str) -> None:
    y, g = np.array(labels, dtype=np.uint8), None if groups is None else np.array(groups)
    reason = why_not(y, groups=g)
    assert reason is not None
    assert words in reason
    with pytest.raises(DataError, match=words):
        suspects(clouds(len(y))[0], y, seed=1, groups=g)


def test_what_does_not_fit_is_refused() -> None:
    points, truth = clouds(60)
    assert why_not(truth) is None
    with pytest.raises(DataError, match="60 patches, but labels of shape"):
        suspects(points, truth[:50], seed=1)
    with pytest.raises(DataError, match="60 patches, but groups of shape"):
        suspects(points, truth, seed=1, groups=np.arange(50))
    with pytest.raises(DataError, match="cross-validation in 1 folds"):
        suspects(points, truth, seed=1, folds=1)
    points[7, 2] = np.nan
    with pytest.raises(DataError, match="not finite"):
        suspects(points, truth, seed=1)


def test_patches_that_all_look_the_same_are_judged_and_nobody_is_blamed() -> None:
    labels = (np.arange(60) % 2).astype(np.uint8)
    generator = np.random.default_rng(0).standard_normal((60, 4)) * 1e-9
    for points in (np.zeros((60, 4), dtype=np.float32), generator.astype(np.float32)):
        assert all(np.isfinite(s.score) for s in suspects(points, labels, seed=1, limit=60))


def test_the_confident_joint_estimates_how_many() -> None:
    # Of the 8 that say no tumour the 4 at 0.9 (for: 0.1) reach the class's mean, so does one against: 8 * 1 / 5, rounded, is 2.
    tumour = np.array([0.1, 0.1, 0.1, 0.1, 0.4, 0.45, 0.55, 0.95] + [0.9] * 8)
    label = np.array([0] * 8 + [1] * 8)
    assert np.flatnonzero(module._doubted(tumour, label)).tolist() == [6, 7]
    tumour[7] = 0.3
    assert not module._doubted(tumour, label).any(), "0.55 is doubt, but not confident"


def test_findings_say_no_more_than_a_suspicion() -> None:
    points, truth = clouds(200, apart=8.0)
    flipped, _ = flip(truth, 5, seed=1)
    ranked = suspects(points, flipped, seed=1, limit=5)
    found = suspect_findings("train", ranked)
    assert [(f.kind, f.severity, f.split, f.index) for f in found] == [
        ("label_suspect", "warning", "train", s.row) for s in ranked
    ]
    for place, (finding, suspect) in enumerate(zip(found, ranked, strict=True), 1):
        said = "tumour" if suspect.label else "no tumour"
        assert finding.detail.startswith(
            f"suspect {place} of 5: the label says {said}, a model that never saw this patch gives"
        )
        assert f"{suspect.probability:.2f}" in finding.detail
        assert finding.detail.endswith("look at it")
        assert not any(word in finding.detail for word in ("wrong", "error", "mislabel", "incorrect"))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["noise", "blobs", "flat"]), st.integers(0, 3), st.booleans())
def test_features_are_the_same_whichever_way_up_a_patch_lies(seed: int, kind: str, turns: int, mirrored: bool) -> None:
    generator = np.random.default_rng(seed)
    side = {"noise": 96, "blobs": 12, "flat": 1}[kind]
    patch = generator.integers(0, 256, (1, side, side, 3)).astype(np.uint8).repeat(96 // side, 1).repeat(96 // side, 2)
    turned = np.rot90(patch, turns, axes=(1, 2))
    turned = np.ascontiguousarray(turned[:, :, ::-1] if mirrored else turned)
    ours, theirs = features(patch).astype(np.float32), features(turned).astype(np.float32)
    assert ours.shape == (1, WIDTH)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_features_of_a_patch_do_not_depend_on_its_company() -> None:
    block = np.random.default_rng(0).integers(0, 256, (70, 96, 96, 3)).astype(np.uint8)
    block[0], block[1] = 0, 255
    whole = features(block)
    assert whole.dtype == np.float16
    parts = np.concatenate([features(block[:1]), features(block[1:41]), features(block[41:])])
    np.testing.assert_array_equal(whole, parts)
    assert np.abs(whole[0].astype(np.float32) - whole[1]).max() > 0.5
    assert features(block[:0]).shape == (0, WIDTH)
