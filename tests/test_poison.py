"""Poisoned copies: what truth.csv says is there, nothing else changed, and the same spec gives the same arrays."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from histoproof.data.pack import pack
from histoproof.data.pcam import SplitName, find_splits, official_name, read_labels
from histoproof.data.poison import TRUTH_COLUMNS, faults, poison, read_poison_spec
from histoproof.data.poison import spec as poison_spec
from histoproof.data.poison.spec import PoisonSpec
from histoproof.data.truth import Truth, read_truth
from histoproof.errors import ConfigError, DataError, OutputError
from histoproof.specfile import parse_spec

from .conftest import REPOSITORY
from .test_cli import as_json, histoproof

PATCH_KINDS = (
    "nan",
    "infinite",
    "out_of_range",
    "non_integer",
    "blackout",
    "washout",
    "duplicate",
    "duplicate_dihedral",
    "label_conflict",
    "near_duplicate",
    "label_flip",
    "bad_label",
    "outlier",
)
EVERY = [{"kind": kind, "split": "train", "count": 4} for kind in PATCH_KINDS] + [
    {"kind": "cross_split_duplicate", "split": "train", "from": "valid", "count": 4}
]


def spec(plant: list[dict[str, Any]], **keys: Any) -> PoisonSpec:
    return parse_spec({"plant": plant, **keys}, PoisonSpec)


def images(folder: Path, split: SplitName) -> NDArray[Any]:
    with h5py.File(folder / official_name(split, "x.h5")) as file:
        pixels: NDArray[Any] = file["x"][...]
        return pixels


def labels(folder: Path, split: SplitName) -> NDArray[np.float64]:
    found = read_labels(next(s for s in find_splits(folder) if s.name == split))
    assert found is not None
    return found


def poisoned(official: Path, out: Path, *plant: dict[str, Any], **keys: Any) -> tuple[dict[str, Any], list[Truth]]:
    result = poison(official, out, spec(list(plant), **keys))
    return result, read_truth(out / "truth.csv")


def test_every_kind_is_planted_as_often_as_asked_and_nothing_else_is_touched(official: Path, tmp_path: Path) -> None:
    result, truth = poisoned(official, tmp_path / "p", *EVERY)
    kinds = ["label_suspect" if kind == "label_flip" else kind for kind in PATCH_KINDS]
    assert result["planted"] == dict.fromkeys([*kinds, "cross_split_duplicate"], 4)
    touched = [row.index for row in truth if row.split == "train" and row.index is not None]
    assert len(touched) == len(set(touched)) == 4 * len(EVERY)
    before, after = images(official, "train"), images(tmp_path / "p", "train")
    rest = np.setdiff1d(np.arange(256), touched)
    assert np.array_equal(before[rest], after[rest])
    assert np.array_equal(labels(official, "train")[rest], labels(tmp_path / "p", "train")[rest])
    for split in ("valid", "test"):
        for part in ("x.h5", "y.h5", "meta.csv"):
            name = official_name(split, part)
            if part == "meta.csv":
                assert (official / name).read_bytes() == (tmp_path / "p" / name).read_bytes()
        assert np.array_equal(images(official, split), images(tmp_path / "p", split))


def test_each_fault_is_what_its_name_says(official: Path, tmp_path: Path) -> None:
    _, truth = poisoned(official, tmp_path / "p", *EVERY)
    x, y = images(tmp_path / "p", "train"), labels(tmp_path / "p", "train")
    clean_y = labels(official, "train")
    holds: dict[str, Callable[[NDArray[Any]], bool]] = {
        "nan": lambda p: bool(np.isnan(p).any()),
        "infinite": lambda p: bool(np.isinf(p).any()),
        "out_of_range": lambda p: bool(((p < 0) | (p > 255)).any() and np.isfinite(p).all()),
        "non_integer": lambda p: bool((p != np.rint(p)).any() and p.min() >= 0 and p.max() <= 255),
        "blackout": lambda p: bool((p == 0).all()),
        "washout": lambda p: bool((p == 255).all()),
    }
    for row in truth:
        assert row.index is not None
        patch = x[row.index]
        if row.kind in holds:
            assert holds[row.kind](patch), row
        if row.kind == "label_suspect":
            assert y[row.index] == 1 - clean_y[row.index]
        if row.kind == "bad_label":
            assert y[row.index] == 2
        if row.other_index is not None:
            assert row.other_split is not None
            source = images(official, row.other_split)[row.other_index]  # type: ignore[arg-type]
            turned = [np.array_equal(patch, faults.dihedral(source, turn)[0]) for turn in range(1, 8)]
            label = labels(official, row.other_split)[row.other_index]  # type: ignore[arg-type]
            assert y[row.index] == (1 - label if row.kind == "label_conflict" else label)
            same = np.array_equal(patch, source)
            assert same == (row.kind in ("duplicate", "cross_split_duplicate", "label_conflict")), row
            assert any(turned) == (row.kind == "duplicate_dihedral"), row
            if row.kind == "near_duplicate" and not row.detail.startswith("shift"):
                assert np.abs(patch - source.astype(float)).mean() < 12


def test_what_is_copied_carries_no_fault_itself(official: Path, tmp_path: Path) -> None:
    _, truth = poisoned(official, tmp_path / "p", *EVERY)
    targets = {(row.split, row.index) for row in truth}
    sources = [(row.other_split, row.other_index) for row in truth if row.other_index is not None]
    assert targets.isdisjoint(sources)
    assert len(sources) == len(set(sources))


def test_a_fault_that_uint8_cannot_hold_makes_its_split_float32_and_says_so(official: Path, tmp_path: Path) -> None:
    plant = {"kind": "nan", "split": "train", "count": 1}
    result, _ = poisoned(official, tmp_path / "p", plant, dtype="uint8")
    assert {name: split["dtype"] for name, split in result["splits"].items()} == {
        "train": "float32",
        "valid": "uint8",
        "test": "uint8",
    }
    assert result["notes"] == ["train: written as float32, as uint8 cannot hold nan"]


def test_same_spec_same_arrays_and_another_seed_other_patches(official: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        poison(official, tmp_path / name, spec(EVERY, seed=seed))
    a, b, c = (images(tmp_path / name, "train") for name in "abc")
    assert a.tobytes() == b.tobytes() != c.tobytes()
    assert (tmp_path / "a" / "truth.csv").read_bytes() == (tmp_path / "b" / "truth.csv").read_bytes()
    assert labels(tmp_path / "a", "train").tobytes() == labels(tmp_path / "b", "train").tobytes()


def test_a_higher_rate_poisons_the_same_patches_and_more(official: Path, tmp_path: Path) -> None:
    indices = []
    for rate in (0.1, 0.3):
        _, truth = poisoned(
            official, tmp_path / str(rate), {"kind": "washout", "split": "train", "rate": rate, "of": "positive"}
        )
        indices.append({row.index for row in truth})
    assert (len(indices[0]), len(indices[1])) == (26, 77)
    assert indices[0] < indices[1]
    y = labels(official, "train")
    assert all(y[index] == 1 for index in indices[1] if index is not None)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(1, 8), min_size=len(EVERY), max_size=len(EVERY)), seed=st.integers(0, 2**62))
def test_faults_never_overlap(
    counts: list[int], seed: int, official: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    plant = [{**entry, "count": count} for entry, count in zip(EVERY, counts, strict=True)]
    out = tmp_path_factory.mktemp("law") / "p"
    _, truth = poisoned(official, out, *plant, seed=seed, compression="none")
    used = [(row.split, row.index) for row in truth]
    used += [(row.other_split or "", row.other_index) for row in truth if row.other_index is not None]
    assert len(used) == len(set(used))
    assert len(truth) == sum(counts)


@pytest.mark.parametrize("layout", [{}, {"chunks": (7, 96, 48, 3), "compression": "lzf"}, {"chunks": (1, 96, 96, 3)}])
def test_chunks_and_filters_stay_unless_asked_otherwise(
    layout: dict[str, Any], tmp_path: Path, write_split: Callable[..., None]
) -> None:
    x = np.random.default_rng(3).integers(0, 256, (20, 96, 96, 3), dtype=np.uint8)
    write_split(tmp_path / "d", "train", x, np.arange(20) % 2, **layout)
    poison(tmp_path / "d", tmp_path / "p", spec([{"kind": "duplicate", "split": "train", "count": 3}]))
    poison(tmp_path / "d", tmp_path / "z", spec([], compression="gzip", dtype="float32"))
    with h5py.File(tmp_path / "p" / official_name("train", "x.h5")) as file:
        assert (file["x"].chunks, file["x"].compression) == (layout.get("chunks"), layout.get("compression"))
    with h5py.File(tmp_path / "z" / official_name("train", "x.h5")) as file:
        assert (file["x"].chunks, file["x"].compression, file["x"].dtype) == ((1, 96, 96, 3), "gzip", np.float32)
        assert np.array_equal(file["x"][...], x)
    assert [row.kind for row in read_truth(tmp_path / "z" / "truth.csv")] == ["dtype_bloat"]


def test_blank_patches_are_never_copied(tmp_path: Path, write_split: Callable[..., None]) -> None:
    x = np.zeros((12, 96, 96, 3), dtype=np.uint8)
    x[:4] = np.random.default_rng(3).integers(0, 256, (4, 96, 96, 3))
    write_split(tmp_path / "d", "train", x, np.arange(12) % 2)
    done = 0
    for seed in range(20):  # with luck the four real patches are not among the targets
        try:
            poison(
                tmp_path / "d",
                tmp_path / f"p{seed}",
                spec([{"kind": "duplicate", "split": "train", "count": 2}], seed=seed),
            )
        except DataError:  # the patches that could be copied are targets
            continue
        done += 1
        assert all((row.other_index or 0) < 4 for row in read_truth(tmp_path / f"p{seed}" / "truth.csv"))
    assert done


def test_whole_file_faults(official: Path, tmp_path: Path) -> None:
    plant: list[dict[str, Any]] = [
        {"kind": "dtype_bloat", "split": "train"},
        {"kind": "class_imbalance", "split": "train", "of": "positive", "ratio": 0.2},
        {"kind": "washout", "split": "train", "count": 5, "of": "negative"},
        {"kind": "length_mismatch", "split": "valid", "by": 3},
        {"kind": "wrong_shape", "split": "test", "how": "flat"},
        {"kind": "group_overlap", "split": "test", "from": "train", "slides": 2},
        {"kind": "truncated_file", "split": "test", "file": "y", "at": 0.25},
    ]
    _, truth = poisoned(official, tmp_path / "p", *plant)
    assert {row.kind for row in truth if row.index is None} == {entry["kind"] for entry in plant} - {"washout"}
    with h5py.File(tmp_path / "p" / official_name("train", "x.h5")) as file:
        x = file["x"]
        assert (x.dtype, x.chunks, x.shape[0]) == (np.float32, None, 160)
        with h5py.File(tmp_path / "p" / official_name("train", "y.h5")) as labels_file:
            y = labels_file["y"][...].reshape(-1)
        assert (len(y), y.mean()) == (160, 0.2)
        white = [row.index for row in truth if row.kind == "washout" and row.index is not None]
        assert len(white) == 5
        assert (x[sorted(white)] == 255).all()
        assert not y[white].any()
    meta = (tmp_path / "p" / official_name("train", "meta.csv")).read_text().splitlines()
    assert len(meta) == 161
    assert [row.split(",")[3] == "True" for row in meta[1:]] == (y == 1).tolist()
    with h5py.File(tmp_path / "p" / official_name("valid", "y.h5")) as file:
        assert len(file["y"]) == 93
    with h5py.File(tmp_path / "p" / official_name("test", "x.h5")) as file:
        assert file["x"].shape == (64, 27648)
    size = (official / official_name("test", "y.h5")).stat().st_size
    assert (tmp_path / "p" / official_name("test", "y.h5")).stat().st_size == size // 4
    slides = [
        {
            line.split(",")[4]
            for line in (tmp_path / "p" / official_name(split, "meta.csv")).read_text().splitlines()[1:]
        }
        for split in ("train", "test")
    ]
    assert len(slides[0] & slides[1]) == 2


def test_swapped_splits_take_their_metadata_along(official: Path, tmp_path: Path) -> None:
    _, truth = poisoned(
        official, tmp_path / "p", {"kind": "split_swapped"}, {"kind": "blackout", "split": "valid", "count": 2}
    )
    assert len(images(tmp_path / "p", "valid")) == 64
    assert len(images(tmp_path / "p", "test")) == 96
    name = official_name("test", "meta.csv")
    assert (tmp_path / "p" / official_name("valid", "meta.csv")).read_bytes() == (official / name).read_bytes()
    black = [row.index for row in truth if row.kind == "blackout" and row.index is not None]
    assert not images(tmp_path / "p", "valid")[black].any()
    assert {(row.kind, row.split) for row in truth} >= {("split_swapped", "valid"), ("split_swapped", "test")}


def test_packing_the_copy_finds_what_was_planted(official: Path, tmp_path: Path) -> None:
    kinds = ("nan", "infinite", "out_of_range", "non_integer", "bad_label")
    plant = [{"kind": kind, "split": "valid", "count": 3} for kind in kinds]
    poisoned(official, tmp_path / "p", *plant)
    found = pack(tmp_path / "p", tmp_path / "s")["findings"]
    assert {kind: found[kind] for kind in kinds} == dict.fromkeys(kinds, 3)


def test_only_the_splits_that_are_asked_for_are_copied(official: Path, tmp_path: Path) -> None:
    result, _ = poisoned(official, tmp_path / "p", splits=["train", "valid"])
    assert list(result["splits"]) == ["train", "valid"]
    assert not list((tmp_path / "p").glob("*test*"))


def test_the_spec_is_kept_resolved_and_reads_back(official: Path, tmp_path: Path) -> None:
    poisoned(official, tmp_path / "p", *EVERY)
    kept = json.loads((tmp_path / "p" / "poison.json").read_text())["spec"]
    assert parse_spec(kept, PoisonSpec) == spec(EVERY)
    assert (tmp_path / "p" / "truth.csv").read_text().splitlines()[0] == ",".join(TRUTH_COLUMNS)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        ([{"kind": "nan", "split": "train", "count": 257}], "nan is to change 257 patches, but only 256"),
        ([{"kind": "duplicate", "split": "train", "rate": 0.6}], "not enough patches to copy"),
        ([{"kind": "class_imbalance", "split": "valid", "ratio": 0.49}, *[]], None),
        ([{"kind": "length_mismatch", "split": "test", "by": 64}], "leaves no label"),
    ],
)
def test_what_there_is_no_room_for_is_refused_in_words_and_leaves_nothing(
    plant: list[dict[str, Any]], message: str | None, official: Path, tmp_path: Path
) -> None:
    if message is None:
        poisoned(official, tmp_path / "p", *plant)
        return
    with pytest.raises(DataError, match=message):
        poisoned(official, tmp_path / "p", *plant)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten(official: Path, tmp_path: Path) -> None:
    poisoned(official, tmp_path / "p")
    with pytest.raises(OutputError, match="never overwritten"):
        poisoned(official, tmp_path / "p")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plant:\n  - {kind: nam, split: train, rate: 0.1}", "s.yaml:2: plant.0.kind = 'nam' is not valid; did you mean nan?"),
        ("plant:\n  - kind: nan\n    split: train\n    rate: 2", "s.yaml:5: plant.0.rate = 2"),
        ("plant:\n  - {kind: nan, split: trian, rate: 0.1}", "plant.0.split = 'trian' is not valid (valid: one of train,"),
        ("plant:\n  - {kind: nan, split: train}", "s.yaml:2: plant.0: give either rate"),
        ("plant:\n  - {kind: washout, split: train, rate: 0.1, lvel: 3}", "there is no key plant.0.lvel; did you mean level?"),
        ("plant:\n  - {kind: cross_split_duplicate, split: train, rate: 0.1}", "the key plant.0.from is missing (valid: one of"),
        ("plant:\n  - {kind: cross_split_duplicate, split: train, from: train, rate: 0.1}", "from must be another"),
        ("plant:\n  - {kind: out_of_range, split: train, rate: 0.1, values: [3]}", "3 in values is within 0-255"),
        ("sed: 1", "s.yaml:1: there is no key sed; did you mean seed?"),
        ("dtype: int8", "dtype = 'int8' is not valid (valid: one of uint8, float32, keep)"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_spec_is_told_with_its_line_and_what_is_valid(
    text: str, message: str, official: Path, tmp_path: Path
) -> None:
    (tmp_path / "s.yaml").write_text(text + "\n" if "rate: 2" not in text else "seed: 1\n" + text + "\n")
    with pytest.raises(ConfigError) as caught:
        poison(official, tmp_path / "p", tmp_path / "s.yaml")
    assert message in str(caught.value)
    assert not (tmp_path / "p").exists()


def test_the_command(official: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("plant:\n  - {kind: nan, split: train, count: 2}\n")
    done = histoproof("data", "poison", official, tmp_path / "p", "--spec", tmp_path / "s.yaml", "--json")
    assert (done.returncode, as_json(done)["planted"]) == (0, {"nan": 2})
    again = histoproof("data", "poison", official, tmp_path / "p", "--spec", tmp_path / "s.yaml")
    assert again.returncode == 2
    assert "Traceback" not in again.stderr


def test_every_kind_of_the_spec_is_told_of_in_the_docs() -> None:
    text = (REPOSITORY / "docs" / "poison.md").read_text()
    schema = PoisonSpec.model_json_schema()
    for name, section in schema["$defs"].items():
        kind = section["properties"]["kind"]
        for value in kind.get("enum", [kind.get("const")]):
            assert f"`{value}`" in text, f"{value} of {name}"
        for key in section["properties"]:
            assert f"`{key}`" in text or f"{key}" in text
    assert {type(plant) for plant in spec(EVERY).plant} <= {getattr(poison_spec, n) for n in poison_spec.__all__}


def test_the_shipped_spec_fits_the_real_patches(real_data: Path, tmp_path: Path) -> None:
    shipped = REPOSITORY / "configs" / "poison" / "each-1pct.yaml"
    quick = read_poison_spec(shipped).model_copy(update={"compression": "none"})
    counts = poison(real_data / "pcam-real", tmp_path / "p", quick)["planted"]
    entries = yaml.safe_load(shipped.read_text())["plant"]
    sizes = {"train": 4096, "valid": 768, "test": 768}
    assert sum(counts.values()) == sum(round(sizes[e["split"]] * e["rate"]) for e in entries)
    assert all(row.detail for row in read_truth(tmp_path / "p" / "truth.csv") if row.kind == "near_duplicate")
