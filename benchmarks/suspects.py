"""How many planted label errors do the suspects find? Flip labels of the real train patches at random and look at the top.

    python benchmarks/suspects.py [--data DIR] [--rate 0.05] [--seeds 5 6 7 8 9] [--groups CSV:COLUMN]

DIR holds official files whose labels are taken as true. With k labels flipped, prints the precision among the k most doubtful
patches per seed and as mean, what the audit would name by itself, and the time. Chance is the rate.
"""

import argparse
import csv
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histoproof import rng
from histoproof.compute import available_cores
from histoproof.data.features import WIDTH, features
from histoproof.data.pcam import open_split, read_blocks, read_labels
from histoproof.data.pixels import as_uint8
from histoproof.data.suspects import suspects

REAL = Path(__file__).parents[2] / "shared" / "data" / "pcam-real"


def flip(labels: NDArray[np.uint8], count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Labels with `count` of them flipped, and which."""
    rows = rng.permutation(rng.key(seed, "flips"), len(labels))[:count]
    flipped = labels.copy()
    flipped[rows] ^= 1
    return flipped, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REAL)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--groups", help="CSV:COLUMN, one row per patch: folds by group")
    args = parser.parse_args()
    split = open_split(args.data, "train")
    labels = read_labels(split)
    assert labels is not None
    truth = labels.astype(np.uint8)
    start = time.perf_counter()
    table = np.concatenate([features(as_uint8(block)[0]) for _, block in read_blocks(split, 1024)])
    seconds = time.perf_counter() - start
    groups = None
    if args.groups:
        path, _, column = args.groups.rpartition(":")
        with Path(path).open(newline="", encoding="utf-8") as file:
            groups = np.array([row[column] for row in csv.DictReader(file)])
    count = round(args.rate * len(truth))
    print(
        f"{len(truth)} patches, {int(truth.sum())} tumour, {count} labels flipped; {args.folds} folds, {available_cores()} cores"
    )
    print(f"features, with reading: {seconds:.1f} s, {WIDTH} numbers a patch, {table.nbytes / 1e6:.1f} MB")
    precisions = []
    for seed in args.seeds:
        flipped, rows = flip(truth, count, seed)
        start = time.perf_counter()
        top = suspects(table, flipped, seed=seed, groups=groups, folds=args.folds, limit=count)
        seconds = time.perf_counter() - start
        named = suspects(table, flipped, seed=seed, groups=groups, folds=args.folds)
        precisions.append(np.isin([s.row for s in top], rows).mean())
        hit = int(np.isin([s.row for s in named], rows).sum())
        print(
            f"seed {seed}: precision {precisions[-1]:.3f} at {count}, named {len(named)}, {hit} of them flipped, {seconds:.1f} s"
        )
    print(
        f"mean of {len(precisions)}: {statistics.mean(precisions):.3f} (lowest {min(precisions):.3f}); chance {args.rate}"
    )
    print(f"labels as they are: {len(suspects(table, truth, seed=0, groups=groups, folds=args.folds))} named")


if __name__ == "__main__":
    main()
