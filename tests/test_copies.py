"""Copies: found under all 8 rotations and flips and in no other case, on the patch that would have to go."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histoproof.data import inspection
from histoproof.data.copies import ORIENTATIONS, Catalogue, copy_findings, oriented
from histoproof.data.findings import Finding, quarantine_reasons
from histoproof.data.inspection import Inspector

Pixels = np.ndarray[Any, np.dtype[Any]]
Splits = dict[str, tuple[Pixels, list[int] | None]]


def patches(n: int, seed: int = 0) -> Pixels:
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)


def found(splits: Splits) -> list[Finding]:
    seen = [
        (name, Inspector()(x, name, 0)[1], None if y is None else np.array(y, np.int8))
        for name, (x, y) in splits.items()
    ]
    return copy_findings(Catalogue.of(seen), lambda split, rows: splits[split][0][rows])


def brief(findings: list[Finding]) -> list[tuple[Any, ...]]:
    return [(f.kind, f.severity, f.split, f.index, f.other and (f.other["split"], f.other["index"])) for f in findings]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 7))
def test_a_turned_patch_folds_to_the_same_digest_and_another_to_another(seed: int, k: int) -> None:
    one, other = patches(2, seed)
    nudged = one.copy()
    nudged[seed % 96, (seed // 96) % 96, seed % 3] ^= 1
    _, seen = Inspector()(np.stack([one, oriented(one, k), other, nudged]), "train", 0)
    assert np.array_equal(seen.folded[0], seen.folded[1])
    assert np.array_equal(seen.digests[0], seen.digests[1]) == (k == 0)
    for different in (2, 3):
        assert not np.array_equal(seen.folded[0], seen.folded[different])


def test_the_8_orientations_are_8_and_each_is_found_by_its_name() -> None:
    patch = patches(1)[0]
    turned = [oriented(patch, k) for k in range(8)]
    assert len({t.tobytes() for t in turned}) == 8
    for k in range(1, 8):
        (finding,) = found({"train": (np.stack([patch, turned[k]]), None)})
        assert finding.detail == f"train 0 {ORIENTATIONS[k]}"
    assert np.array_equal(oriented(patch, 6), patch[::-1])  # mirrored top to bottom


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_planted_copies_are_found_each_once_and_nothing_else(data: Any) -> None:
    """Any mix of copies and turned copies in three splits: a slow search, patch by patch, finds the same."""
    base = patches(3, 5)
    plan = data.draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 7), st.integers(0, 1)), max_size=9)
    )
    names = ("train", "valid", "test")
    splits: Splits = {}
    for number, name in enumerate(names):
        rows = [(b, k, y) for split, b, k, y in plan if split == number] or [(0, 0, 0)][: number == 0]
        rows = rows or [(number, 3, 0)]
        splits[name] = (np.stack([oriented(base[b], k) for b, k, _ in rows]), [y for _, _, y in rows])
    assert sorted(brief(found(splits))) == sorted(slowly(splits))


def slowly(splits: Splits) -> list[tuple[Any, ...]]:
    """The rules, patch by patch, without digests."""
    order = [(name, i, x, (y or [])[i]) for name, (xs, y) in splits.items() for i, x in enumerate(xs)]
    out: list[tuple[Any, ...]] = []
    for at, (name, i, x, label) in enumerate(order):
        exact = [o for o in order if np.array_equal(o[2], x)]
        alike = [o for o in order[:at] if any(np.array_equal(oriented(o[2], k), x) for k in range(8))]
        here = [o for o in exact if o[0] == name]
        if here[0][1] != i:
            out.append(("duplicate", "warning", name, i, (name, here[0][1])))
        later = [o for o in exact if list(splits).index(o[0]) > list(splits).index(name)]
        if later:
            out.append(("cross_split_duplicate", "error", name, i, later[0][:2]))
        turned = [o for o in alike if not np.array_equal(o[2], x)]
        if turned and here[0][1] == i:
            severity = "warning" if turned[0][0] == name else "error"
            out.append(("duplicate_dihedral", severity, name, i, turned[0][:2]))
        other = [o for o in alike if o[3] != label]
        if other:
            out.append(("label_conflict", "error", name, i, other[0][:2]))
    return out


@pytest.mark.parametrize("digest", ["_digests", "_fold"])
def test_colliding_digests_are_no_findings(monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    real: Callable[[Pixels], Pixels] = getattr(inspection, digest)
    x = patches(9)
    x[5], x[6], x[7] = x[1], oriented(x[2], 3), oriented(x[3], 5)
    expected = brief(found({"train": (x, [0] * 9)}))
    assert len(expected) == 3
    monkeypatch.setattr(
        inspection, digest, lambda items: real(items) * np.uint64(0) if len(items) == 9 else real(items)
    )
    assert brief(found({"train": (x, [0] * 9)})) == expected


def test_patches_without_content_are_no_copies_of_each_other() -> None:
    x = patches(6)
    x[0] = x[1] = 0
    x[2] = x[3] = 255
    assert found({"train": (x, [0, 1, 0, 1, 0, 1]), "valid": (x[:4], [0, 0, 0, 0])}) == []


def test_values_that_uint8_cannot_hold_are_compared_as_they_are() -> None:
    x = patches(8).astype(np.float32)
    x[0, 3, 3, 0] = np.nan  # as uint8 this becomes 0, and the patch that of row 1
    x[1] = x[0]
    x[1, 3, 3, 0] = 0
    x[2] = x[0]
    x[3] = x[4] = np.nan
    x[5] = x[6] = 1e5
    (finding,) = found({"train": (x, None)})
    assert (finding.kind, finding.index, finding.other) == ("duplicate", 2, {"split": "train", "index": 0})


def test_both_patches_of_a_label_conflict_go_into_quarantine() -> None:
    x = patches(4)
    x[3] = x[1]
    findings = found({"train": (x, [0, 0, 0, 1])})
    assert quarantine_reasons(findings) == {("train", 3): ["label_conflict"], ("train", 1): ["label_conflict"]}


def test_of_a_copy_across_splits_the_earlier_splits_patches_go() -> None:
    x = patches(4)
    x[3] = x[1]
    findings = found({"train": (x, [0] * 4), "test": (x[[0, 1, 1]], [0] * 3)})
    assert set(quarantine_reasons(findings)) == {("train", 0), ("train", 1), ("train", 3)}
