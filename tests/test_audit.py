"""The audit names every fault with its place, and none where there is none; damaged files are named, never a traceback."""

import csv
import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from histoproof.cli import app
from histoproof.data import identity
from histoproof.data.audit import audit, write_audit
from histoproof.data.audit_report import audit_words
from histoproof.data.officials import COUNTS, COURSE_COUNTS, OFFICIAL
from histoproof.data.pack import pack
from histoproof.data.pcam import SPLITS, official_name
from histoproof.data.store import BLOCK_ROWS, open_store
from histoproof.errors import DataError, OutputError
from histoproof.files import read_lines

Write = Callable[..., None]
Pixels = np.ndarray[Any, np.dtype[Any]]
GZIP = {"chunks": (1, 96, 96, 3), "compression": "gzip"}


def patches(n: int, seed: int = 0) -> Pixels:
    """Smooth random patches, unlike noise."""
    small = np.random.Generator(np.random.Philox(seed)).integers(20, 236, (n, 24, 24, 3))
    return np.repeat(np.repeat(small, 4, axis=1), 4, axis=2).astype(np.uint8)


def labels(n: int) -> Pixels:
    return np.arange(n) % 2


def places(result: dict[str, Any], severity: str | None = None) -> set[tuple[str, str, int | None]]:
    return {(f["kind"], f["split"], f["index"]) for f in result["findings"] if severity in (None, f["severity"])}


def details(result: dict[str, Any], kind: str) -> str:
    return "\n".join(f["detail"] for f in result["findings"] if f["kind"] == kind)


@pytest.mark.real
def test_untouched_real_patches_give_no_error(real_data: Path, real_store: Path) -> None:
    for folder in (real_data / "pcam-real", real_store):
        result = audit(folder)
        assert not result["errors"]
        assert {f["kind"] for f in result["findings"]} <= {"outlier"}
        assert {name: split["n"] for name, split in result["splits"].items()} == {
            "train": 4096,
            "valid": 768,
            "test": 768,
        }


@pytest.mark.real
def test_every_kind_planted_in_real_patches_is_found_where_it_is_and_nowhere_else(
    real_data: Path, tmp_path: Path, write_split: Write
) -> None:
    x, y = {}, {}
    for split in SPLITS:
        with h5py.File(real_data / "pcam-real" / official_name(split, "x.h5")) as file:
            x[split] = file["x"][:600].astype(np.float32)
        with h5py.File(real_data / "pcam-real" / official_name(split, "y.h5")) as file:
            y[split] = file["y"][:600].reshape(-1).astype(np.float32)
    t, noise = x["train"], np.random.Generator(np.random.Philox(3))
    t[10], t[11, 40, 40, 1], t[12] = np.nan, np.nan, np.nan
    t[13, 5, 5], t[14] = np.inf, -np.inf
    t[15, 0, 0, 0], t[16], t[17, 95, 95, 2] = 1e5, 1e5, -1
    t[18, 7, 7, 1] += 0.5
    for row, values in enumerate((0, 0, 7, 100, noise.integers(1, 4, (96, 96, 3)), noise.integers(0, 12, (96, 96, 3)))):
        t[20 + row] = values
    for row, values in enumerate((255, 255, 254, 200, noise.integers(250, 256, (96, 96, 3)))):
        t[30 + row] = values
    y["train"][40] = 2
    y["train"][41] = np.nan
    copies = {"duplicate": (100, 200), "duplicate_dihedral": (101, 201), "label_conflict": (102, 202)}
    for kind, (one, other) in copies.items():
        t[other] = np.rot90(t[one]) if kind == "duplicate_dihedral" else t[one]
        y["train"][other] = y["train"][one] if kind != "label_conflict" else 1 - y["train"][one]
    x["valid"][50], y["valid"][50] = t[103], y["train"][103]
    x["test"][60], y["test"][60] = t[104, :, ::-1], y["train"][104]
    for split in SPLITS:
        write_split(tmp_path / "d", split, x[split], y[split])
    result = audit(tmp_path / "d")
    expected = {
        *(("nan", "train", row) for row in (10, 11, 12)),
        *(("infinite", "train", row) for row in (13, 14)),
        *(("out_of_range", "train", row) for row in (15, 16, 17)),
        ("non_integer", "train", 18),
        *(("blackout", "train", row) for row in range(20, 26)),
        *(("washout", "train", row) for row in range(30, 35)),
        ("bad_label", "train", 40),
        ("bad_label", "train", 41),
        ("label_conflict", "train", 202),
        ("cross_split_duplicate", "train", 103),
        ("duplicate_dihedral", "test", 60),
    }
    assert places(result, "error") == expected
    assert {p for p in places(result, "warning") if p[0] != "outlier"} == {
        ("duplicate", "train", 200),
        ("duplicate", "train", 202),
        ("duplicate_dihedral", "train", 201),
    }
    assert {f["split"] for f in result["findings"] if f["kind"] == "dtype_bloat"} == set(SPLITS)
    packed = pack(tmp_path / "d", tmp_path / "s")
    recorded = {(f["kind"], f["split"], f["index"]) for f in read_lines(tmp_path / "s" / "findings.jsonl")}
    assert recorded == {p for p in places(result) if p[0] not in ("outlier", "dtype_bloat")}
    assert packed["findings"]["blackout"] == 6
    quarantined = open_store(tmp_path / "s").split("train").quarantined.tolist()
    assert quarantined == sorted({p[2] for p in expected if p[1] == "train"} | {102})
    again = audit(tmp_path / "s")  # what packing replaced is on record, not judged anew; nothing is doubled
    assert places(again) - {p for p in places(again) if p[0] == "outlier"} == recorded
    assert len([f for f in again["findings"] if f["kind"] != "outlier"]) == len(recorded)


def test_the_course_form_is_explained_to_the_byte(tmp_path: Path, write_split: Write) -> None:
    """float32 without compression, NaN, 1e5, black, white, unbalanced; test without labels."""
    x = patches(300).astype(np.float32)
    x[5, 3, 3, 0], x[9], x[17], x[33] = np.nan, 1e5, 0, 255
    write_split(tmp_path / "d", "train", x, (np.arange(300) < 60).astype(np.int64))
    write_split(tmp_path / "d", "valid", patches(100, 1).astype(np.float32), labels(100))
    write_split(tmp_path / "d", "test", patches(50, 2).astype(np.float32))
    result = audit(tmp_path / "d")
    assert places(result, "error") == {
        ("nan", "train", 5),
        ("out_of_range", "train", 9),
        ("blackout", "train", 17),
        ("washout", "train", 33),
    }
    assert ("class_imbalance", "train", None) in places(result, "warning")
    assert "60 of 300 labels are positive (20.0%)" in details(result, "class_imbalance")
    assert result["splits"]["test"]["positive"] is None
    table = result["size"]["splits"]["train"]
    causes = {row["cause"]: row["bytes"] for row in table["rows"]}
    assert causes["pixels as uint8"] == table["as_uint8"] == 300 * 27_648
    assert causes["dtype"] == 3 * 300 * 27_648
    assert causes["labels: dtype"] == 7 * 300
    on_disk = sum(path.stat().st_size for path in (tmp_path / "d").iterdir())
    assert sum(row["bytes"] for s in result["size"]["splits"].values() for row in s["rows"]) == on_disk
    assert result["size"]["bytes"] == on_disk == sum(split["bytes"] for split in result["splits"].values())
    words = "\n".join(audit_words(result))
    assert "dtype: float32 takes 4 bytes a value where 1 would do" in words
    assert "missing compression" in words
    assert len(words.splitlines()) < 60


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64", ">f4"])
@pytest.mark.parametrize(
    "options",
    [{}, GZIP, {"chunks": (7, 96, 96, 3), "compression": "gzip"}, {"chunks": (16, 48, 96, 3), "shuffle": True}],
)
def test_however_the_patches_are_stored_the_findings_are_the_same_and_the_bytes_add_up(
    tmp_path: Path, write_split: Write, dtype: str, options: dict[str, Any]
) -> None:
    x = patches(40)
    x[7], x[20], x[33] = x[3], np.rot90(x[4], 2), 0
    write_split(tmp_path / "d", "train", x.astype(dtype), labels(40), **options)
    result = audit(tmp_path / "d")
    assert places(result) - {("dtype_bloat", "train", None)} == {
        ("duplicate", "train", 7),
        ("duplicate_dihedral", "train", 20),
        ("blackout", "train", 33),
    }
    on_disk = sum(path.stat().st_size for path in (tmp_path / "d").iterdir())
    assert sum(row["bytes"] for row in result["size"]["splits"]["train"]["rows"]) == on_disk
    assert result["splits"]["train"]["bytes"] == on_disk


def test_pixels_divided_by_255_are_audited_after_multiplying(tmp_path: Path, write_split: Write) -> None:
    x = patches(40)
    x[7] = x[3]
    write_split(tmp_path / "d", "train", (x / 255).astype(np.float32), labels(40) * 0)
    result = audit(tmp_path / "d")
    assert places(result, "error") == {("non_integer", "train", None)}
    assert ("duplicate", "train", 7) in places(result)
    assert "divided by 255" in details(result, "non_integer")


def test_a_split_transformed_as_a_whole_is_said_once(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "train", ((patches(150) - 128.0) / 57).astype(np.float32), labels(150))
    result = audit(tmp_path / "d")
    assert places(result, "error") == {("non_integer", "train", None), ("out_of_range", "train", None)}
    assert "150 of 150 patches" in details(result, "non_integer")


# Partitions and identity


def test_slides_that_cross_splits_and_slides_of_another_split_are_found(tmp_path: Path, official: Path) -> None:
    folder = tmp_path / "d"
    shutil.copytree(official, folder)
    assert places(audit(folder), "error") == set()
    with (folder / official_name("train", "meta.csv")).open() as file:
        slide = next(csv.DictReader(file))["wsi"]
    _set_slides(folder / official_name("valid", "meta.csv"), {0: slide, 1: slide})
    _set_slides(folder / official_name("test", "meta.csv"), {3: slide})
    result = audit(folder)
    assert places(result, "error") == {("group_overlap", "train", None), ("split_swapped", "test", None)}
    assert f"wsi {slide}: " in details(result, "group_overlap")
    assert "2 in valid, 1 in test patches" in details(result, "group_overlap")
    assert "row 3" in details(result, "split_swapped")


def test_valid_and_test_swapped_are_seen_by_their_slides(tmp_path: Path, official: Path) -> None:
    folder = tmp_path / "d"
    shutil.copytree(official, folder)
    for part in ("x.h5", "y.h5", "meta.csv"):
        a, b = (folder / official_name(split, part) for split in ("valid", "test"))
        a.rename(folder / "a")
        b.rename(a)
        (folder / "a").rename(b)
    assert places(audit(folder), "error") == {("split_swapped", "valid", None), ("split_swapped", "test", None)}


def test_groups_from_a_csv_of_ones_own(tmp_path: Path, official: Path, store: Path) -> None:
    for split, n in (("train", 256), ("valid", 96), ("test", 64)):
        (tmp_path / f"{split}.csv").write_text("site\n" + "".join(f"{split[:2]}{k % 5}\n" for k in range(n)))
    assert not audit(official, groups=f"{tmp_path}/{{split}}.csv:site")["errors"]
    (tmp_path / "test.csv").write_text("site\n" + "tr3\n" * 64)
    for folder in (official, store):
        result = audit(folder, groups=f"{tmp_path}/{{split}}.csv:site")
        assert details(result, "group_overlap") == "site tr3: 51 in train, 64 in test patches"
        assert result["splits"]["train"]["groups"]["site"] == 5
    (tmp_path / "all.csv").write_text(
        "split,site\n"
        + "".join(f"{split},s\n" for split, n in (("train", 256), ("valid", 96), ("test", 64)) for _ in range(n))
    )
    assert "256 in train, 96 in valid, 64 in test" in details(
        audit(official, groups=f"{tmp_path}/all.csv:site"), "group_overlap"
    )
    for groups, message in (
        ("site", "names no column"),
        (f"{tmp_path}/absent.csv:site", "no such groups file"),
        (f"{tmp_path}/{{split}}.csv:hospital", "has no column 'hospital'"),
        (f"{tmp_path}/test.csv:site", "has 64 rows, the split has 256 patches"),
    ):
        with pytest.raises(DataError, match=message):
            audit(official, groups=groups)


def test_labels_that_contradict_the_metadata_are_counted(tmp_path: Path, official: Path) -> None:
    folder = tmp_path / "d"
    shutil.copytree(official, folder)
    with h5py.File(folder / official_name("valid", "y.h5"), "r+") as file:
        file["y"][[4, 9]] = 1 - file["y"][[4, 9]]
    result = audit(folder)
    assert places(result) == {("bad_label", "valid", None)}
    assert "2 labels are not what the metadata's center_tumor_patch says: rows 4, 9" in details(result, "bad_label")


def test_files_are_recognised_by_their_md5_also_compressed_and_swapped(
    tmp_path: Path, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "d"
    shutil.copytree(official, folder)
    paths = {file.name: folder / file.name for file in OFFICIAL}
    packed = folder / (official_name("train", "y.h5") + ".gz")
    packed.write_bytes(gzip.compress(paths[official_name("train", "y.h5")].read_bytes()))
    stand_ins = {identity._md5(paths[file.name]): file.md5 for file in OFFICIAL}
    stand_ins[identity._md5(packed)] = OFFICIAL[1].gz_md5
    real = identity._md5
    monkeypatch.setattr(identity, "_md5", lambda path: stand_ins.get(real(path), "0"))
    result = audit(folder)
    assert not result["errors"]
    known = {file["name"]: file["is"] for file in result["files"]}
    for name in paths:
        assert known[name] == f"the official {name}, unpacked"
    assert known[packed.name].endswith("compressed; gunzip it")
    a, b = paths[official_name("valid", "y.h5")], paths[official_name("test", "y.h5")]
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    swapped = audit(folder)
    assert {("split_swapped", "valid", None), ("split_swapped", "test", None)} <= places(swapped, "error")
    assert f"is the official file of test (md5 {OFFICIAL[5].md5})" in details(swapped, "split_swapped")
    unknown = audit(folder, checksums=False)
    assert {file["md5"] for file in unknown["files"]} == {None}


def test_counts_tell_the_official_files_and_the_courses_subset() -> None:
    assert "as many as the official train split" in identity.known_counts("train", COUNTS["train"])
    assert "the course's subset, 60% of" in identity.known_counts("train", COURSE_COUNTS["train"])
    assert "1.6% of the official train split's 262,144" in identity.known_counts("train", 4096)


# Stores


def test_a_store_with_changed_bytes_is_named_by_its_block(tmp_path: Path, write_split: Write) -> None:
    n = BLOCK_ROWS + 10
    write_split(tmp_path / "d", "train", patches(n), labels(n))
    pack(tmp_path / "d", tmp_path / "s")
    assert not audit(tmp_path / "s")["errors"]
    images = np.load(tmp_path / "s" / "train" / "images.npy", mmap_mode="r+")
    images[BLOCK_ROWS + 3, 40, 40, 0] ^= 1
    images.flush()
    marks = np.load(tmp_path / "s" / "train" / "labels.npy")
    marks[0] ^= 1
    np.save(tmp_path / "s" / "train" / "labels.npy", marks)
    result = audit(tmp_path / "s")
    assert places(result, "error") == {("checksum_mismatch", "train", None)}
    assert f"images.npy: patches {BLOCK_ROWS} to {n - 1} are not what" in details(result, "checksum_mismatch")
    assert "labels.npy is not what" in details(result, "checksum_mismatch")
    assert not audit(tmp_path / "s", checksums=False)["errors"]


# Damage


def test_a_file_cut_short_anywhere_is_named(tmp_path: Path, write_split: Write) -> None:
    for number, options in enumerate(({}, GZIP)):
        folder = tmp_path / str(number)
        write_split(folder, "train", patches(30), labels(30), **options)
        write_split(folder, "valid", patches(20, 1), labels(20), **options)
        path = folder / official_name("train", "x.h5")
        content = path.read_bytes()
        for cut in np.random.Generator(np.random.Philox(number)).integers(0, len(content), 20):
            path.write_bytes(content[:cut])
            result = audit(folder)
            assert ("truncated_file", "train", None) in places(result, "error")
            assert path.name in details(result, "truncated_file")
            assert list(result["splits"]) == ["valid"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1), st.integers(1, 400), st.integers(0, 255))
def test_bytes_overwritten_anywhere_are_answered_with_words(
    tmp_path: Path, write_split: Write, where: float, length: int, byte: int
) -> None:
    write_split(tmp_path / "d", "train", patches(12), labels(12), **GZIP)
    path = tmp_path / "d" / official_name("train", "x.h5")
    content = bytearray(path.read_bytes())
    at = int(where * (len(content) - 1))
    content[at : at + length] = bytes([byte]) * len(content[at : at + length])
    path.write_bytes(content)
    with suppress(DataError):  # words; anything else is a traceback
        audit(tmp_path / "d")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "0 bytes"), (b"\x89HDX\r\n\x1a\n" + bytes(900), "no readable HDF5"), (b"<!doctype html><p>404", "web page")],
)
def test_what_is_no_hdf5_is_named_and_the_rest_audited(
    tmp_path: Path, write_split: Write, content: bytes, words: str
) -> None:
    write_split(tmp_path / "d", "train", patches(20), labels(20))
    write_split(tmp_path / "d", "valid", patches(20, 1), labels(20))
    bad = tmp_path / "d" / official_name("valid", "x.h5")
    bad.write_bytes(content)
    result = audit(tmp_path / "d")
    assert bad.name in details(result, "truncated_file")
    assert words in details(result, "truncated_file")
    (tmp_path / "d" / official_name("train", "x.h5")).unlink()
    with pytest.raises(DataError, match="no split can be audited") as error:
        audit(tmp_path / "d")
    assert bad.name in str(error.value)


def test_faulty_labels_leave_the_pixels_to_be_audited(tmp_path: Path, write_split: Write) -> None:
    x = patches(20)
    x[4] = 0
    write_split(tmp_path / "d", "train", x, labels(20))
    path = tmp_path / "d" / official_name("train", "y.h5")
    cases: list[tuple[Any, str, str]] = [
        (np.zeros(15, np.uint8), "length_mismatch", "x holds 20 patches, y holds 15 labels"),
        (np.zeros((20, 2), np.uint8), "wrong_shape", "y has shape (20, 2)"),
        (np.full(20, 7, np.uint8), "bad_label", "no label is 0 or 1"),
        (np.array([b"a"] * 20, dtype="S1"), "bad_label", "dtype"),
        (np.uint8(1), "wrong_shape", "y has shape ()"),
    ]
    for y, kind, words in cases:
        with h5py.File(path, "w") as file:
            file["y"] = y
        result = audit(tmp_path / "d")
        assert places(result, "error") == {(kind, "train", None), ("blackout", "train", 4)}
        assert words in details(result, kind)
        assert result["splits"]["train"]["positive"] is None
    path.write_bytes(b"")
    assert ("truncated_file", "train", None) in places(audit(tmp_path / "d"), "error")


def test_faulty_pixels_are_named(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "valid", patches(20), labels(20))
    cases: list[tuple[str, Any, str]] = [
        ("x", np.zeros((4, 64, 64, 3), np.uint8), "x has shape (4, 64, 64, 3)"),
        ("x", np.zeros((4, 96, 96), np.uint8), "x has shape (4, 96, 96)"),
        ("x", np.zeros((0, 96, 96, 3), np.uint8), "holds no patches"),
        ("x", np.full((2, 96, 96, 3), b"a", dtype="S1"), "dtype"),
        ("images", np.zeros((4, 96, 96, 3), np.uint8), "has no dataset 'x'"),
        ("x/x", np.zeros((4, 96, 96, 3), np.uint8), "'x' is a group"),
        ("x", h5py.SoftLink("/nowhere"), "has no dataset 'x'"),
        ("x", h5py.ExternalLink("nowhere.h5", "x"), "has no dataset 'x'"),
    ]
    for name, x, words in cases:
        with h5py.File(tmp_path / "d" / official_name("train", "x.h5"), "w") as file:
            file[name] = x
        result = audit(tmp_path / "d")
        assert places(result, "error") == {("wrong_shape", "train", None)}
        assert words in details(result, "wrong_shape")


def test_a_damaged_chunk_costs_its_patch_and_no_other(tmp_path: Path, write_split: Write) -> None:
    x = patches(30)
    x[25] = x[3]
    write_split(tmp_path / "d", "train", x, labels(30), **GZIP)
    path = tmp_path / "d" / official_name("train", "x.h5")
    with h5py.File(path) as file:
        at = [file["x"].id.get_chunk_info(row).byte_offset for row in (16, 17, 22)]
    with path.open("r+b") as raw:
        for offset in at:
            raw.seek(offset + 20)
            raw.write(b"\0" * 200)
    result = audit(tmp_path / "d")
    assert places(result) == {
        ("truncated_file", "train", 16),
        ("truncated_file", "train", 22),
        ("duplicate", "train", 25),
    }
    assert "patches 16 to 17 cannot be read" in details(result, "truncated_file")


def test_a_chunk_without_a_size_is_never_given_to_the_library(tmp_path: Path, write_split: Write) -> None:
    """HDF5 itself crashes on one with these filters."""
    x = patches(20)
    options = {"chunks": (5, 96, 96, 3), "compression": "gzip", "shuffle": True, "fletcher32": True}
    write_split(tmp_path / "d", "train", x, labels(20), **options)
    path = tmp_path / "d" / official_name("train", "x.h5")
    with h5py.File(path) as file:
        size = file["x"].id.get_chunk_info(2).size
    content = path.read_bytes()
    entry = struct.pack("<IIQ", size, 0, 10)  # size, filter mask, first row
    assert content.count(entry) == 1
    path.write_bytes(content.replace(entry, struct.pack("<IIQ", 0, 0, 10)))
    result = audit(tmp_path / "d")
    assert places(result) == {("truncated_file", "train", 10)}
    assert "patches 10 to 14 cannot be read (the file's index of chunks is damaged here)" in details(
        result, "truncated_file"
    )


def test_missing_things_are_told_apart(tmp_path: Path, official: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        audit(tmp_path / "absent")
    with pytest.raises(DataError, match="is no folder"):
        audit(official / official_name("train", "x.h5"))
    with pytest.raises(DataError, match="holds no PatchCamelyon split"):
        audit(tmp_path)
    (tmp_path / (official_name("test", "x.h5") + ".gz")).write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="gunzip"):
        audit(tmp_path)
    (tmp_path / official_name("test", "x.h5")).symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a link to something that is not there"):
        audit(tmp_path)
    (tmp_path / official_name("test", "x.h5")).unlink()
    os.mkfifo(tmp_path / official_name("test", "x.h5"))
    with pytest.raises(DataError, match="is no regular file"):
        audit(tmp_path)


def test_a_pipe_under_the_name_of_a_small_file_does_not_hang_the_audit(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "train", patches(20))
    os.mkfifo(tmp_path / "d" / official_name("train", "y.h5"))
    os.mkfifo(tmp_path / "d" / official_name("train", "meta.csv"))
    result = audit(tmp_path / "d")
    assert places(result) == {("truncated_file", "train", None)}
    assert details(result, "truncated_file").count("is no regular file") == 2


def test_a_faulty_meta_file_is_named_and_the_rest_audited(tmp_path: Path, official: Path) -> None:
    folder = tmp_path / "d"
    shutil.copytree(official, folder)
    meta = folder / official_name("valid", "meta.csv")
    lines = meta.read_text().splitlines()
    for content, kind in (
        ("\n".join(lines[:50]).encode(), "length_mismatch"),
        (b"", "truncated_file"),
        (b"wsi\n\xff\xfe\x00\n", "truncated_file"),
    ):
        meta.write_bytes(content)
        result = audit(folder)
        assert places(result, "error") == {(kind, "valid", None)}
        assert meta.name in details(result, kind)


# The command


def test_the_command_prints_words_or_json_and_writes_the_whole_result(tmp_path: Path, write_split: Write) -> None:
    x = patches(60)
    x[5] = 0
    write_split(tmp_path / "d", "train", x, labels(60))
    words = CliRunner().invoke(app, ["data", "audit", str(tmp_path / "d"), "--out", str(tmp_path / "out")])
    assert words.exit_code == 1
    assert "train 5; e.g. train 5: every value is 0" in words.stdout
    assert "not checked: near-duplicates (not asked for (--near))" in words.stdout
    done = CliRunner().invoke(app, ["data", "audit", str(tmp_path / "d"), "--json"])
    assert done.exit_code == 1
    result = json.loads(done.stdout)
    assert set(result["splits"]["train"]) >= {"n", "positive", "dtype", "bytes", "shape", "chunks", "filters"}
    assert all(set(f) == {"kind", "severity", "split", "index", "detail", "other"} for f in result["findings"])
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == result
    assert read_lines(tmp_path / "out" / "findings.jsonl") == result["findings"]
    with pytest.raises(OutputError, match="never overwritten"):
        write_audit(result, tmp_path / "out")
    write_split(tmp_path / "good", "train", patches(60), labels(60))
    assert CliRunner().invoke(app, ["data", "audit", str(tmp_path / "good")]).exit_code == 0


def _set_slides(path: Path, slides: dict[int, str]) -> None:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for row, slide in slides.items():
        rows[row]["wsi"] = slide
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
