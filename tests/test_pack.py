"""Packing keeps every pixel, repairs none, and refuses what it cannot read, leaving nothing behind."""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from histoproof.data.pack import pack
from histoproof.data.pcam import official_name
from histoproof.data.pixels import as_uint8
from histoproof.data.store import BLOCK_ROWS, open_store
from histoproof.data.synth import synth
from histoproof.errors import DataError, HistoproofError, OutputError
from histoproof.files import read_lines, sha256_file

Write = Callable[..., None]


def patches(n: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)


def refused(source: Path, out: Path) -> str:
    with pytest.raises(HistoproofError) as error:
        pack(source, out)
    assert not out.exists()
    assert not [p for p in out.parent.iterdir() if p.name.endswith(".tmp")]
    return str(error.value)


def test_a_store_holds_the_files_pixels_and_labels(official: Path, store: Path) -> None:
    opened = open_store(store)
    assert list(opened.splits) == ["train", "valid", "test"]
    for name, split in opened.splits.items():
        with (
            h5py.File(official / official_name(name, "x.h5")) as x,
            h5py.File(official / official_name(name, "y.h5")) as y,
        ):
            assert np.array_equal(split.images, x["x"][:])
            assert split.labels is not None
            assert np.array_equal(split.labels, y["y"][:].reshape(-1))
        split.verify()


def test_images_are_plain_numpy_and_their_digest_is_sha256sums(store: Path) -> None:
    mapped = np.load(store / "train" / "images.npy", mmap_mode="r")
    assert (mapped.dtype, mapped.shape) == (np.dtype("uint8"), (256, 96, 96, 3))
    assert open_store(store).manifest["splits"]["train"]["images"]["sha256"] == sha256_file(
        store / "train" / "images.npy"
    )


@pytest.mark.parametrize(
    "options", [{}, {"chunks": (1, 96, 96, 3), "compression": "gzip"}, {"chunks": (37, 48, 96, 3)}]
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_the_digest_depends_on_pixels_not_on_how_they_were_stored(
    tmp_path: Path, write_split: Write, dtype: str, options: dict[str, Any]
) -> None:
    x = patches(50)
    write_split(tmp_path / "d", "train", x.astype(dtype), np.arange(50) % 2, **options)
    result = pack(tmp_path / "d", tmp_path / "s")
    assert result["splits"]["train"]["images_sha256"] == _npy_sha256(x)
    assert result["findings"] == {}


def test_float32_and_uint8_synthetic_data_pack_to_one_digest(tmp_path: Path, official: Path, store: Path) -> None:
    synth(tmp_path / "f", train=256, valid=96, test=64, seed=7, dtype="float32")
    assert pack(tmp_path / "f", tmp_path / "s")["content_sha256"] == open_store(store).content_sha256


def test_what_cannot_be_represented_is_found_and_quarantined_never_hidden(tmp_path: Path, write_split: Write) -> None:
    x = patches(20).astype(np.float32)
    x[3, 0, 0, 0] = np.nan
    x[5] = np.inf
    x[7, 1, 2, 1] = 1e5
    x[8, 1, 2, 1] = -1
    x[11, 95, 95, 2] = 17.5
    x[12, 0, 0, :] = [np.nan, 300, 0.5]
    write_split(tmp_path / "d", "train", x, np.arange(20) % 2)
    result = pack(tmp_path / "d", tmp_path / "s")
    assert result["errors"]
    found = {(line["index"], line["kind"]) for line in read_lines(tmp_path / "s" / "findings.jsonl")}
    assert found == {
        (3, "nan"),
        (5, "infinite"),
        (7, "out_of_range"),
        (8, "out_of_range"),
        (11, "non_integer"),
        (12, "nan"),
        (12, "out_of_range"),
        (12, "non_integer"),
    }
    split = open_store(tmp_path / "s").split("train")
    assert split.quarantined.tolist() == [3, 5, 7, 8, 11, 12]
    assert set(split.rows("exclude").tolist()) == set(range(20)) - {3, 5, 7, 8, 11, 12}
    assert len(split.rows("include")) == 20
    with (tmp_path / "s" / "quarantine.csv").open() as file:
        assert [row["reasons"] for row in csv.DictReader(file)][-1] == "nan+out_of_range+non_integer"


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (2, 96, 96, 3), elements=st.just(7.0)), st.floats(width=32), st.integers(0, 1))
def test_a_patch_is_exact_if_and_only_if_every_value_is_a_whole_number_0_to_255(
    block: np.ndarray[Any, np.dtype[np.float32]], value: float, row: int
) -> None:
    block[row, 5, 5, 1] = value
    pixels, exact = as_uint8(block)
    representable = bool(np.isfinite(value)) and 0 <= value <= 255 and float(value).is_integer()
    assert bool(exact[row]) == representable
    assert exact[1 - row]
    if representable:
        assert pixels[row, 5, 5, 1] == value


def test_labels_outside_0_1_are_findings_and_never_trained_on(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "train", patches(6), np.array([0, 1, 2, 255, 0, 1]))
    result = pack(tmp_path / "d", tmp_path / "s")
    assert result["findings"] == {"bad_label": 2}
    split = open_store(tmp_path / "s").split("train")
    assert split.rows("include").tolist() == [0, 1, 4, 5]
    assert split.labels is not None
    assert split.labels.tolist() == [0, 1, 255, 255, 0, 1]


def test_a_file_without_any_valid_label_is_refused(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "train", patches(3), np.array([2, 3, 4]))
    assert "no label is 0 or 1" in refused(tmp_path / "d", tmp_path / "s")


def test_a_split_may_come_without_labels(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "train", patches(4), [0, 1, 0, 1])
    write_split(tmp_path / "d", "test", patches(3))
    result = pack(tmp_path / "d", tmp_path / "s")
    assert result["splits"]["test"]["positive"] is None
    with pytest.raises(DataError, match="has no labels") as error:
        open_store(tmp_path / "s").split("test").rows("exclude")
    assert "it can be predicted on" in str(error.value)


def test_pixels_scaled_to_0_1_are_refused_with_advice(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "train", (patches(4) / 255).astype(np.float32), [0, 1, 0, 1])
    assert "multiply x by 255" in refused(tmp_path / "d", tmp_path / "s")


def test_wrong_shapes_dtypes_and_lengths_are_refused(tmp_path: Path, write_split: Write) -> None:
    cases: list[tuple[Any, Any, str]] = [
        (np.zeros((4, 64, 64, 3), np.uint8), [0, 1, 0, 1], "x has shape (4, 64, 64, 3)"),
        (np.zeros((4, 96, 96), np.uint8), [0, 1, 0, 1], "x has shape (4, 96, 96)"),
        (np.zeros((4, 96, 96, 3), np.int32), [0, 1, 0, 1], "x has dtype int32"),
        (patches(4), [0, 1, 0], "x holds 4 patches, y holds 3 labels"),
        (np.zeros((0, 96, 96, 3), np.uint8), [], "holds no patches"),
    ]
    for number, (x, y, message) in enumerate(cases):
        write_split(tmp_path / str(number), "train", x, np.asarray(y, dtype=np.uint8))
        assert message in refused(tmp_path / str(number), tmp_path / "s")


def test_no_such_folder_and_a_folder_of_something_else_are_refused(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "absent", tmp_path / "s")
    (tmp_path / "other").mkdir()
    assert "holds no PatchCamelyon split" in refused(tmp_path / "other", tmp_path / "s")


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08 still compressed", b"<!doctype html><p>404"])
def test_what_is_no_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / official_name("train", "x.h5")).write_bytes(content)
    message = refused(tmp_path / "d", tmp_path / "s")
    assert official_name("train", "x.h5") in message
    assert "fetch it again" in message


def test_a_file_without_x_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with h5py.File(tmp_path / "d" / official_name("train", "x.h5"), "w") as file:
        file["images"] = patches(2)
    assert "has no dataset 'x'" in refused(tmp_path / "d", tmp_path / "s")


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6, 0.9, 0.999])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, write_split: Write, fraction: float) -> None:
    write_split(tmp_path / "d", "train", patches(30), np.arange(30) % 2, chunks=(1, 96, 96, 3), compression="gzip")
    path = tmp_path / "d" / official_name("train", "x.h5")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    assert "train_x.h5" in refused(tmp_path / "d", tmp_path / "s")


def test_a_damaged_chunk_names_its_patch(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "train", patches(30), np.arange(30) % 2, chunks=(1, 96, 96, 3), compression="gzip")
    path = tmp_path / "d" / official_name("train", "x.h5")
    with h5py.File(path) as file:
        where = file["x"].id.get_chunk_info(17).byte_offset
    with path.open("r+b") as raw:
        raw.seek(where + 100)
        raw.write(b"\0" * 200)
    assert "patch 17 cannot be read" in refused(tmp_path / "d", tmp_path / "s")


def test_a_meta_file_of_another_length_is_refused(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "train", patches(4), [0, 1, 0, 1])
    (tmp_path / "d" / official_name("train", "meta.csv")).write_text("coord_y,coord_x,wsi\n1,2,a\n")
    assert "has 1 rows, its split has 4 patches" in refused(tmp_path / "d", tmp_path / "s")


def test_meta_travels_with_the_index(store: Path, official: Path) -> None:
    with (official / official_name("valid", "meta.csv")).open() as file:
        expected = [row["wsi"] for row in csv.DictReader(file)]
    found = open_store(store).meta("valid", "wsi")
    assert found is not None
    assert found.tolist() == expected
    assert open_store(store).meta("valid", "hospital") is None


def test_a_store_is_never_overwritten(official: Path, store: Path) -> None:
    before = sha256_file(store / "manifest.json")
    with pytest.raises(OutputError, match="never overwritten"):
        pack(official, store)
    assert sha256_file(store / "manifest.json") == before


def test_a_disk_too_small_is_told_before_the_work(mounted: Callable[[str], Path], official: Path) -> None:
    folder = mounted("size=1m")
    with pytest.raises(OutputError, match="GB free"):
        pack(official, folder / "s")
    assert list(folder.iterdir()) == []


def test_a_disk_that_fills_up_while_packing_leaves_nothing(
    mounted: Callable[[str], Path], official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mounted("size=4m")
    monkeypatch.setattr("histoproof.data.pack.check_space", lambda *_: None)  # as when another program takes the space
    with pytest.raises(OutputError, match="No space left"):
        pack(official, folder / "s")
    assert list(folder.iterdir()) == []


def test_a_read_only_place_is_told(mounted: Callable[[str], Path], official: Path) -> None:
    folder = mounted("ro")
    with pytest.raises(OutputError, match="Read-only file system") as error:
        pack(official, folder / "s")
    assert "--out" in str(error.value)


def test_an_interrupted_pack_leaves_nothing(official: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(official, tmp_path / "s", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_pixel_is_named_by_its_block(tmp_path: Path, write_split: Write) -> None:
    n = BLOCK_ROWS + 10
    write_split(
        tmp_path / "d",
        "train",
        np.zeros((n, 96, 96, 3), np.uint8),
        np.arange(n) % 2,
        compression="gzip",
        chunks=(64, 96, 96, 3),
    )
    pack(tmp_path / "d", tmp_path / "s")
    images = np.load(tmp_path / "s" / "train" / "images.npy", mmap_mode="r+")
    images[BLOCK_ROWS + 3, 40, 40, 0] = 1
    images.flush()
    with pytest.raises(DataError, match=f"within patches {BLOCK_ROWS} to {n - 1}"):
        open_store(tmp_path / "s").split("train").verify()


def test_what_is_no_store_is_refused_with_advice(tmp_path: Path, official: Path) -> None:
    for path, message in (
        (tmp_path / "absent", "no such store"),
        (tmp_path, "is no store"),
        (official, "pack them first"),
    ):
        with pytest.raises(DataError) as error:
            open_store(path)
        assert message in str(error.value)


def test_a_store_of_another_version_or_with_a_cut_file_is_refused(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "train", patches(4), [0, 1, 0, 1])
    pack(tmp_path / "d", tmp_path / "s")
    images = tmp_path / "s" / "train" / "images.npy"
    images.write_bytes(images.read_bytes()[:-1000])
    with pytest.raises(DataError, match="damaged"):
        open_store(tmp_path / "s")
    manifest = tmp_path / "s" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(DataError, match="not of a store this version reads"):
        open_store(tmp_path / "s")


def test_paths_with_spaces_and_quotes_work(tmp_path: Path, write_split: Write) -> None:
    folder = tmp_path / 'my data\'s "copy"'
    write_split(folder / "d", "train", patches(4), [0, 1, 0, 1])
    assert pack(folder / "d", folder / "the store")["splits"]["train"]["n"] == 4


def _npy_sha256(x: np.ndarray[Any, np.dtype[np.uint8]]) -> str:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {x.shape}, }}"
    padded = header + " " * (63 - (10 + len(header)) % 64) + "\n"
    head = b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode()
    return hashlib.sha256(head + x.tobytes()).hexdigest()
