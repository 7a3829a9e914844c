"""How many near-duplicates are found, and how many of those found are none? Planted on patches, per kind and over seeds.

    python benchmarks/near.py [FOLDER]      official files, e.g. ../shared/data/pcam-real

Per seed and kind, 41 patches (1 % of 4,096) of any split are replaced by a changed copy of another patch of any split, half of
the copies turned by one of the 7 rotations and flips. Prints the recall of each kind, the precision of all that was reported, and
what is reported on the untouched patches.
"""

import argparse
import io
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from histoproof import rng
from histoproof.data.near import NearIndex, NearPair
from histoproof.data.pcam import SplitName, find_splits, read_blocks
from histoproof.data.sketch import turn

Pixels = NDArray[np.uint8]
Splits = dict[SplitName, Pixels]
Place = tuple[SplitName, int]
Draw = Callable[[], float]
"""The next of a plant's random numbers, uniform in 0-1."""


def rounded(values: NDArray[Any]) -> Pixels:
    whole: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return whole


def jpeg(patch: Pixels, draw: Draw) -> Pixels:
    """Quality 70-95, colour subsampled, as most encoders do."""
    with io.BytesIO() as file:
        Image.fromarray(patch).save(file, "JPEG", quality=70 + int(draw() * 26))
        return np.asarray(Image.open(file).convert("RGB"))


def brighter(patch: Pixels, draw: Draw) -> Pixels:
    """By 1-5 %, up or down; by less, many a patch would stay what it is."""
    return rounded(patch * (1 + _either_way(draw)))


def lighter(patch: Pixels, draw: Draw) -> Pixels:
    """1-5 % of 255 added or taken."""
    return rounded(patch + 255 * _either_way(draw))


def _either_way(draw: Draw) -> float:
    return (0.01 + 0.04 * draw()) * (1 if draw() < 0.5 else -1)


def shifted(fill: str) -> Callable[[Pixels, Draw], Pixels]:
    """Up to 2 px each way, never 0 both ways; the border by np.pad's mode `fill`, or from enlarged tissue ("tissue")."""

    def shift(patch: Pixels, draw: Draw) -> Pixels:
        while True:
            down, right = int(draw() * 5) - 2, int(draw() * 5) - 2
            if down or right:
                break
        wide = around(patch) if fill == "tissue" else np.pad(patch, ((2, 2), (2, 2), (0, 0)), mode=fill)  # type: ignore[call-overload]
        moved: Pixels = wide[2 - down : 98 - down, 2 - right : 98 - right]
        return moved

    return shift


def around(patch: Pixels) -> Pixels:
    """(100, 100, 3): the patch enlarged, to have tissue around its centre."""
    return np.asarray(Image.fromarray(patch).resize((100, 100), Image.Resampling.BICUBIC))


def noisy(patch: Pixels, draw: Draw) -> Pixels:
    """Gaussian noise, sigma 1-2."""
    words = rng.uniform(rng.key(int(draw() * 2**53), "noise"), 2 * patch.size)
    normal = np.sqrt(-2 * np.log(1 - words[: patch.size])) * np.cos(2 * np.pi * words[patch.size :])
    return rounded(patch + (1 + draw()) * normal.reshape(patch.shape))


def blurred(patch: Pixels, draw: Draw) -> Pixels:
    """Gaussian, sigma 0.4-1 px."""
    return np.asarray(Image.fromarray(patch).filter(ImageFilter.GaussianBlur(0.4 + 0.6 * draw())))


STEPS: dict[str, Callable[[Pixels, Draw], Pixels]] = {
    "jpeg": jpeg,
    "brightness x": brighter,
    "brightness +": lighter,
    "shift, edge": shifted("edge"),
    "shift, reflect": shifted("reflect"),
    "shift, zeros": shifted("constant"),
    "shift, tissue": shifted("tissue"),
    "noise": noisy,
    "blur": blurred,
}
PAIRS = [
    ("shift, edge", "jpeg"),
    ("shift, zeros", "brightness x"),
    ("shift, reflect", "noise"),
    ("shift, edge", "blur"),
    ("brightness x", "jpeg"),
    ("brightness +", "shift, edge"),
    ("noise", "jpeg"),
    ("blur", "jpeg"),
]
KINDS: dict[str, tuple[str, ...]] = {name: (name,) for name in STEPS} | {" then ".join(pair): pair for pair in PAIRS}


def plant(splits: Splits, seed: int, each: int) -> tuple[Splits, dict[tuple[Place, Place], tuple[str, bool]]]:
    """A copy of the patches with `each` plants of each kind, and {(source, copy): (kind, turned)}."""
    planted = {split: x.copy() for split, x in splits.items()}
    places: list[Place] = [(split, row) for split, x in splits.items() for row in range(len(x))]
    order = iter(rng.permutation(rng.key(seed, "near"), len(places)))
    truth = {}
    for kind, steps in KINDS.items():
        for k in range(each):
            source, copy = places[next(order)], places[next(order)]
            numbers = iter(rng.uniform(rng.key(seed, "near", kind, k), 1000).tolist())
            draw = partial(next, numbers)
            patch = splits[source[0]][source[1]]
            orientation = 1 + int(draw() * 7) if k % 2 else 0
            if "shift, tissue" in steps:
                planted[source[0]][source[1]] = around(patch)[2:98, 2:98]
            for step in steps:
                patch = STEPS[step](patch, draw)
            planted[copy[0]][copy[1]] = turn(patch[None], orientation)[0]
            truth[source, copy] = (kind, bool(orientation))
    return planted, truth


def find(splits: Splits, block: int = 256) -> list[NearPair]:
    """The near-duplicate pairs of patches in memory."""
    index = NearIndex()
    for split, x in splits.items():
        for start in range(0, len(x), block):
            index.add(split, start, x[start : start + block])
    return list(index.pairs(lambda split, rows: splits[split][rows]))


def score(pairs: list[NearPair], truth: dict[tuple[Place, Place], tuple[str, bool]]) -> dict[str, Any]:
    """Planted and found per kind and of turned ones; reported, and how many of those were planted."""
    reported: set[tuple[Place, ...]] = {
        tuple(sorted([(p.split, p.index), (p.other_split, p.other_index)])) for p in pairs
    }
    hits = {kind: [0, 0] for kind in (*KINDS, "turned", "not turned", "all")}
    right = 0
    for places, (kind, turned) in truth.items():
        found = tuple(sorted(places)) in reported
        right += found
        for name in (kind, "turned" if turned else "not turned", "all"):
            hits[name][0] += 1
            hits[name][1] += found
    return {"hits": hits, "reported": len(reported), "right": right}


def load(folder: Path) -> Splits:
    """Every patch of the official files in a folder."""
    return {s.name: np.concatenate([x.astype(np.uint8) for _, x in read_blocks(s, 256)]) for s in find_splits(folder)}


def main() -> None:
    """Plant, search and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data/pcam-real"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--each", type=int, default=41, help="plants of each kind")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    splits = load(arguments.folder)
    untouched = find(splits)
    begin = time.perf_counter()
    scores = [
        score(find(planted), truth)
        for planted, truth in (plant(splits, s, arguments.each) for s in range(arguments.seeds))
    ]
    seconds = time.perf_counter() - begin
    if arguments.json:
        print(json.dumps({"untouched": [vars(p) for p in untouched], "seeds": scores}, indent=2))
        return
    n = sum(len(x) for x in splits.values())
    print(
        f"{n} patches, {arguments.seeds} seeds, {arguments.each} plants of each kind; {seconds / arguments.seeds:.1f} s a seed"
    )
    print(f"{'kind':30} {'n':>5} {'found':>6} {'recall':>7}  lowest of the seeds")
    for name in scores[0]["hits"]:
        counts = np.array([s["hits"][name] for s in scores])
        planted, found = counts.sum(0)
        print(f"{name:30} {planted:5} {found:6} {found / planted:7.4f}  {(counts[:, 1] / counts[:, 0]).min():.4f}")
    reported, right = sum(s["reported"] for s in scores), sum(s["right"] for s in scores)
    print(f"reported {reported}, of them planted {right}: precision {right / max(reported, 1):.4f}")
    print(f"on the untouched patches: {len(untouched)} reported")
    for pair in untouched:
        print(f"  {pair}")


if __name__ == "__main__":
    main()
