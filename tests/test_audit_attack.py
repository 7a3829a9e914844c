"""The audit under attack: files as careless or unlucky people make them, and stores that were edited by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from histoproof.cli import app
from histoproof.data import audit as audit_module
from histoproof.data.audit import audit
from histoproof.data.audit_report import audit_words
from histoproof.data.officials import COUNTS, COURSE_COUNTS
from histoproof.data.pack import pack
from histoproof.data.partitions import count_findings
from histoproof.data.pcam import official_name
from histoproof.data.sources import open_sources
from histoproof.errors import DataError

Write = Callable[..., None]
Pixels = np.ndarray[Any, np.dtype[Any]]


def patches(n: int, seed: int = 0) -> Pixels:
    """Smooth random patches, unlike noise."""
    small = np.random.Generator(np.random.Philox(seed)).integers(20, 236, (n, 24, 24, 3))
    return np.repeat(np.repeat(small, 4, axis=1), 4, axis=2).astype(np.uint8)


def places(result: dict[str, Any]) -> set[tuple[str, str, int | None]]:
    return {(f["kind"], f["split"], f["index"]) for f in result["findings"] if f["severity"] == "error"}


@pytest.fixture
def packed(tmp_path: Path, write_split: Write) -> Path:
    """A store of 20 patches with one NaN, one black patch and a label conflict."""
    x = patches(20).astype(np.float32)
    x[3, 0, 0, 0], x[4], x[9] = np.nan, 0, x[8]
    write_split(tmp_path / "official", "train", x, np.arange(20) % 2)
    pack(tmp_path / "official", tmp_path / "store")
    return tmp_path / "store"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "nonsense"},
        {"kind": ["nan"]},
        {"severity": "fatal"},
        {"index": "3"},
        {"index": 1.5},
        {"index": True},
        {"index": -1},
        {"index": 20},
        {"detail": None},
        {"split": None},
        {"split": "elsewhere"},
        {"other": 3},
        {"other": {"split": "train"}},
        {"surprise": 1},
    ],
)
def test_a_recorded_finding_that_is_none_is_refused_with_its_line(packed: Path, change: dict[str, Any]) -> None:
    path = packed / "findings.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **change})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"findings\.jsonl: line 2 is no finding"):
        audit(packed)


def test_recorded_findings_that_do_not_explain_the_quarantine_are_a_finding(packed: Path) -> None:
    assert not [f for f in audit(packed)["findings"] if f["kind"] == "checksum_mismatch"]
    (packed / "findings.jsonl").write_text("")
    for _ in range(2):  # emptied; then gone
        found = [f["detail"] for f in audit(packed)["findings"] if f["kind"] == "checksum_mismatch"]
        assert found
        assert "4 patches in quarantine (first: 3)" in found[0]
        (packed / "findings.jsonl").unlink(missing_ok=True)


@pytest.mark.parametrize("blocks", [[], None, "abc", ["a", "b"]])
def test_a_manifest_without_its_blocks_is_a_damaged_store(packed: Path, blocks: Any) -> None:
    manifest = json.loads((packed / "manifest.json").read_text())
    manifest["splits"]["train"]["images"]["blocks"] = blocks
    (packed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="damaged"):
        audit(packed)
    manifest["splits"] = []
    (packed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="damaged"):
        audit(packed)


@pytest.mark.parametrize("shape", [(1, 12), (1, 1, 12, 1), (), None])
def test_labels_of_an_odd_shape_are_said_to_be_that(
    tmp_path: Path, write_split: Write, shape: tuple[int, ...] | None
) -> None:
    write_split(tmp_path, "train", patches(12))
    with h5py.File(tmp_path / official_name("train", "y.h5"), "w") as file:
        if shape is None:
            file["y"] = h5py.Empty("u1")
        else:
            file["y"] = np.resize(np.array([0, 1], np.uint8), shape)
    result = audit(tmp_path)
    assert places(result) == {("wrong_shape", "train", None)}
    assert sum(row["bytes"] for row in result["size"]["rows"]) == sum(p.stat().st_size for p in tmp_path.iterdir())


@pytest.mark.parametrize("text", ["wsi;center_tumor_patch\n" + "a;True\n" * 12, "\0" * 400, "hello\n" + "x\n" * 12])
def test_metadata_with_no_column_that_is_known_is_a_finding(tmp_path: Path, write_split: Write, text: str) -> None:
    write_split(tmp_path, "train", patches(12), np.arange(12) % 2)
    (tmp_path / official_name("train", "meta.csv")).write_text(text)
    assert places(audit(tmp_path)) == {("truncated_file", "train", None)}


def test_pixels_divided_by_255_are_known_among_faults(tmp_path: Path, write_split: Write) -> None:
    x = (patches(30) / 255).astype(np.float32)
    x[2], x[5, 7, 7], x[6], x[7] = np.nan, 1e5, 0, 1
    write_split(tmp_path, "train", x, np.arange(30) % 2)
    expected = {("nan", 2), ("out_of_range", 5), ("blackout", 6), ("washout", 7), ("non_integer", None)}
    assert places(audit(tmp_path)) == {(kind, "train", index) for kind, index in expected}


def test_values_of_more_than_8_bytes_are_refused(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path, "train", patches(2).astype(np.longdouble))
    with pytest.raises(DataError, match="x has dtype float128"):
        audit(tmp_path)


def test_a_value_just_beyond_255_is_not_called_255(tmp_path: Path, write_split: Write) -> None:
    x = patches(2).astype(np.float32)
    x[1, 0, 0, 0] = np.nextafter(np.float32(255), np.float32(256))
    write_split(tmp_path, "train", x)
    assert "the farthest 255.00001" in next(
        f["detail"] for f in audit(tmp_path)["findings"] if f["kind"] == "out_of_range"
    )


def _never_written(folder: Path, split: Any, n: int, **options: Any) -> None:
    with h5py.File(folder / official_name(split, "x.h5"), "w") as file:
        file.create_dataset("x", (n, 96, 96, 3), "u1", **options)


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 96, 96, 3), "compression": "gzip"}])
def test_patches_that_were_never_written_are_said_to_be_that(tmp_path: Path, options: dict[str, Any]) -> None:
    _never_written(tmp_path, "train", 12, **options)
    result = audit(tmp_path)
    assert ("truncated_file", "train", None) in places(result)
    assert {index for kind, _, index in places(result) if kind == "blackout"} == set(range(12))
    assert "never written" in "\n".join(audit_words(result))


def test_counts_of_train_under_another_name_are_a_swap(tmp_path: Path) -> None:
    gzip = {"chunks": (64, 96, 96, 3), "compression": "gzip"}
    _never_written(tmp_path, "train", COUNTS["valid"], **gzip)
    for n in (COUNTS["train"], COURSE_COUNTS["train"]):
        _never_written(tmp_path, "valid", n, **gzip)
        found = count_findings(open_sources(tmp_path)[0])
        assert {(f.kind, f.severity, f.split) for f in found} == {
            ("split_swapped", "error", "valid"),
            ("split_swapped", "error", "train"),
        }
    _never_written(tmp_path, "train", COURSE_COUNTS["train"], **gzip)
    _never_written(tmp_path, "valid", COURSE_COUNTS["valid"], **gzip)
    assert not count_findings(open_sources(tmp_path)[0])


def test_the_size_table_names_other_datasets_and_filters_that_save_nothing(tmp_path: Path) -> None:
    path = tmp_path / official_name("train", "x.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=patches(12), chunks=(1, 96, 96, 3), fletcher32=True)
        file.create_dataset("backup/x", data=patches(12))
    size = audit(tmp_path)["size"]["splits"]["train"]
    rows = {row["cause"]: row for row in size["rows"]}
    assert rows["other datasets"]["bytes"] == 12 * 27_648
    assert "backup/x" in rows["other datasets"]["words"]
    assert rows["compression"]["words"] == "what fletcher32 adds"
    assert sum(row["bytes"] for row in size["rows"]) == path.stat().st_size
    assert size["gzip"]["missing"] > 0


def test_an_out_that_exists_is_refused_before_any_work(
    tmp_path: Path, write_split: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_split(tmp_path / "d", "train", patches(4))
    monkeypatch.setattr(audit_module, "open_sources", lambda folder: pytest.fail("it was opened"))
    result = CliRunner().invoke(app, ["data", "audit", str(tmp_path / "d"), "--out", str(tmp_path)])
    assert "an audit is never overwritten" in str(result.exception)
    shutil.rmtree(tmp_path / "d")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slide,slide\n" + "a,b\n" * 6, "2 columns 'slide'"),
        ("k,slide\n" + "1,a\n" * 4 + "1,\n" * 2, "2 of the 6 patches of train have no slide (first: patch 4)"),
        ("k,slide\n" + "1,a\n" * 5 + "1\n", "1 of the 6 patches of train have no slide (first: patch 5)"),
        ("k;slide\n" + "1;a\n" * 6, "no column 'slide'"),
    ],
)
def test_groups_that_leave_a_patch_in_doubt_are_refused(
    tmp_path: Path, write_split: Write, text: str, words: str
) -> None:
    write_split(tmp_path / "d", "train", patches(6))
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(DataError) as refused:
        audit(tmp_path / "d", groups=f"{tmp_path / 'g.csv'}:slide")
    assert words in refused.value.problem
