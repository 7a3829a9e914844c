"""How fast is the audit beside a plain read of the same files, how much memory does it take, and does it find every planted copy?

    python benchmarks/audit.py                          20,000 + 2,500 + 2,500 patches, uncompressed
    python benchmarks/audit.py --compression gzip
    python benchmarks/audit.py --full                   262,144 + 32,768 + 32,768 patches, 9 GB
    python benchmarks/audit.py --data DIR               files that are there already (`histoproof data synth`); nothing is planted
    python benchmarks/audit.py --data DIR --plant       the same, after copies were planted in them

Patches are synthetic ones (`histoproof data synth`), each used many times with another pattern of 2 bits XORed in: all differ,
and none is noise. Planted: copies, turned copies, copies across splits, and some with the other label. The files are read once
to warm the page cache; then plain reads (h5py, blocks of 256) and audits alternate in one process.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from histoproof import rng
from histoproof.data.audit import audit
from histoproof.data.copies import oriented
from histoproof.data.pcam import SPLITS, SplitName, official_name
from histoproof.data.stream import threads
from histoproof.data.synth import synth
from histoproof.provenance import environment

FULL: dict[SplitName, int] = {"train": 262_144, "valid": 32_768, "test": 32_768}
SMALL: dict[SplitName, int] = {"train": 20_000, "valid": 2_500, "test": 2_500}
BASE, BLOCK = 2048, 512
Truth = set[tuple[str, str, int]]
"""(kind, split, index)"""


def make(folder: Path, counts: dict[SplitName, int], compression: str, dtype: str, planted: int) -> Truth:
    """Write official files of so many patches, with so many planted copies of each kind; what and where they are."""
    synth(folder / "base", train=BASE, valid=0, test=0, compression="none")
    with h5py.File(folder / "base" / official_name("train", "x.h5")) as file:
        base = file["x"][:]
    layout: dict[str, Any] = (
        {"chunks": (1, 96, 96, 3), "compression": "gzip", "compression_opts": 4} if compression == "gzip" else {}
    )
    labels = {split: (np.arange(n) % 2).astype(np.uint8) for split, n in counts.items()}
    for number, (split, n) in enumerate(counts.items()):
        with h5py.File(folder / official_name(split, "x.h5"), "w") as file:
            x = file.create_dataset("x", (n, 96, 96, 3), dtype, **layout)
            for start in range(0, n, BLOCK):
                x[start : start + BLOCK] = variants(base, number, np.arange(start, min(start + BLOCK, n)))
    truth = plant(folder, counts, labels, planted)
    for split, values in labels.items():
        with h5py.File(folder / official_name(split, "y.h5"), "w") as file:
            file["y"] = values.reshape(-1, 1, 1, 1)
    return truth


def plant_in_files(folder: Path, planted: int) -> Truth:
    """Plant copies in uncompressed official files with all three splits; their labels are changed with them."""
    labels: dict[SplitName, NDArray[np.uint8]] = {}
    for split in SPLITS:
        with h5py.File(folder / official_name(split, "y.h5")) as file:
            labels[split] = file["y"][:].reshape(-1)
    truth = plant(folder, {split: len(values) for split, values in labels.items()}, labels, planted)
    for split, values in labels.items():
        with h5py.File(folder / official_name(split, "y.h5"), "r+") as file:
            file["y"][:] = values.reshape(-1, 1, 1, 1)
    return truth


def variants(base: NDArray[np.uint8], split: int, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Patches of a split by their rows: each base patch in a new variant whenever all have been used."""
    out = base[rows % BASE]
    for variant in np.unique(rows // BASE):
        words = rng.bits(rng.key(0, "variant", split, int(variant)), np.arange(96 * 36, dtype=np.uint64))
        out[rows // BASE == variant] ^= (words.view(np.uint8) & 3).reshape(96, 96, 3)
    return out


def plant(
    folder: Path, counts: dict[SplitName, int], labels: dict[SplitName, NDArray[np.uint8]], planted: int
) -> Truth:
    """Overwrite patches in the second half of each split with copies of others, spread evenly."""
    truth: Truth = set()
    files = {split: h5py.File(folder / official_name(split, "x.h5"), "r+")["x"] for split in counts}
    source = iter(np.linspace(0, counts["train"] // 2 - 1, planted * 6).astype(int).tolist())
    into = {split: iter(np.linspace(n // 2, n - 1, planted * 4).astype(int).tolist()) for split, n in counts.items()}
    for number in range(planted):
        for kind, split, turn, flip in (
            ("duplicate", "train", 0, 0),
            ("duplicate_dihedral", "train", 1 + number % 7, 0),
            ("label_conflict", "train", 0, 1),
            ("cross_split_duplicate", "valid", 0, 0),
            ("duplicate_dihedral", "test", 1 + number % 7, 0),
            ("label_conflict", "test", 1 + number % 7, 1),
        ):
            a, b = next(source), next(into[split])  # type: ignore[index]
            files[split][b] = oriented(files["train"][a], turn)  # type: ignore[index]
            labels[split][b] = labels["train"][a] ^ flip  # type: ignore[index]
            truth.add((kind, "train", a) if kind == "cross_split_duplicate" else (kind, split, b))
            if flip:
                truth.add(("duplicate_dihedral" if turn else "duplicate", split, b))
    for x in files.values():
        x.file.close()
    return truth


def read_plainly(folder: Path) -> tuple[float, int]:
    """(seconds, bytes of pixels) of reading all x in order with h5py, 256 patches at a time."""
    start, total = time.perf_counter(), 0
    for split in SPLITS:
        path = folder / official_name(split, "x.h5")
        if path.exists():
            with h5py.File(path) as file:
                x = file["x"]
                for k in range(0, len(x), 256):
                    total += x[k : k + 256].nbytes
    return time.perf_counter() - start, total


@contextmanager
def resident() -> Iterator[list[int]]:
    """Samples of this process's resident memory, in bytes, five a second."""
    samples: list[int] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.2):
            samples.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Alternate plain reads and audits."""
    read_plainly(folder)
    plain, audited, memory = [], [], []
    result: dict[str, Any] = {}
    size = 0
    for _ in range(repeats):
        seconds, size = read_plainly(folder)
        plain.append(size / seconds / 1e9)
        with resident() as samples:
            start = time.perf_counter()
            result = audit(folder)
            audited.append(size / (time.perf_counter() - start) / 1e9)
        memory.append(samples)
    seconds, size = read_plainly(folder)
    plain.append(size / seconds / 1e9)
    ratios = [a / ((p + q) / 2) for a, p, q in zip(audited, plain[:-1], plain[1:], strict=True)]
    return {
        "patches": sum(split["n"] for split in result["splits"].values()),
        "bytes": size,
        "plain_gb_per_s": plain,
        "audit_gb_per_s": audited,
        "ratio": {"median": statistics.median(ratios), "samples": ratios},
        "peak_mb": max(max(samples, default=0) for samples in memory) / 1e6,
        "resident_mb": [round(m / 1e6) for m in memory[-1][:: max(1, len(memory[-1]) // 12)]],
        "found": {(finding["kind"], finding["split"], finding["index"]) for finding in result["findings"]},
    }


def main() -> None:
    """Make the files or take them, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="official files to take instead of making some")
    parser.add_argument("--plant", action="store_true", help="plant copies in the files of --data, which changes them")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--compression", choices=("none", "gzip"), default="none")
    parser.add_argument("--dtype", choices=("uint8", "float32"), default="uint8")
    parser.add_argument("--planted", type=int, default=100, help="copies of each kind")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="where the files are made (9 GB with --full)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder, truth = arguments.data or Path(scratch), set()
        if arguments.data is None:
            counts = FULL if arguments.full else SMALL
            truth = make(folder, counts, arguments.compression, arguments.dtype, arguments.planted)
        elif arguments.plant:
            truth = plant_in_files(folder, arguments.planted)
        row = measure(folder, arguments.repeats)
    copies = {f for f in row.pop("found") if "duplicate" in f[0] or f[0] == "label_conflict"}
    row |= {"planted": len(truth), "planted_found": len(truth & copies), "beyond_planted": len(copies - truth)}
    here = environment("cpu")
    if arguments.json:
        print(json.dumps({"environment": here, "rows": [row]}, indent=2))
        return
    print(
        f"{here['cpu']['model']}, {here['cpu']['available']} cores, {threads()} threads; {row['patches']:,} patches",
        end=", ",
    )
    print(f"{row['bytes'] / 1e9:.2f} GB of pixels; {arguments.repeats} audits between plain reads")
    for name in ("plain", "audit"):
        print(f"{name:6} GB/s: " + ", ".join(f"{v:.2f}" for v in row[f"{name}_gb_per_s"]))
    samples = ", ".join(f"{v:.1%}" for v in row["ratio"]["samples"])
    print(f"audit to plain read: median {row['ratio']['median']:.1%} ({samples})")
    print(f"resident memory: peak {row['peak_mb']:.0f} MB; over the last audit {row['resident_mb']} MB")
    if truth:
        print(
            f"planted findings: {row['planted_found']} of {row['planted']} found, {row['beyond_planted']} beyond them"
        )


if __name__ == "__main__":
    main()
