"""Drawn tissue: the planes of stain and the tumour mask behind `synth`.

A patch is drawn as the amounts of hematoxylin and of eosin in each pixel; its slide's table turns them into colours.
The random numbers come from `histoproof.rng`, what sines and exponentials made is rounded, and no float32 sum depends
on the order of its terms: a patch should depend neither on the machine nor on a library's version.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import rng

__all__ = ["CENTRE", "Bank", "Drawing", "draw", "make_bank"]

CENTRE = slice(32, 64)
"""Rows and columns of a patch whose tumour pixels decide its label."""

_SIDE = 96
_PAD = 16  # a cell whose centre lies just outside the patch reaches into it
_CANVAS = _SIDE + 2 * _PAD
_INNER = slice(_PAD, _PAD + _SIDE)
_SPRITES = 64

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]
Range = tuple[float, float]


@dataclass(frozen=True)
class _Cell:
    """How a kind of cell looks. Lengths in pixels of about 1 um, amounts of stain 0..255."""

    side: int
    """Of its sprites."""
    radius: Range
    stretch: Range
    """Length of the nucleus over its width."""
    rough: float
    """Depth of the irregularities of its outline, relative to the radius."""
    chromatin: Range
    """Hematoxylin inside the nucleus."""
    rim: float
    """More of it along the nuclear membrane."""
    nucleoli: int
    cytoplasm: float
    """Eosin around the nucleus."""
    body: float
    """Radius of the cell, relative to the nucleus."""


@dataclass(frozen=True)
class _Ground:
    """A kind of tissue: which cells, how far apart (pixels), how many of them are there, and what lies between them."""

    cell: str
    spacing: Range
    keep: Range
    eosin: Range
    fibres: float
    haze: float


_CELLS = {
    "lymphocyte": _Cell(11, (2.8, 3.9), (1.0, 1.2), 0.05, (150, 225), 20, 0, 60, 1.3),
    "spindle": _Cell(17, (2.2, 3.2), (1.8, 3.0), 0.08, (110, 190), 15, 0, 0, 1.0),
    "histiocyte": _Cell(17, (3.6, 5.4), (1.1, 1.5), 0.07, (60, 120), 50, 1, 80, 1.7),
    "tumour": _Cell(21, (4.0, 6.4), (1.0, 1.5), 0.13, (45, 125), 60, 2, 105, 1.6),
}
_GROUNDS = {
    "lymphoid": _Ground("lymphocyte", (6.0, 8.0), (0.8, 1.0), (10, 70), 20, 16),
    "mixed": _Ground("lymphocyte", (7.5, 13.0), (0.4, 0.9), (40, 110), 45, 10),
    "stroma": _Ground("spindle", (12.0, 18.0), (0.3, 0.9), (70, 140), 75, 4),
    "sinus": _Ground("histiocyte", (9.5, 14.0), (0.5, 1.0), (25, 100), 30, 10),
    "tumour": _Ground("tumour", (10.5, 16.0), (0.55, 1.0), (15, 105), 30, 10),
}
_BENIGN = ("lymphoid", "lymphoid", "mixed", "stroma", "sinus")


@dataclass(frozen=True)
class Bank:
    """What all patches of one seed are drawn from."""

    cells: dict[str, tuple[NDArray[np.int64], NDArray[np.uint16]]]
    """Per kind, (p,) the pixels of its sprites as steps on the canvas, and (64, p) 256 * hematoxylin + eosin there."""
    fibres: NDArray[np.uint8]
    """(4096,): a profile across fibres, four samples per pixel, periodic, mean 128."""
    splines: dict[int, Plane]
    """Weights that stretch k values smoothly: (128, 8) over the canvas, (96, 24) over the patch."""


@dataclass(frozen=True)
class Drawing:
    """One patch before it is coloured."""

    stains: NDArray[np.uint16]
    """(96, 96): 256 * hematoxylin + eosin, the row of the slide's colour table."""
    mask: Mask
    """(96, 96): where tumour lies."""


class _Numbers:
    """The keyed random numbers of one patch, handed out in order."""

    def __init__(self, key: int) -> None:
        self._key, self._words = key, 0
        self.grain: NDArray[np.uint8] = self._more(_SIDE * _SIDE // 8).view(np.uint8).reshape(_SIDE, _SIDE)
        self._units = self._more_units()
        self._scalars: Iterator[float] = iter(self.many(64).tolist())

    def _more(self, words: int) -> NDArray[np.uint64]:
        counters = np.arange(self._words, self._words + words, dtype=np.uint64)
        self._words += words
        return rng.bits(self._key, counters).astype("<u8", copy=False)

    def _more_units(self) -> Plane:
        return self._more(1536).view("<u2").astype(np.float32) * 2**-16

    def many(self, n: int) -> Plane:
        """The next n numbers: multiples of 2**-16 in [0, 1)."""
        while len(self._units) < n:
            self._units = np.concatenate([self._units, self._more_units()])
        taken, self._units = self._units[:n], self._units[n:]
        return taken

    def between(self, low: float, high: float) -> float:
        """The next number, scaled to [low, high)."""
        return low + (high - low) * next(self._scalars)

    def direction(self) -> tuple[float, float]:
        """(sine, cosine) of a random angle, in 256ths: the last bit of a library's sine changes nothing."""
        angle = self.between(0, 2 * np.pi)
        return round(256 * np.sin(angle)) / 256, round(256 * np.cos(angle)) / 256


def draw(bank: Bank, key: int, *, positive: bool, ring: bool) -> Drawing:
    """The patch of `key`. `positive`: tumour reaches the centre 32x32 px; `ring`: it lies around the centre only."""
    n = _Numbers(key)
    mask = _tumour(bank, n, positive=positive, ring=ring)
    tissue, fat = _tissue(bank, n, mask, likely=0.15 if positive else 0.38)
    kinds = [_GROUNDS[_BENIGN[int(n.between(0, len(_BENIGN)))]] for _ in range(2)] + [_GROUNDS["tumour"]]
    if fat:
        kinds[0] = _GROUNDS["mixed"]
    where = (_level(bank, n, slope=n.between(0, 1)) > n.between(-5, 45)).astype(np.uint8)
    where[mask] = 2
    alive = tissue > 0.6
    cells = np.zeros(_CANVAS * _CANVAS, np.uint16)
    for i, kind in enumerate(kinds):
        _place(cells, bank, n, kind, (where == i) & alive)
    if mask.any() and n.between(0, 1) < 0.5:  # lymphocytes infiltrate many tumours
        _place(cells, bank, n, _GROUNDS["mixed"], mask)
    inner = (_INNER, _INNER)
    visible = cells.reshape(_CANVAS, _CANVAS)[inner]
    stains = _mix(bank, n, cells=visible, where=where[inner], kinds=kinds, tissue=tissue[inner])
    return Drawing(stains=stains, mask=mask[inner])


def _tumour(bank: Bank, n: _Numbers, *, positive: bool, ring: bool) -> Mask:
    """(128, 128): where a rough slope rises above a waterline, which the centre reaches (`positive`) or does not."""
    level = _level(bank, n, slope=1.0, wobble=n.between(4, 12))
    inner = level[_INNER, _INNER]
    top = float(inner[CENTRE, CENTRE].max())
    depth, gap = n.between(5, 90), n.between(0.15, 0.6)
    if positive:
        return level > top - depth
    if ring:  # the waterline lies between the highest points of the centre and of the patch
        return level > top + gap * (float(inner.max()) - top)
    return np.zeros_like(level, dtype=np.bool_)


def _tissue(bank: Bank, n: _Numbers, mask: Mask, *, likely: float) -> tuple[Plane, bool]:
    """(128, 128) how much tissue there is, from 0 (glass, gaps, fat) to 1, and whether it is fat; 1 in all tumour."""
    kind = n.between(0, 1) / likely
    if kind >= 1:
        return np.ones_like(mask, dtype=np.float32), False
    if kind < 0.5:
        tissue = _fat(bank, n)
    else:
        edge = _level(bank, n, slope=1.0 if kind < 0.75 else 0.2, wobble=n.between(20, 45))
        waterline = min(n.between(-25, 30), float(edge[_INNER, _INNER].max()) - 25)  # no patch is all glass
        tissue = np.clip((edge - waterline) * 0.4, 0, 1)
    tissue[mask] = 1
    return tissue, kind < 0.5


def _fat(bank: Bank, n: _Numbers) -> Plane:
    """Fat cells: the round, empty insides of a Voronoi diagram, and what is left between them."""
    spacing = n.between(34, 64)
    at = np.arange(_CANVAS, dtype=np.float32)
    nearest = np.full((_CANVAS, _CANVAS), 1e9, np.float32)
    second = nearest.copy()
    for y, x in zip(*_lattice(n, spacing, jitter=0.6), strict=True):
        distance = np.add.outer((at - y) ** 2, (at - x) ** 2)
        np.minimum(second, np.maximum(nearest, distance), out=second)
        np.minimum(nearest, distance, out=nearest)
    to_border = (second - nearest) * (0.5 / spacing)
    to_round = (0.62 * spacing) - np.sqrt(nearest)
    inside = np.minimum(to_border, to_round) + _noise(bank, n, 8) * 3
    left: Plane = np.clip(n.between(1.0, 3.0) - inside, 0, 1)
    return left


def _level(bank: Bank, n: _Numbers, *, slope: float, wobble: float = 30) -> Plane:
    """(128, 128): a plane that rises by `slope` per pixel in a random direction, plus noise of up to `wobble`."""
    down, right = n.direction()
    at = np.arange(_CANVAS, dtype=np.float32) - (_CANVAS / 2)
    plane = at[:, None] * (slope * down) + at * (slope * right)
    out: Plane = plane + _noise(bank, n, 8) * wobble
    return out


def _noise(bank: Bank, n: _Numbers, k: int) -> Plane:
    """Smooth noise within [-1, 1] from k random values along each side: (128, 128) for k = 8, (96, 96) for 24.

    Whole numbers up to 127 are multiplied twice by 256ths that sum to 1: float32 holds every partial sum exactly, so
    the order in which a BLAS adds does not matter. The sizes are small enough for OpenBLAS to start no threads.
    """
    values = np.floor(n.many(k * k) * 255).reshape(k, k) - 127
    weights = bank.splines[k]
    out: Plane = (weights @ values @ weights.T) * (1 / 127)
    return out


def _lattice(n: _Numbers, spacing: float, jitter: float) -> tuple[Plane, Plane]:
    """Rows and columns of a hexagonal lattice over the canvas, each point moved by up to jitter/2 of the spacing."""
    rows, columns = int(_CANVAS / (0.87 * spacing)) + 2, int(_CANVAS / spacing) + 2
    start = n.many(2) - 1
    moved = (n.many(2 * rows * columns).reshape(2, rows, columns) - 0.5) * jitter
    row, column = np.arange(rows, dtype=np.float32)[:, None], np.arange(columns, dtype=np.float32)
    y = (row + start[0]) * 0.87 + moved[0]
    x = column + start[1] + 0.5 * (row % 2) + moved[1]
    return y.ravel() * spacing, x.ravel() * spacing


def _place(cells: NDArray[np.uint16], bank: Bank, n: _Numbers, ground: _Ground, region: Mask) -> None:
    """Stamp a ground's cells where their centres lie in `region`; where two overlap, the darker pixel is seen."""
    if not region.any():
        return
    offsets, sprites = bank.cells[ground.cell]
    side = _CELLS[ground.cell].side
    y, x = (np.floor(v).astype(np.int32) for v in _lattice(n, n.between(*ground.spacing), jitter=0.7))
    kept = n.many(len(y)) < n.between(*ground.keep)
    # A patch takes its cells from half of the sizes, so that patches differ more than cells do.
    which = ((n.many(len(y)) + n.between(0, 1)) * (_SPRITES // 2)).astype(np.int32)
    top, left = y - side // 2, x - side // 2
    kept &= (top >= 0) & (top <= _CANVAS - side) & (left >= 0) & (left <= _CANVAS - side)
    kept[kept] = region[y[kept], x[kept]]
    pixels = (top[kept] * _CANVAS + left[kept])[:, None] + offsets
    np.maximum.at(cells, pixels.ravel(), sprites[which[kept]].ravel())


def _mix(
    bank: Bank, n: _Numbers, *, cells: NDArray[np.uint16], where: NDArray[np.uint8], kinds: list[_Ground], tissue: Plane
) -> NDArray[np.uint16]:
    """Lay cells over fibres over haze, add grain, thin it by `tissue`. All are (96, 96); `where` counts in `kinds`."""
    eosin = np.array([n.between(*kind.eosin) for kind in kinds], np.float32)
    fibres = np.array([kind.fibres / 128 for kind in kinds], np.float32)
    haze = np.array([kind.haze for kind in kinds], np.float32)
    profile = np.arange(256, dtype=np.float32) - 128
    between_cells = (eosin[:, None] + fibres[:, None] * profile).ravel()
    warp, patchy = _noise(bank, n, 8)[_INNER, _INNER], _noise(bank, n, 24)
    e = between_cells[where * np.uint16(256) + _fibre_texture(bank, n, warp)] + patchy * 45
    h = haze[where] + patchy * 25
    nuclei = (cells >> 8).astype(np.float32) * n.between(0.7, 1.12)
    np.maximum(e, (cells & 255).astype(np.float32) * n.between(0.6, 1.1) + patchy * 30, out=e)
    np.maximum(h, nuclei, out=h)
    e *= 1 - nuclei * (1 / 400)
    h += (n.grain >> 4).astype(np.float32) - 7.5
    e += (n.grain & 15).astype(np.float32) - 7.5
    h, e = (np.clip(plane * tissue, 0, 255) for plane in (h, e))
    stains: NDArray[np.uint16] = h.astype(np.uint16) * np.uint16(256) + e.astype(np.uint16)
    return stains


def _fibre_texture(bank: Bank, n: _Numbers, warp: Plane) -> NDArray[np.uint8]:
    """(96, 96) parallel fibres in a random direction, bent by `warp`; mean 128."""
    down, right = n.direction()
    at = np.arange(_SIDE, dtype=np.float32) * 4  # in samples of the profile
    across = at[:, None] * down + at * right + warp * n.between(10, 110)
    samples = (across + n.between(1000, 3000)).astype(np.int32)  # positive: truncation is floor
    out: NDArray[np.uint8] = bank.fibres[samples & 4095]
    return out


def make_bank(seed: int) -> Bank:
    """Draw the sprites and the tables of one seed."""
    return Bank(
        cells={name: _sprites(rng.key(seed, "synth", "cells", name), cell) for name, cell in _CELLS.items()},
        fibres=_fibres(rng.key(seed, "synth", "fibres")),
        splines={8: _spline(8, _CANVAS), 24: _spline(24, _SIDE)},
    )


def _spline(k: int, length: int) -> Plane:
    """(length, k) cubic B-spline weights in 256ths; each row sums to 1."""
    distance = np.abs(np.linspace(0, k - 1, length)[:, None] - np.arange(k))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    weights = np.round(256 * weights / weights.sum(1, keepdims=True))
    weights[np.arange(length), weights.argmax(1)] += 256 - weights.sum(1)
    out: Plane = (weights / 256).astype(np.float32)
    return out


def _fibres(key: int) -> NDArray[np.uint8]:
    """(4096,) noise with wavelengths of 2 to 30 pixels."""
    waves = np.fft.rfft(rng.uniform(key, 4096) - 0.5)
    frequency = np.maximum(np.arange(len(waves)), 1.0)
    profile = np.fft.irfft(waves * frequency**-0.8 / (1 + (34 / frequency) ** 4) / (1 + (frequency / 400) ** 4))
    out: NDArray[np.uint8] = np.clip(np.round(128 + 50 * profile / profile.std()), 0, 255).astype(np.uint8)
    return out


def _sprites(key: int, cell: _Cell) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """`Bank.cells` of one kind, from the smallest to the largest."""
    sizes = np.linspace(*cell.radius, _SPRITES)
    sprites = np.stack([_sprite(rng.uniform(rng.key(key, i), 23), cell, float(size)) for i, size in enumerate(sizes)])
    y, x = np.nonzero(sprites.any(axis=0))
    return y * _CANVAS + x, sprites[:, y, x]


def _sprite(u: NDArray[np.float64], cell: _Cell, radius: float) -> NDArray[np.uint16]:
    """(side, side) one cell, from 23 numbers in [0, 1)."""
    at = np.arange(cell.side) - cell.side // 2
    y, x = at[:, None] + u[0] - 0.5, at + u[1] - 0.5
    turn, stretch = 2 * np.pi * u[2], np.sqrt(cell.stretch[0] + (cell.stretch[1] - cell.stretch[0]) * u[3])
    along, across = (x * np.cos(turn) + y * np.sin(turn)) / stretch, (y * np.cos(turn) - x * np.sin(turn)) * stretch
    angle = np.arctan2(across, along)
    waves = [(a - 0.3) * np.cos(k * angle + 2 * np.pi * b) for k, (a, b) in enumerate(u[4:12].reshape(4, 2), start=2)]
    inside = radius * (1 + cell.rough * np.sum(waves, 0)) - np.hypot(along, across)  # pixels from the outline inwards
    h = cell.chromatin[0] + (cell.chromatin[1] - cell.chromatin[0]) * u[12]
    h = h + cell.rim * np.exp(-(((inside - 0.8) / 0.8) ** 2))
    h = h + 18 * np.sin(y * (1.3 + u[13]) + 6 * u[14]) * np.sin(x * (1.3 + u[15]) + 6 * u[16])  # clumps of chromatin
    for i, (a, b, c) in enumerate(u[17:23].reshape(2, 3)[: cell.nucleoli]):
        r, phi = 0.45 * radius * a, 2 * np.pi * b
        apart = (along - r * np.cos(phi)) ** 2 + (across - r * np.sin(phi)) ** 2
        h = h + 110 * (c > 0.4 * i) * np.exp(-apart / 1.6)  # not all have a second one
    h = h * np.clip(inside + 0.5, 0, 1)
    e = cell.cytoplasm * np.clip((inside + radius * (cell.body - 1)) / 2 + 0.5, 0, 1)
    hematoxylin, eosin = (np.clip(np.round(plane), 0, 255).astype(np.uint16) for plane in (h, e))
    out: NDArray[np.uint16] = hematoxylin * np.uint16(256) + eosin
    return out
