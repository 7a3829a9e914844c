"""Lay one patch over another: by how many pixels is it shifted, how much brighter is it, and do they show the same?

What decides is the fine texture (structures of about 1 to 4 px), with its local contrast made even. Two patches that merely
look alike in the large (an edge of tissue, a cell on glass) have nothing in common there, a copy has nearly everything; and
one dark spot cannot speak for a whole patch of glass.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pcam import PATCH_SHAPE
from .sketch import luminance

__all__ = ["MAX_SHIFT", "MIN_SIMILARITY", "MIN_SPREAD", "MIN_TEXTURE", "Overlay", "overlay"]

MIN_SIMILARITY = 0.6
"""Correlation of the fine texture from which two patches show the same. Of real patches, copies changed in two ways reach 0.90
where tissue fills the patch (250 patches, 17 kinds); the most alike pairs that are no copies, of 5,632 patches, 0.35."""
MIN_SPREAD = 0.2
"""The same correlation in the median of 16 tiles: a copy is one everywhere, also in the noise of its glass. On the most sparsely
covered 2 % of real patches, copies that are alike enough reach 0.20, the most alike pairs that are no copies 0.17."""
MIN_TEXTURE = 0.75
"""Grey levels (standard deviation) of fine texture that both patches must have: less is glass and the noise of the camera."""
MAX_SHIFT = 4
"""px, down or up and left or right: twice 2, for two copies of one patch that were shifted apart."""

_SIDE = PATCH_SHAPE[0]
_EDGE = 6  # px at the border that are not compared: a shifted copy's border is made up
_BLANK = 0.02  # standard deviation of the evened texture in a tile that holds nothing
_FLOOR = 2.0  # grey levels: local contrast below this is noise, and is not blown up


@dataclass(frozen=True)
class Overlay:
    """n pairs laid over each other; every field has shape (n,)."""

    equal: NDArray[np.bool_]
    """The same pixels: a copy, not a near one."""
    same: NDArray[np.bool_]
    """Shows the same: similarity of MIN_SIMILARITY, MIN_SPREAD in the median tile, MIN_TEXTURE in both, or more."""
    similarity: NDArray[np.float64]
    """-1..1."""
    down: NDArray[np.int64]
    """px by which the second patch's content lies lower."""
    right: NDArray[np.int64]
    brightness: NDArray[np.float64]
    """Mean luminance of the second through that of the first."""
    difference: NDArray[np.float64]
    """Grey levels (rms of the luminance) that remain after the shift and the best gain and offset."""


def overlay(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Overlay:
    """Compare patches (n, 96, 96, 3) pair by pair."""
    grey = [luminance(p) / np.float32(256) for p in (first, second)]
    texture = [_blurred(g, _FINE) - _blurred(g, _COARSE) for g in grey]
    even = [t / np.sqrt(_blurred(t * t, _AROUND) + np.float32(_FLOOR**2)) for t in texture]
    down, right = _shift(even[0] * _TAPER, even[1] * _TAPER)
    rows = []
    for k in range(len(first)):
        a, b = _shared(int(down[k]), int(right[k]))
        least = min(float(texture[0][k][a].std()), float(texture[1][k][b].std()))
        one, two = even[0][k][a], even[1][k][b]
        rows.append((least, _correlation(one, two), _spread(one, two), *_light(grey[0][k][a], grey[1][k][b])))
    fine, similarity, spread, brightness, difference = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    equal = (first == second).all(axis=(1, 2, 3))
    same = (similarity >= MIN_SIMILARITY) & (spread >= MIN_SPREAD) & (fine >= MIN_TEXTURE)
    return Overlay(equal, same, similarity, down, right, brightness, difference)


def _shift(first: NDArray[np.float32], second: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the cross-correlation peaks, among shifts of at most MAX_SHIFT."""
    spectrum = np.conj(np.fft.rfft2(first)) * np.fft.rfft2(second)
    near = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
    peaks = np.fft.irfft2(spectrum, s=(_SIDE, _SIDE))[:, near[:, None], near].reshape(len(first), -1).argmax(1)
    return near[peaks // len(near)], near[peaks % len(near)]


def _shared(down: int, right: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of each patch that both show, without its edge: [y, x] of one is at [y + down, x + right] of the other."""
    y, x = ((_EDGE + max(0, -s), _SIDE - _EDGE - max(0, s)) for s in (down, right))
    one = (slice(*y), slice(*x))
    return one, (slice(y[0] + down, y[1] + down), slice(x[0] + right, x[1] + right))


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a.ravel() - a.mean(dtype=np.float64), b.ravel() - b.mean(dtype=np.float64)
    length = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / length if length else 0.0


def _spread(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Median correlation of the tiles that are not blank (saturated, say) in one of both."""
    tiles = [_tiles(x) for x in (a, b)]
    (x, y), lengths = tiles, [np.linalg.norm(t, axis=1) for t in tiles]
    some = np.minimum(*lengths) > _BLANK * np.sqrt(x.shape[1])
    if not some.any():
        return 0.0
    return float(np.median((x * y).sum(1)[some] / (lengths[0] * lengths[1])[some]))


def _tiles(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """(16, pixels): 4x4 tiles, the mean of each taken off."""
    height, width = (side // 4 for side in image.shape)
    tiles = (
        image[: 4 * height, : 4 * width].reshape(4, height, 4, width).swapaxes(1, 2).reshape(16, -1).astype(np.float64)
    )
    centred: NDArray[np.float64] = tiles - tiles.mean(1, keepdims=True)
    return centred


def _light(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
    """(brightness of b through that of a, rms of what gain and offset leave of b)."""
    mean_a, mean_b = float(a.mean(dtype=np.float64)), float(b.mean(dtype=np.float64))
    unexplained = float(b.var(dtype=np.float64)) * (1 - _correlation(a, b) ** 2)
    return (mean_b / mean_a if mean_a else 1.0), float(np.sqrt(max(unexplained, 0)))


def _blurred(images: NDArray[np.float32], blur: NDArray[np.float32]) -> NDArray[np.float32]:
    # Two tall products, not 2n of 96x96: those are each cut up among threads, a hundred times slower on a busy machine.
    once = (images.reshape(-1, _SIDE) @ blur.T).reshape(images.shape).swapaxes(1, 2)
    twice = (once.reshape(-1, _SIDE) @ blur.T).reshape(images.shape)
    return np.asarray(twice.swapaxes(1, 2), dtype=np.float32)


def _blur(sigma: float) -> NDArray[np.float32]:
    """(96, 96): multiply with it to blur along one side; beyond the border the border's value goes on."""
    at = np.arange(_SIDE)
    reach = int(4 * sigma + 0.5)
    matrix = np.zeros((_SIDE, _SIDE))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    for step, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
        np.add.at(matrix, (at, np.clip(at + step, 0, _SIDE - 1)), weight)
    return matrix.astype(np.float32)


def _taper() -> NDArray[np.float32]:
    at = np.arange(_SIDE)
    side = np.sin(np.pi / 2 * np.clip((np.minimum(at, _SIDE - 1 - at) - 1.5) / 16, 0, 1)) ** 2
    return np.outer(side, side).astype(np.float32)


_FINE, _COARSE, _AROUND = _blur(0.8), _blur(3.0), _blur(6.0)
_TAPER = _taper()
