"""How fast is packing beside a plain read of the same file, and how much memory does it take?

    python benchmarks/pack.py                        8,192 patches in the course's form: float32, uncompressed
    python benchmarks/pack.py --patches 65536        7.2 GB
    python benchmarks/pack.py --dtype uint8 --compression gzip
    python benchmarks/pack.py --data DIR             official files that are there already
    python benchmarks/pack.py --out DIR              where stores are written, and removed again (default: /dev/shm, in memory)

Patches are real ones with --real DIR (the folder with the official files), else synthetic; each is used many times with another
pattern of 2 bits XORed in, as in benchmarks/audit.py. The file is read once to warm the page cache; then plain reads (h5py,
blocks of 256) and packs alternate in one process. `cores` is the processor time that packing took, over its wall time.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from audit import BASE, BLOCK, read_plainly, resident, variants
from histoproof.data.pack import pack
from histoproof.data.pcam import official_name
from histoproof.data.stream import threads
from histoproof.data.synth import synth
from histoproof.provenance import environment


def make(folder: Path, n: int, dtype: str, compression: str, real: Path | None) -> None:
    """Write the official files of a train split of n patches."""
    if real is None:
        real = folder / "base"
        synth(real, train=BASE, valid=0, test=0, compression="none")
    with h5py.File(real / official_name("train", "x.h5")) as file:
        base: NDArray[np.uint8] = file["x"][:BASE]
    options: dict[str, Any] = (
        {"chunks": (1, 96, 96, 3), "compression": "gzip", "compression_opts": 4} if compression == "gzip" else {}
    )
    with h5py.File(folder / official_name("train", "x.h5"), "w") as file:
        x = file.create_dataset("x", (n, 96, 96, 3), dtype, **options)
        for start in range(0, n, BLOCK):
            x[start : start + BLOCK] = variants(base, 0, np.arange(start, min(start + BLOCK, n)))
    with h5py.File(folder / official_name("train", "y.h5"), "w") as file:
        file["y"] = (np.arange(n) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)


def measure(folder: Path, out: Path, repeats: int) -> dict[str, Any]:
    """Alternate plain reads and packs."""
    read_plainly(folder)
    plain, packed, cores, samples = [], [], [], list[int]()
    size, patches = 0, 0
    seconds, size = read_plainly(folder)
    plain.append(size / seconds / 1e9)
    for number in range(repeats):
        store = out / f"store {os.getpid()} {number}"
        with resident() as memory:
            start, before = time.perf_counter(), os.times()
            result = pack(folder, store)
            took, after = time.perf_counter() - start, os.times()
        shutil.rmtree(store)
        packed.append(size / took / 1e9)
        cores.append((after.user - before.user + after.system - before.system) / took)
        samples += memory
        patches = sum(split["n"] for split in result["splits"].values())
        seconds, size = read_plainly(folder)
        plain.append(size / seconds / 1e9)
    ratios = [a / ((p + q) / 2) for a, p, q in zip(packed, plain[:-1], plain[1:], strict=True)]
    return {
        "patches": patches,
        "bytes": size,
        "plain_gb_per_s": plain,
        "pack_gb_per_s": packed,
        "cores": cores,
        "ratio": {"median": statistics.median(ratios), "samples": ratios},
        "peak_mb": max(samples, default=0) / 1e6,
    }


def main() -> None:
    """Make the files or take them, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="official files to take instead of making some")
    parser.add_argument("--real", type=Path, help="official files whose train patches are used to make some")
    parser.add_argument("--patches", type=int, default=8192)
    parser.add_argument("--compression", choices=("none", "gzip"), default="none")
    parser.add_argument("--dtype", choices=("uint8", "float32"), default="float32")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--scratch", type=Path, help="where the files are made")
    parser.add_argument("--out", type=Path, default=Path("/dev/shm"), help="where the stores are written")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = arguments.data or Path(scratch)
        if arguments.data is None:
            make(folder, arguments.patches, arguments.dtype, arguments.compression, arguments.real)
        row = measure(folder, arguments.out, arguments.repeats)
    here = environment("cpu")
    if arguments.json:
        print(json.dumps({"environment": here, "rows": [row]}, indent=2))
        return
    print(
        f"{here['cpu']['model']}, {threads()} cores; {row['patches']:,} patches, {row['bytes'] / 1e9:.2f} GB of pixels"
    )
    for name in ("plain", "pack"):
        print(f"{name:5} GB/s: " + ", ".join(f"{v:.2f}" for v in row[f"{name}_gb_per_s"]))
    print("cores busy: " + ", ".join(f"{v:.2f}" for v in row["cores"]))
    samples = ", ".join(f"{v:.1%}" for v in row["ratio"]["samples"])
    print(f"pack to plain read: median {row['ratio']['median']:.1%} ({samples})")
    print(f"resident memory: peak {row['peak_mb']:.0f} MB")


if __name__ == "__main__":
    main()
