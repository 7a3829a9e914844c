"""The audit's scores: right findings count, wrong ones tell, and copies are compared as groups."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoproof.data.score import score
from histoproof.data.truth import Truth, read_truth
from histoproof.errors import DataError


def finding(kind: str, split: str, index: int | None, other: tuple[str, int | None] | None = None) -> dict[str, Any]:
    pair = None if other is None else {"split": other[0], "index": other[1]}
    return {"kind": kind, "severity": "error", "split": split, "index": index, "detail": "", "other": pair}


def test_an_audit_that_names_exactly_what_was_planted_scores_one() -> None:
    truth = [Truth("nan", "train", 3), Truth("nan", "valid", 3), Truth("duplicate", "train", 9, "train", 2)]
    found = [finding("nan", "train", 3), finding("nan", "valid", 3), finding("duplicate", "train", 9, ("train", 2))]
    scores = score(truth, found)
    assert {kind: (row["precision"], row["recall"]) for kind, row in scores.items()} == {
        "nan": (1.0, 1.0),
        "duplicate": (1.0, 1.0),
    }


def test_what_is_missed_and_what_is_invented_is_counted_and_named() -> None:
    truth = [Truth("nan", "train", 3), Truth("nan", "train", 4)]
    row = score(truth, [finding("nan", "train", 3), finding("nan", "train", 5), finding("nan", "valid", 4)])["nan"]
    assert (row["n_planted"], row["found"], row["false"]) == (2, 1, 2)
    assert (row["precision"], row["recall"]) == (pytest.approx(1 / 3), 0.5)
    assert (row["missed"], row["wrong"]) == ([["train", 4]], [["train", 5], ["valid", 4]])


def test_a_kind_that_was_not_planted_but_found_is_all_false() -> None:
    row = score([], [finding("washout", "train", 1)])["washout"]
    assert (row["precision"], row["recall"], row["false"]) == (0.0, None, 1)


def test_a_pair_has_no_direction() -> None:
    truth = [Truth("duplicate", "train", 2, "train", 9)]
    assert score(truth, [finding("duplicate", "train", 9, ("train", 2))])["duplicate"]["recall"] == 1.0


def test_copies_of_one_patch_are_copies_of_each_other() -> None:
    """7 and 9 were made from 20: the audit names each later row against the first one, 7."""
    truth = [Truth("duplicate", "train", 9, "train", 20), Truth("duplicate", "train", 7, "train", 20)]
    found = [finding("duplicate", "train", 9, ("train", 7)), finding("duplicate", "train", 20, ("train", 7))]
    row = score(truth, found)["duplicate"]
    assert (row["n_planted"], row["found"], row["false"]) == (2, 2, 0)
    half = score(truth, found[:1])["duplicate"]
    assert (half["found"], half["recall"], half["precision"]) == (1, 0.5, 1.0)


def test_a_label_conflict_is_a_duplicate_too_and_across_splits_a_cross_split_duplicate() -> None:
    within = [Truth("label_conflict", "train", 4, "train", 1)]
    found = [finding("label_conflict", "train", 4, ("train", 1)), finding("duplicate", "train", 4, ("train", 1))]
    assert {kind: row["recall"] for kind, row in score(within, found).items()} == {"label_conflict": 1, "duplicate": 1}
    assert score(within, found[:1])["duplicate"]["recall"] == 0.0
    across = [Truth("label_conflict", "test", 4, "train", 1)]
    found = [
        finding("label_conflict", "test", 4, ("train", 1)),
        finding("cross_split_duplicate", "train", 1, ("test", 4)),
    ]
    scores = score(across, found)
    assert {kind: (row["precision"], row["recall"]) for kind, row in scores.items()} == {
        "label_conflict": (1, 1),
        "cross_split_duplicate": (1, 1),
    }


def test_copies_with_equal_labels_are_no_conflict() -> None:
    truth = [Truth("label_conflict", "train", 4, "train", 1), Truth("duplicate", "train", 6, "train", 1)]
    row = score(truth, [finding("label_conflict", "train", 6, ("train", 1))])["label_conflict"]
    assert (row["found"], row["false"]) == (0, 1)
    row = score(truth, [finding("label_conflict", "train", 6, ("train", 4))])["label_conflict"]
    assert (row["false"], row["precision"]) == (0, 1.0)


def test_each_copy_across_splits_is_expected_once_for_each_later_split() -> None:
    truth = [
        Truth("cross_split_duplicate", "train", 3, "valid", 5),
        Truth("duplicate", "train", 8, "train", 3),
        Truth("cross_split_duplicate", "test", 0, "valid", 5),
    ]
    found = [
        finding("cross_split_duplicate", "train", 3, ("valid", 5)),
        finding("cross_split_duplicate", "train", 8, ("valid", 5)),
        finding("cross_split_duplicate", "valid", 5, ("test", 0)),
        finding("duplicate", "train", 8, ("train", 3)),
    ]
    scores = score(truth, found)
    assert scores["cross_split_duplicate"]["n_planted"] == 5  # 3 and 8 in valid and in test, 5 in test
    assert all((row["precision"], row["recall"]) == (1, 1) for row in scores.values())


def test_an_exact_copy_called_rotated_is_false_and_a_rotated_one_called_near_is_left_open() -> None:
    truth = [Truth("duplicate", "train", 2, "train", 1), Truth("duplicate_dihedral", "train", 4, "train", 3)]
    assert score(truth, [finding("duplicate_dihedral", "train", 2, ("train", 1))])["duplicate_dihedral"]["false"] == 1
    assert "near_duplicate" not in score(truth, [finding("near_duplicate", "train", 4, ("train", 3))])


def test_blank_patches_that_equal_each_other_are_neither_found_nor_false() -> None:
    truth = [Truth("blackout", "train", 1), Truth("blackout", "train", 2), Truth("washout", "train", 3)]
    found = [finding("duplicate", "train", 2, ("train", 1)), finding("outlier", "train", 3)]
    scores = score(truth, found)
    assert set(scores) == {"blackout", "washout"}


def test_a_patch_made_float_by_nan_may_be_called_bloated() -> None:
    assert "dtype_bloat" not in score([Truth("nan", "train", 1)], [finding("dtype_bloat", "train", None)])
    assert score([], [finding("dtype_bloat", "train", None)])["dtype_bloat"]["false"] == 1
    planted = [Truth("dtype_bloat", "train", None)]
    assert score(planted, [finding("dtype_bloat", "train", None)])["dtype_bloat"]["recall"] == 1.0


def test_a_shared_slide_may_be_told_of_either_split() -> None:
    truth = [Truth("group_overlap", "valid", None, "train", None)]
    for split, other in (("valid", "train"), ("train", "valid")):
        row = score(truth, [finding("group_overlap", split, None, (other, None))])["group_overlap"]
        assert (row["precision"], row["recall"]) == (1.0, 1.0)


def test_what_the_untouched_source_held_already_counts_as_neither() -> None:
    old = finding("duplicate", "train", 8, ("train", 2))
    assert score([], [old], known=[old]) == {}
    assert score([], [old])["duplicate"]["false"] == 1


def test_a_truth_file_is_read_as_written_and_a_damaged_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    path.write_text("kind,split,index,other_split,other_index,detail\nduplicate,train,4,train,2,\nnan,valid,0,,,x\n")
    assert read_truth(path) == [
        Truth("duplicate", "train", 4, "train", 2, ""),
        Truth("nan", "valid", 0, None, None, "x"),
    ]
    assert score(path, [finding("nan", "valid", 0)])["nan"]["recall"] == 1.0
    path.write_text("kind,split\nnan,train\n")
    with pytest.raises(DataError, match=r"truth\.csv"):
        read_truth(path)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12),
    st.lists(st.sampled_from(["train", "valid", "test"]), min_size=10, max_size=10),
)
def test_an_audit_that_groups_as_the_truth_does_scores_one_however_the_pairs_are_named(
    edges: list[tuple[int, int]], splits: list[str]
) -> None:
    """Random copies: an audit that names each later copy against the first in its split, and each earlier one against the first
    in every later split, is right in everything and misses nothing."""
    place = [(splits[i], i) for i in range(10)]
    truth = [
        Truth("duplicate" if splits[a] == splits[b] else "cross_split_duplicate", *place[a], *place[b])
        for a, b in edges
        if a != b
    ]
    group = list(range(10))
    for a, b in edges:
        group = [group[a] if g == group[b] else g for g in group]
    found = []
    order = {"train": 0, "valid": 1, "test": 2}
    for g in set(group):
        members = sorted((place[i] for i in range(10) if group[i] == g), key=lambda p: (order[p[0]], p[1]))
        first: dict[str, tuple[str, int]] = {}
        for member in members:
            if first.setdefault(member[0], member) != member:
                found.append(finding("duplicate", *member, first[member[0]]))
        for member in members:
            for split, other in first.items():
                if order[split] > order[member[0]]:
                    found.append(finding("cross_split_duplicate", *member, other))
    scores = score(truth, found)
    assert all((row["precision"], row["recall"]) == (1.0, 1.0) for row in scores.values())
    for kind in scores:
        assert scores[kind]["n_planted"] == sum(f["kind"] == kind for f in found)
