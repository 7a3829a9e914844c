"""However packing is made faster: the same stores, the digest of the very file that was read, and as little memory."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash

from histoproof import rng
from histoproof.data import stream
from histoproof.data.audit import audit
from histoproof.data.pack import pack
from histoproof.data.pcam import SplitName, official_name
from histoproof.data.pixels import as_uint8
from histoproof.data.store import open_store
from histoproof.data.stream import inspect_source
from histoproof.data.synth import synth
from histoproof.errors import DataError
from histoproof.files import canonical, read_json, sha256_file, write_json
from histoproof.journal.evidence.stores import read_store

Write = Callable[..., None]
Pixels = np.ndarray[Any, np.dtype[Any]]

# What packing made of `poisoned` below before it was made faster (histoproof 0.1, commit e1d46e8).
BEFORE = {
    "findings.jsonl": "a6d5489a5558c489328ca612b634f73f8c1e28b2cedfddb0a46c5b3048d15a69",
    "meta.csv": "32b27ccd5f0406887dd7e15914a2bb641bca6a400815289aba5782bf3504178f",
    "quarantine.csv": "799a573a5d0a6ab84e57bd1eecb61e264216db1d7c76f68479c648daf8ce8686",
    "test/images.npy": "e3590755f095e023f4faa54da17380132ee8b4c49e112b0a226a6ea2764353b8",
    "test/labels.npy": "c4ba1f2a8e7261bb35849024d12e69b41095aa8ffac5b153ba805d4e71d14d7f",
    "train/images.npy": "032c0e9cdfa11f0f22364f78c8dcab674050a4141e9a13f291693223f74f3338",
    "train/labels.npy": "672cd0201205a6ed3404e5b06afdf6f6b3e79310da013bdb70c297e40350e50d",
    "valid/images.npy": "f5302ba0739b46bab030ba48455d948a9a0e3e71ff5ff4fcb2b2e3e51c94ee7c",
    "valid/labels.npy": "99d775c0e5c9d910816be8977b89006c7a9395d00f2307c715f6cd6935870742",
    "content": "ee986267b92e2e0917f9e58fba015baa89248cc8b7c91e91576d6933b6d5d6f6",
    "manifest": "bd3a143c18f81275",
}


def draw(seed: int, what: int, shape: tuple[int, ...], below: int) -> Pixels:
    """Whole numbers from 0, by this project's own generator: the same with every version of NumPy."""
    counters = np.arange(np.prod(shape), dtype=np.uint64)
    return (rng.bits(rng.key(seed, "test", what), counters) % np.uint64(below)).astype(np.int64).reshape(shape)


def poisoned(n: int, seed: int) -> Pixels:
    """Smooth float32 patches with every fault that packing knows, and values at the edge of being one."""
    small = draw(seed, 0, (n, 24, 24, 3), 216) + 20
    x = np.repeat(np.repeat(small, 4, axis=1), 4, axis=2) + draw(seed, 1, (n, 96, 96, 3), 9)
    x = x.astype(np.float32)
    edge = [np.nan, np.inf, -np.inf, 1e5, -1, 256, 255.00002, 2.0**32 + 7, 0.5, 1e-45, -0.0, 254.99998, 255, 0]
    for row, value in enumerate(edge):
        x[row * 3, row, 2 * row, row % 3] = value
    x.view(np.uint32)[43, 5, 5, 0] = 0x7FA00001  # a signalling NaN
    x[44], x[45], x[46, 3] = np.nan, 1e5, [np.nan, 300, 0.5]
    x[47], x[48], x[49], x[50] = 0, 255, 7, -0.0
    x[51] = 120 + draw(seed, 2, (96, 96, 3), 3)
    x[52] = 224 + draw(seed, 3, (96, 96, 3), 13)
    x[60], x[61], x[62], x[63] = x[59], x[58][::-1], np.rot90(x[57]), x[44]
    x[n - 1] = x[n - 2]
    return x


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faulty")
    sizes: dict[SplitName, tuple[int, int]] = {"train": (331, 1), "valid": (130, 2), "test": (65, 1)}
    for split, (n, seed) in sizes.items():
        with h5py.File(folder / official_name(split, "x.h5"), "w") as file:
            file["x"] = poisoned(n, seed)
        with h5py.File(folder / official_name(split, "y.h5"), "w") as file:
            file["y"] = (np.arange(n) // 2 % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
    with h5py.File(folder / official_name("train", "y.h5"), "r+") as file:
        file["y"][7] = 3
    (folder / official_name("valid", "meta.csv")).write_text(
        "wsi\n" + "".join(f"slide_{k // 10}\n" for k in range(130))
    )
    return folder


def essence(store: Path) -> dict[str, Any]:
    """The digest of every file of a store, and what the manifest says, but for where it came from."""
    manifest = read_json(store / "manifest.json")
    kept = {
        key: manifest[key] for key in ("format", "version", "block_rows", "splits", "meta_sha256", "content_sha256")
    }
    files = {str(p.relative_to(store)): sha256_file(p) for p in sorted(store.rglob("*")) if p.is_file()}
    del files["manifest.json"]
    return {
        **files,
        "content": manifest["content_sha256"],
        "manifest": xxhash.xxh3_64_hexdigest(canonical(kept).encode()),
    }


def test_a_store_is_to_the_bit_what_it_was_before_packing_was_made_faster(faulty: Path, tmp_path: Path) -> None:
    pack(faulty, tmp_path / "s")
    assert essence(tmp_path / "s") == BEFORE


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_threads_makes_the_same_store_and_the_same_audit(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    expected = audit(faulty)
    monkeypatch.setattr(stream, "threads", lambda: workers)
    pack(faulty, tmp_path / "s")
    assert essence(tmp_path / "s") == BEFORE
    assert audit(faulty) == expected


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"chunks": (1, 96, 96, 3), "compression": "gzip", "compression_opts": 1},
    {"chunks": (40, 96, 96, 3)},
    {"chunks": (30, 48, 96, 3), "shuffle": True, "compression": "lzf"},
    {"maxshape": (None, 96, 96, 3)},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_the_manifest_names_the_files_by_size_and_digest(
    tmp_path: Path, write_split: Write, dtype: str, layout: dict[str, Any]
) -> None:
    x = draw(0, 0, (150, 96, 96, 3), 256)
    write_split(tmp_path / "d", "train", x.astype(dtype), np.arange(150) % 2, **layout)
    pixels = tmp_path / "d" / official_name("train", "x.h5")
    with h5py.File(pixels, "r+") as file:
        file["afterwards"] = np.arange(1000)  # bytes behind the pixels, and before them the header
    pack(tmp_path / "d", tmp_path / "s")
    labels = tmp_path / "d" / official_name("train", "y.h5")
    assert read_json(tmp_path / "s" / "manifest.json")["source"]["files"] == [
        {"name": pixels.name, "bytes": pixels.stat().st_size, "xxh128": xxhash.xxh128_hexdigest(pixels.read_bytes())},
        {"name": labels.name, "bytes": labels.stat().st_size, "sha256": sha256_file(labels)},
    ]


def test_the_digest_of_a_source_is_of_what_was_read(
    tmp_path: Path, write_split: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes right after it was read: the digest is still of the pixels that are in the store."""
    write_split(tmp_path / "d", "train", draw(0, 0, (300, 96, 96, 3), 256).astype("u1"))
    path = tmp_path / "d" / official_name("train", "x.h5")
    before = path.read_bytes()

    def change(done: int, total: int) -> None:
        if done == 128:  # others are read by now or are not; these are for certain
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(b"\7" * 100_000)

    pack(tmp_path / "d", tmp_path / "s", progress=change)
    manifest = read_json(tmp_path / "s" / "manifest.json")
    assert manifest["source"]["files"][0]["xxh128"] == xxhash.xxh128_hexdigest(before)
    assert path.read_bytes() != before


def test_stores_whose_sources_have_sha256_are_read_as_ever(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "old")
    manifest = read_json(store / "manifest.json")
    for file in manifest["source"]["files"]:
        file.pop("xxh128", None)
        file["sha256"] = "0" * 64
    write_json(tmp_path / "old" / "manifest.json", manifest)
    assert open_store(tmp_path / "old").content_sha256 == open_store(store).content_sha256
    assert read_store(tmp_path / "old").source_bytes == read_store(store).source_bytes
    assert all(read_store(store).source_bytes.values())


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_a_file_that_shrinks_while_it_is_packed_is_refused_and_leaves_nothing(
    tmp_path: Path, write_split: Write, dtype: str
) -> None:
    write_split(tmp_path / "d", "train", draw(0, 0, (1200, 96, 96, 3), 256).astype(dtype))
    path = tmp_path / "d" / official_name("train", "x.h5")
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"patches \d+ to \d+ cannot be read"):
        pack(
            tmp_path / "d",
            tmp_path / "out" / "s",
            progress=lambda done, total: os.truncate(path, path.stat().st_size * 6 // 7),
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_pack_that_is_killed_leaves_nothing_under_its_name(tmp_path: Path, write_split: Write) -> None:
    write_split(tmp_path / "d", "train", draw(0, 0, (600, 96, 96, 3), 256).astype("f4"), np.arange(600) % 2)
    command = [sys.executable, "-m", "histoproof", "data", "pack", str(tmp_path / "d"), "--out", str(tmp_path / "s")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(tmp_path.glob(".s.*.tmp/train/images.npy")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "s").exists()
    pack(tmp_path / "d", tmp_path / "s")  # what it left is in nobody's way


EDGES = [0.0, -0.0, 1, 255, np.nan, -np.nan, np.inf, -np.inf, 256, 255.00002, -1, -1e-45, 1e-45, 0.5, 254.99998]
EDGES += [2.0**23, 2.0**23 + 1, 2.0**31, 2.0**32 + 7, 2.0**40 + 2.0**20, 65536, 512, -256, 1e5, 3e38]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i2", "i8", "u4"])
@pytest.mark.parametrize("value", EDGES)
def test_a_value_survives_as_uint8_if_and_only_if_it_is_one(value: float, dtype: str) -> None:
    with np.errstate(all="ignore"):
        block = np.full((40, 96, 96, 3), 7, dtype)
        block[33, 95, 95, 2] = np.float64(value).astype(dtype)
    stored = float(block[33, 95, 95, 2])
    pixels, exact = as_uint8(block)
    assert bool(exact[33]) == (stored in range(256))
    assert exact[np.arange(40) != 33].all()
    expected = 0 if np.isnan(stored) else round(min(max(stored, 0), 255))
    assert pixels[33, 95, 95, 2] == expected
    assert np.count_nonzero(pixels != 7) <= 1


def test_a_signalling_nan_is_found_without_a_warning() -> None:
    block = np.full((3, 96, 96, 3), 7, np.float32)
    block.view(np.uint32)[1, 0, 0, 0] = 0x7FA00001
    assert as_uint8(block)[1].tolist() == [True, False, True]


MEASURE = """
import resource, sys
from pathlib import Path
from histoproof.data.pack import pack
pack(Path(sys.argv[1]), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_memory_does_not_grow_with_the_patches(tmp_path: Path, layout: dict[str, Any]) -> None:
    peaks = []
    for n in (1024, 8192):
        folder = tmp_path / str(n)
        folder.mkdir()
        some = draw(0, 0, (128, 96, 96, 3), 256).astype(np.uint8)
        with h5py.File(folder / official_name("train", "x.h5"), "w") as file:
            x = file.create_dataset("x", (n, 96, 96, 3), "f4", **layout)
            for start in range(0, n, 128):
                x[start : start + 128] = some ^ np.uint8(start // 128)
        command = [sys.executable, "-c", MEASURE, str(folder), str(tmp_path / f"store {n}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 15, f"{peaks} MB"  # 900 MB of pixels; 80 bytes a patch are kept


def test_a_pass_holds_few_pieces_at_a_time(faulty: Path) -> None:
    """Each piece's pixels lie in one of a few places that are used again and again."""
    from histoproof.data.sources import open_source

    source = open_source(faulty, "train")
    places = {piece.pixels.ctypes.data for piece in inspect_source(source)}
    assert len(places) <= stream.threads() + 3


def test_synthetic_data_in_float32_and_uint8_make_one_store(tmp_path: Path) -> None:
    made = []
    for dtype in ("uint8", "float32"):
        synth(tmp_path / dtype, train=40, valid=8, test=8, seed=3, dtype=dtype)
        pack(tmp_path / dtype, tmp_path / f"{dtype} store")
        found = essence(tmp_path / f"{dtype} store")
        made.append({name: digest for name, digest in found.items() if name != "manifest"})
    assert made[0] == made[1]
