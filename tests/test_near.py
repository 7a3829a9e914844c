"""Near-duplicates are found whatever was done to them, each once; glass, look-alikes and exact copies are not among them."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from histoproof import rng
from histoproof.data import near, neighbours
from histoproof.data.near import NearIndex, NearPair, near_findings
from histoproof.data.sketch import INVERSE, sketch, turn, turn_sketch
from histoproof.errors import DataError

from .conftest import REPOSITORY


def _benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_near", REPOSITORY / "benchmarks" / "near.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


bench = _benchmark()


@pytest.fixture(scope="module")
def synthetic(official: Path) -> Any:
    return bench.load(official)


@pytest.fixture
def some(synthetic: Any) -> Any:
    """A copy that a test may change: 256 train, 96 valid and 64 test patches."""
    return {split: x.copy() for split, x in synthetic.items()}


def named(pairs: list[NearPair]) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    return [((p.split, p.index), (p.other_split, p.other_index)) for p in pairs]


def jpeg(patch: NDArray[np.uint8], quality: float) -> NDArray[np.uint8]:
    """Quality 70-95 for 0-1."""
    again: NDArray[np.uint8] = bench.jpeg(patch, lambda: quality)
    return again


@pytest.mark.real
def test_real_patches_planted_in_every_kind_are_found_and_nothing_else(real_data: Path) -> None:
    real = bench.load(real_data / "pcam-real")
    assert bench.find(real) == []
    planted, truth = bench.plant(real, 11, 20)
    result = bench.score(bench.find(planted), truth)
    assert result["right"] == result["reported"]
    assert result["hits"]["all"][1] >= 0.98 * result["hits"]["all"][0]
    for kind, (n, found) in result["hits"].items():
        assert found >= 0.9 * n, kind


def test_plants_among_synthetic_patches_are_found_and_nothing_else(synthetic: Any) -> None:
    assert bench.find(synthetic) == []
    planted, truth = bench.plant(synthetic, 3, 4)
    result = bench.score(bench.find(planted), truth)
    n, found = result["hits"]["all"]
    assert n == 4 * len(bench.KINDS)
    assert result["right"] == result["reported"] == found
    assert found >= 0.97 * n


def test_a_pair_says_what_was_done(some: Any) -> None:
    moved = np.roll(turn(some["train"][[40]], 6)[0], (1, -2), (0, 1))
    some["valid"][7] = np.clip(np.rint(moved * 1.04), 0, 255)
    (pair,) = bench.find(some)
    assert named([pair]) == [(("valid", 7), ("train", 40))]
    for words in ("rotated by 90 degrees clockwise", "shifted 1 px down and 2 px left", "brightness x1.0"):
        assert words in pair.detail
    assert 0.9 < pair.similarity <= 1


def test_findings_are_warnings_on_the_later_patch(some: Any) -> None:
    some["test"][3] = jpeg(some["valid"][9], 0.2)
    some["train"][8] = jpeg(some["train"][200], 0.2)
    found = list(near_findings(iter(bench.find(some))))
    assert [(f.kind, f.severity, f.split, f.index, f.other) for f in found] == [
        ("near_duplicate", "warning", "train", 200, {"split": "train", "index": 8}),
        ("near_duplicate", "warning", "test", 3, {"split": "valid", "index": 9}),
    ]
    assert "grey levels" in found[0].detail


def test_every_copy_in_a_large_cluster_is_found_once_with_the_first(some: Any) -> None:
    # 60 copies are five times as many as neighbours are asked for.
    original = some["train"][100].copy()
    rows = range(20, 80)
    for k, row in enumerate(rows):
        again = bench.noisy(jpeg(original, k / 60), iter(rng.uniform(k, 9).tolist()).__next__)
        some["train"][row] = turn(again[None], k % 8)[0]
    for k in range(10):
        moved = bench.shifted("edge")(original, iter(rng.uniform(k, 100).tolist()).__next__)
        some["test"][k] = bench.noisy(moved, iter(rng.uniform(100 + k, 9).tolist()).__next__)
    expected = [("train", row) for row in [*rows[1:], 100]] + [("test", k) for k in range(10)]
    copies = named(bench.find(some))
    assert [copy for copy, _ in copies] == expected
    # The test's copies are told to be train's, not each other's.
    assert all(first == ("train", 20) for _, first in copies)


def test_exact_copies_are_another_finding_turned_or_not(some: Any) -> None:
    for t in range(8):
        some["valid"][t] = turn(some["train"][[5]], t)[0]
    assert bench.find(some) == []


def test_excluded_patches_are_left_out(some: Any) -> None:
    some["valid"][0] = jpeg(some["train"][5], 0.5)
    some["valid"][1] = jpeg(some["train"][6], 0.5)
    index = NearIndex()
    for split, x in some.items():
        index.add(split, 0, x)
    read = lambda split, rows: some[split][rows]  # noqa: E731
    assert named(list(index.pairs(read, exclude={("train", 6)}))) == [(("valid", 0), ("train", 5))]
    assert len(list(index.pairs(read))) == 2


def test_glass_is_never_a_pair() -> None:
    y, x = np.mgrid[:96, :96, :1][:2]
    glass = []
    for k in range(40):
        noise = rng.uniform(rng.key(1, k), 96 * 96 * 3).reshape(96, 96, 3) * 4
        shade = (y + k * x) / 40  # the light falls off to one side
        glass.append(np.clip(232 + noise + (shade if k % 2 else 0), 0, 255).astype(np.uint8))
    blanks = [np.full((96, 96, 3), value, np.uint8) for value in (0, 1, 128, 254, 255)]
    assert bench.find({"train": np.stack(glass + blanks), "test": np.stack(blanks + glass[:1])}) == []


def test_a_dark_spot_on_glass_is_not_every_dark_spot_on_glass() -> None:
    y, x = np.mgrid[:96, :96]
    spots = []
    for k in range(12):
        noise = rng.uniform(rng.key(2, k), 96 * 96 * 3).reshape(96, 96, 3) * 6
        cell = 150 * np.exp(-(((np.hypot(y - 40, x - 52)) / (5 + k / 8)) ** 4))
        spots.append(np.clip(235 - cell[..., None] + noise, 0, 255).astype(np.uint8))
    assert bench.find({"train": np.stack(spots)}) == []
    copied = np.stack([*spots, bench.shifted("reflect")(spots[3], iter([0.7, 0.1]).__next__)])
    assert named(bench.find({"train": copied})) == [(("train", 12), ("train", 3))]


def test_the_result_depends_on_the_patches_alone(some: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    planted, _ = bench.plant(some, 5, 3)
    expected = bench.find(planted)
    assert len(expected) >= 45
    assert bench.find(planted, block=37) == expected
    assert bench.find(dict(reversed(planted.items()))) == expected
    faiss = neighbours.check_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    assert bench.find(planted) == expected
    faiss.omp_set_num_threads(threads)
    monkeypatch.setattr(near, "_PAIRS", 5)  # other patches are read together
    assert bench.find(planted) == expected


def test_a_search_in_cells_as_of_a_full_dataset_finds_the_same(some: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    planted, _ = bench.plant(some, 6, 3)
    expected = bench.find(planted)
    monkeypatch.setattr(neighbours, "_FLAT", 100)
    assert named(bench.find(planted)) == named(expected)


def test_reading_asks_for_sorted_rows_of_candidates_only(some: Any) -> None:
    some["valid"][0] = jpeg(some["train"][5], 0.5)
    index, asked = NearIndex(), []
    for split, x in some.items():
        index.add(split, 0, x)

    def read(split: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        asked.append((split, rows.tolist()))
        patches: NDArray[np.uint8] = some[split][rows]
        return patches

    assert len(list(index.pairs(read))) == 1
    assert all(rows == sorted(set(rows)) for _, rows in asked)
    assert sum(len(rows) for _, rows in asked) < 40


def test_few_patches_or_none_are_no_trouble(some: Any) -> None:
    assert bench.find({}) == []
    assert bench.find({"train": some["train"][:0]}) == []
    assert bench.find({"valid": some["valid"][:1]}) == []


def test_a_turned_patch_has_the_turned_sketch(some: Any) -> None:
    patches = some["train"][:32]
    plain = sketch(patches)
    for t, inverse in enumerate(INVERSE):
        turned = sketch(turn(patches, t))
        assert np.array_equal(turned.rows, plain.rows)
        np.testing.assert_allclose(turn_sketch(plain.vectors[:, 0], t), turned.vectors[:, 0], atol=2e-3)
        assert np.array_equal(turn(turn(patches, t), int(inverse)), patches)


def test_without_faiss_the_first_step_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DataError, match="pip install 'histoproof\\[near\\]'"):
        NearIndex()
