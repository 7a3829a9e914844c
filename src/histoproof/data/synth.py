"""A learnable look-alike of PatchCamelyon, drawn from a seed and written as the official files.

Colours follow Beer-Lambert, rgb = white * exp(-OD), with stain directions after Ruifrok & Johnston (Anal Quant Cytol
Histol 23:291, 2001). The label follows PatchCamelyon's rule (Veeling et al., MICCAI 2018): 1 if the tumour mask has a
pixel in the centre 32x32 px. It is made to try the tools on: no number reached on it says anything about tissue.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np
from numpy.typing import NDArray

from .. import files, rng
from ..errors import DataError
from . import tissue
from .pcam import META_COLUMNS, PATCH_SHAPE, SplitName, official_name

__all__ = ["synth"]

Dtype = Literal["uint8", "float32"]
Compression = Literal["gzip", "none"]

_BLOCK = 256  # patches in memory at once: 7 MB as uint8
_RING_SHARE = 0.2  # of a tumour slide's negative patches: tumour around the centre, none in it
_SLIDES: dict[SplitName, tuple[int, int]] = {"train": (16, 8), "valid": (8, 4), "test": (8, 4)}  # with tumour, without
_SLIDE_SIDE = 100_000  # pixels of a slide at full resolution
_TRAIN_TUMOR, _TRAIN_NORMAL, _TEST = 111, 160, 130  # how far Camelyon16 numbers its slides

# Directions of hematoxylin and eosin in the optical densities of red, green and blue, per scanner: a blue-violet and a
# brown-pink one, near those that Macenko's method (ISBI 2009) finds in two clusters of real PatchCamelyon patches.
_SCANNERS = np.array([[(0.59, 0.76, 0.28), (0.14, 0.97, 0.17)], [(0.54, 0.70, 0.47), (0.28, 0.91, 0.29)]])
_FULL_STAIN = np.array([2.8, 1.6])  # optical density of the amount 255


@dataclass(frozen=True)
class _Slide:
    name: str
    has_tumour: bool
    colours: NDArray[np.uint8]
    """(65536, 3): the colour of 256 * hematoxylin + eosin."""


@dataclass(frozen=True)
class _Source:
    """What determines a split's patches."""

    seed: int
    split: SplitName
    bank: tissue.Bank
    slides: list[_Slide]


@dataclass(frozen=True)
class _Patch:
    pixels: NDArray[np.uint8]
    """(96, 96, 3)"""
    mask: NDArray[np.bool_]
    """(96, 96): where tumour lies."""
    slide: str
    coord_y: int
    coord_x: int

    @property
    def label(self) -> bool:
        """PatchCamelyon's rule."""
        return bool(self.mask[tissue.CENTRE, tissue.CENTRE].any())


def synth(
    out: Path,
    *,
    train: int = 4096,
    valid: int = 768,
    test: int = 768,
    seed: int = 42,
    dtype: Dtype = "uint8",
    compression: Compression = "gzip",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write a PatchCamelyon look-alike into the new folder `out`; it exists whole or not at all.

    Per split with at least one patch, the official `.._x.h5` (x: (N, 96, 96, 3) RGB 0..255 in uint8, or the same whole
    numbers in float32), `.._y.h5` (y: (N, 1, 1, 1) uint8) and `.._meta.csv`. "gzip" stores each patch as a chunk, as
    the official files do; "none" stores one contiguous array. Half of the patches are positive (+-1), no slide is in
    two splits, and some negatives hold tumour outside the centre (tumor_patch, but not center_tumor_patch).

    A patch depends on (seed, split, index) only: a longer split begins with the shorter one. Memory does not grow with
    N. `progress(done, total)` is called after each block of patches. Returns {"out", "splits": {split: {"n",
    "positive", "slides"}}, "dtype", "seed"}. Raises DataError for arguments that cannot be, OutputError if `out`
    cannot be written.
    """
    counts: dict[SplitName, int] = {"train": train, "valid": valid, "test": test}
    _check(counts, dtype, compression)
    total, done = sum(counts.values()), 0
    # h5py cannot close a file whose write failed (it crashes), so a disk that is too small is found before; uncompressed size is
    # what gzip can at most need.
    files.check_space(out, int(total * 27_648 * (4 if dtype == "float32" else 1) * 1.02) + 1_000_000)

    def tick(patches: int) -> None:
        nonlocal done
        done += patches
        if progress:
            progress(done, total)

    layout: dict[str, Any] = {"dtype": dtype}
    if compression == "gzip":  # level 1, as level 9 hardly shortens noisy pixels
        layout |= {"chunks": (1, *PATCH_SHAPE), "compression": "gzip", "compression_opts": 1}
    written = {}
    with files.new_folder(out, what="dataset") as folder:
        for split, n in counts.items():
            if n:
                written[split] = _write_split(folder, _source(seed, split), n, layout, tick)
    return {"out": str(out), "splits": written, "dtype": dtype, "seed": seed}


def _write_split(
    folder: Path, source: _Source, n: int, layout: dict[str, Any], tick: Callable[[int], None]
) -> dict[str, int]:
    split = source.split
    positive, seen = 0, set()
    with (
        h5py.File(folder / official_name(split, "x.h5"), "w") as x_file,
        h5py.File(folder / official_name(split, "y.h5"), "w") as y_file,
        (folder / official_name(split, "meta.csv")).open("w", newline="", encoding="utf-8") as meta_file,
    ):
        x = x_file.create_dataset("x", (n, *PATCH_SHAPE), **layout)
        y = y_file.create_dataset("y", (n, 1, 1, 1), "uint8")
        meta = csv.writer(meta_file, lineterminator="\n")
        meta.writerow(META_COLUMNS)
        for start in range(0, n, _BLOCK):
            patches = list(_patches(source, range(start, min(start + _BLOCK, n))))
            rows = slice(start, start + len(patches))
            x[rows] = np.stack([patch.pixels for patch in patches]).astype(x.dtype, copy=False)
            y[rows, 0, 0, 0] = np.array([patch.label for patch in patches], np.uint8)
            meta.writerows((p.coord_y, p.coord_x, bool(p.mask.any()), p.label, p.slide) for p in patches)
            positive += sum(patch.label for patch in patches)
            seen |= {patch.slide for patch in patches}
            tick(len(patches))
    return {"n": n, "positive": positive, "slides": len(seen)}


def _patches(source: _Source, indices: range) -> Iterator[_Patch]:
    """The patches of `indices`, each a function of (seed, split, index) alone."""
    seed, split, slides = source.seed, source.split, source.slides
    at = np.arange(indices.start, indices.stop, dtype=np.int64)
    # Of each pair of neighbours one is positive: any even prefix is balanced.
    swapped = rng.bits(rng.key(seed, "synth", split, "labels"), (at // 2).astype(np.uint64)) & np.uint64(1)
    positive = (at & 1) != swapped.astype(np.int64)
    numbers = rng.uniform_at(rng.key(seed, "synth", split, "places"), at, 4)
    with_tumour = sum(slide.has_tumour for slide in slides)  # they stand first
    choices = np.where(positive, with_tumour, len(slides))
    slide_numbers = (numbers[:, 0] * choices).astype(np.int64)
    ring = ~positive & (slide_numbers < with_tumour) & (numbers[:, 1] < _RING_SHARE)
    for i, index in enumerate(indices):
        slide = slides[slide_numbers[i]]
        key = rng.key(seed, "synth", split, "patch", index)
        drawing = tissue.draw(source.bank, key, positive=bool(positive[i]), ring=bool(ring[i]))
        yield _Patch(
            pixels=slide.colours.take(drawing.stains, axis=0),
            mask=drawing.mask,
            slide=slide.name,
            coord_y=int(numbers[i, 2] * _SLIDE_SIDE),
            coord_x=int(numbers[i, 3] * _SLIDE_SIDE),
        )


def _source(seed: int, split: SplitName) -> _Source:
    """The bank and a split's slides, those with tumour first; the two scanners take turns."""
    slides = [
        _Slide(name, i < _SLIDES[split][0], _colours(rng.key(seed, "synth", split, "slide", i), scanner=i % 2))
        for i, name in enumerate(_slide_names(seed, split))
    ]
    return _Source(seed, split, tissue.make_bank(seed), slides)


def _slide_names(seed: int, split: SplitName) -> list[str]:
    """Names like the official ones; of the shuffled numbers train takes the first and valid the next."""
    with_tumour, without = _SLIDES[split]
    if split == "test":  # official names do not tell which of these hold tumour
        kinds = [("test", _TEST, 0, with_tumour + without)]
    else:
        t, w = (0, 0) if split == "train" else _SLIDES["train"]
        kinds = [("train_tumor", _TRAIN_TUMOR, t, with_tumour), ("train_normal", _TRAIN_NORMAL, w, without)]
    return [
        f"camelyon16_{kind}_{number:03d}"
        for kind, known, first, count in kinds
        for number in rng.permutation(rng.key(seed, "synth", kind, "slides"), known)[first : first + count] + 1
    ]


def _colours(key: int, scanner: int) -> NDArray[np.uint8]:
    """(65536, 3) the colour of 256 * hematoxylin + eosin: one slide's stains, their strength, and its lamp."""
    u = rng.uniform(key, 11)
    directions = _SCANNERS[scanner] + np.array([[0.04], [0.03]]) * (2 * u[:6].reshape(2, 3) - 1)
    directions /= np.sqrt((directions**2).sum(axis=1, keepdims=True))
    full = directions * (_FULL_STAIN * (0.7 + 0.6 * u[6:8]))[:, None] / 255
    white = 244 + 16 * u[8:11]  # past 255 the camera saturates
    amount = np.arange(256.0)[:, None]
    density = (amount * full[0])[:, None, :] + amount * full[1]
    rgb: NDArray[np.uint8] = np.minimum(np.round(white * np.exp(-density)), 255).astype(np.uint8)
    return rgb.reshape(65536, 3)


_MOST = 10_000_000


def _check(counts: dict[SplitName, int], dtype: str, compression: str) -> None:
    for split, n in counts.items():
        if not 0 <= n <= _MOST:
            raise DataError(
                f"{split}: {n} patches", valid=f"0 (the split is left out) to {_MOST:,}", next=f"give --{split} a count"
            )
    if not any(counts.values()):
        raise DataError(
            "all splits have 0 patches", valid="at least one patch in one split", next="give --train a count"
        )
    if dtype not in get_args(Dtype):
        raise DataError(f"dtype {dtype!r}", valid=", ".join(get_args(Dtype)), next="choose one with --dtype")
    if compression not in get_args(Compression):
        raise DataError(
            f"compression {compression!r}", valid=", ".join(get_args(Compression)), next="choose one of these"
        )
