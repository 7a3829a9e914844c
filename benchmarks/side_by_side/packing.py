"""Packing the course's float32 form beside a plain sequential read of the same file, and the memory it takes.

Each size has a process of its own, so that its peak memory is its own. Files are read once before, so that both read from the
page cache; then plain reads (h5py, blocks of 256 patches) and packings alternate.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from histoproof import rng
from histoproof.data.pack import pack
from histoproof.data.pcam import official_name
from histoproof.errors import HistoproofError
from histoproof.files import check_space, new_folder

from .patches import Patches
from .timing import Plan, ratio, row, say

__all__ = ["measure", "write_course_form"]

BLOCK = 256
FLOAT_BYTES = 96 * 96 * 3 * 4


def measure(patches: Patches, scratch: Path, sizes: list[int], plan: Plan) -> dict[str, Any]:
    """A plain-read and a packing row for each number of patches, their ratio, and the peak memory."""
    rows, ratios, peaks = [], [], []
    for n in sizes:
        folder = scratch / f"packing-{n}"
        say(f"packing {n:,} patches")
        try:
            write_course_form(patches, folder, n)
            found = _in_own_process(folder, plan.rounds)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        samples = {}
        for name, words in (("read", "plain sequential h5py read"), ("pack", "histoproof data pack")):
            samples[f"{name} {n}"] = [n * FLOAT_BYTES / 1e9 / seconds for seconds in found[f"{name}_s"]]
            rows.append(row(f"{name} {n}", f"{words}, {n:,} float32 patches", samples[f"{name} {n}"], "GB/s"))
        ratios.append(ratio(f"pack {n}", f"read {n}", samples, goal=0.35, share=True))
        peaks.append({"patches": n, "peak_mb": found["peak_mb"], "before_mb": found["before_mb"]})
    return {"rows": rows, "ratios": ratios, "memory": peaks}


def write_course_form(patches: Patches, folder: Path, n: int) -> None:
    """n patches as float32 in one contiguous array. Where there are fewer, each is used again with another pattern of 2 bits
    XORed in: all differ, and none is noise."""
    check_space(folder, n * FLOAT_BYTES * 5 // 4)
    images, labels = patches.train().images, patches.labels()
    with new_folder(folder, what="set of patches") as made:
        with h5py.File(made / official_name("train", "x.h5"), "w") as file:
            x = file.create_dataset("x", (n, 96, 96, 3), np.float32)
            for start in range(0, n, BLOCK):
                rows = np.arange(start, min(start + BLOCK, n))
                pixels = images[rows % len(images)]
                for turn in set((rows // len(images)).tolist()) - {0}:
                    words = rng.bits(rng.key(0, "variant", turn), np.arange(96 * 36, dtype=np.uint64))
                    pixels[rows // len(images) == turn] ^= (words.view(np.uint8) & 3).reshape(96, 96, 3)
                x[start : start + len(rows)] = pixels
        with h5py.File(made / official_name("train", "y.h5"), "w") as file:
            file["y"] = labels[np.arange(n) % len(labels)].reshape(-1, 1, 1, 1)


def _in_own_process(folder: Path, rounds: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "side_by_side.packing", str(folder), str(rounds)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if done.returncode:
        raise HistoproofError(f"packing ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _alternate(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each plain read and each packing. The first packing is not counted; the memory is its own."""
    before = _peak_mb()
    _pack(folder)
    peak = _peak_mb()
    _read(folder)
    seconds: dict[str, list[float]] = {"read_s": [], "pack_s": []}
    for number in range(rounds):
        for name in ("read_s", "pack_s") if number % 2 == 0 else ("pack_s", "read_s"):
            start = time.perf_counter()
            (_read if name == "read_s" else _pack)(folder)
            seconds[name].append(time.perf_counter() - start)
    return {**seconds, "before_mb": before, "peak_mb": peak}


def _read(folder: Path) -> None:
    with h5py.File(folder / official_name("train", "x.h5")) as file:
        x = file["x"]
        for start in range(0, len(x), BLOCK):
            x[start : start + BLOCK]


def _pack(folder: Path) -> None:
    pack(folder, folder / "store")
    shutil.rmtree(folder / "store")


def _peak_mb() -> float:
    """This process's highest resident memory so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1e3


if __name__ == "__main__":
    print(json.dumps(_alternate(Path(sys.argv[1]), int(sys.argv[2]))))
