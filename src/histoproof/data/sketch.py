"""Sketches: 378 bytes that tell what a patch shows in the large, whatever its brightness, and how that would change if it moved.

A sketch holds the 63 lowest frequencies (8x8 without the mean) of the cosine transform of the luminance, seen through a
window that fades out over 16 px at the border, so that what a shift brings in hardly counts; and the derivative of each
for a shift down and to the right. A patch shifted by 2 px then lies near the plane that the other's three vectors span,
although not near the other itself; and rotations and flips are mere exchanges and signs. 63 numbers x 3 x float16.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .pcam import PATCH_SHAPE

__all__ = [
    "INVERSE",
    "MIN_RELIEF",
    "ORIENTATIONS",
    "Sketches",
    "join",
    "luminance",
    "mismatch",
    "sketch",
    "turn",
    "turn_sketch",
]

MIN_RELIEF = 0.75
"""Grey levels (rms, of 255) that a patch must vary by in the large, or it counts as glass and is compared with nothing."""
ORIENTATIONS = (
    "",
    "flipped top to bottom",
    "flipped left to right",
    "rotated by 180 degrees",
    "flipped along its main diagonal",
    "rotated by 90 degrees counterclockwise",
    "rotated by 90 degrees clockwise",
    "flipped along its other diagonal",
)
"""The 8 rotations and flips in words. Number t: transpose if t & 4, then reverse rows if t & 1, columns if t & 2."""
INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7])

_SIDE = PATCH_SHAPE[0]
_K = 8  # frequencies along each side
_FADE, _MARGIN = 16, 2  # px: the window is zero in the margin, where a shifted copy's border was filled in
_CHUNK = 16  # patches at once: their luminance stays in the cache
# Low frequencies carry nearly all the energy of an image (amplitude ~ 1/f): without a weight they alone would decide.
_FREQUENCY = np.hypot(*np.meshgrid(np.arange(_K), np.arange(_K)))
_WEIGHT = (_FREQUENCY**0.75).astype(np.float32)
_SIGNS = (-1.0) ** np.arange(_K)


@dataclass(frozen=True)
class Sketches:
    """Sketches of the patches of one split, or of several, that are no glass."""

    rows: NDArray[np.int32]
    """(n,): where each patch lies in what was sketched."""
    vectors: NDArray[np.float16]
    """(n, 3, 63): the pattern, of length 1; its derivative for a shift down, and to the right, each per px."""

    def __len__(self) -> int:
        return len(self.rows)


def luminance(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """256 times the luminance (BT.601), for (n, 96, 96, 3) as (n, 96, 96): whole numbers, so exact whatever the block's size."""
    grey = np.multiply(pixels[..., 0], 77, dtype=np.uint16)
    grey += np.multiply(pixels[..., 1], 150, dtype=np.uint16)
    grey += np.multiply(pixels[..., 2], 29, dtype=np.uint16)
    return grey.astype(np.float32)


def sketch(pixels: NDArray[np.uint8], start: int = 0) -> Sketches:
    """Sketch (n, 96, 96, 3) patches whose first has row `start`; those that vary by less than MIN_RELIEF are left out."""
    rows, vectors = [], []
    for begin in range(0, len(pixels), _CHUNK):
        grey = luminance(pixels[begin : begin + _CHUNK])
        grey -= (np.einsum("nyx,y,x->n", grey, _WINDOW, _WINDOW) / _WINDOW.sum() ** 2)[:, None, None]
        waves = np.matmul(np.matmul(_BASIS, grey), _BASIS.T)
        pattern, down, right = waves[:, :_K, :_K], waves[:, _K:, :_K], waves[:, :_K, _K:]
        relief = np.sqrt((pattern**2).sum((1, 2)) / (_WINDOW**2).sum() ** 2) / 256
        three = np.stack([pattern * _WEIGHT, -down * _WEIGHT, -right * _WEIGHT], 1).reshape(len(grey), 3, -1)[:, :, 1:]
        length = np.linalg.norm(three[:, 0], axis=1)
        seen = relief >= MIN_RELIEF
        rows.append(start + begin + np.flatnonzero(seen).astype(np.int32))
        vectors.append((three[seen] / length[seen, None, None]).astype(np.float16))
    return Sketches(np.concatenate(rows), np.concatenate(vectors)) if rows else join([])


def join(parts: list[Sketches]) -> Sketches:
    """Sketches one after another."""
    if not parts:
        return Sketches(np.empty(0, np.int32), np.empty((0, 3, _K * _K - 1), np.float16))
    return Sketches(np.concatenate([p.rows for p in parts]), np.concatenate([p.vectors for p in parts]))


def turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(n, 96, 96, ...) patches in one of the 8 orientations; a view."""
    turned = pixels.swapaxes(1, 2) if orientation & 4 else pixels
    return turned[:, :: -1 if orientation & 1 else 1, :: -1 if orientation & 2 else 1]


def turn_sketch(patterns: NDArray[Any], orientation: int) -> NDArray[np.float32]:
    """The patterns (n, 63) that the patches would have in that orientation, as float32."""
    flat = np.zeros((len(patterns), _K * _K), np.float32)
    flat[:, 1:] = patterns
    square = flat.reshape(-1, _K, _K)
    if orientation & 4:
        square = square.swapaxes(1, 2)
    if orientation & 1:
        square = square * _SIGNS[:, None].astype(np.float32)
    if orientation & 2:
        square = square * _SIGNS.astype(np.float32)
    return np.ascontiguousarray(square.reshape(len(patterns), -1)[:, 1:])


def mismatch(patterns: NDArray[np.float32], vectors: NDArray[np.float16]) -> NDArray[np.float64]:
    """The share (0-1) of each pattern (n, 63) that no shift and no brightness of its partner, `vectors` (n, 3, 63), explains."""
    basis, _ = np.linalg.qr(vectors.astype(np.float64).transpose(0, 2, 1))
    target = patterns.astype(np.float64)
    explained = np.einsum("ndk,nd->nk", basis, target)
    left: NDArray[np.float64] = 1 - (explained**2).sum(1) / (target**2).sum(1)
    return np.clip(left, 0, 1)


def _window() -> NDArray[np.float32]:
    at = np.arange(_SIDE)
    inside = np.clip((np.minimum(at, _SIDE - 1 - at) + 0.5 - _MARGIN) / _FADE, 0, 1)
    return (np.sin(np.pi / 2 * inside) ** 2).astype(np.float32)


def _basis(window: NDArray[np.float32]) -> NDArray[np.float32]:
    """(16, 96): windowed cosines, and what to multiply with for the transform of the image's derivative (by parts)."""
    waves = np.cos(np.pi * np.arange(_K)[:, None] * (np.arange(_SIDE) + 0.5) / _SIDE)
    waves = waves / np.linalg.norm(waves, axis=1, keepdims=True) * window
    padded = np.pad(waves, ((0, 0), (1, 1)))
    return np.concatenate([waves, -(padded[:, 2:] - padded[:, :-2]) / 2]).astype(np.float32)


_WINDOW = _window()
_BASIS = _basis(_WINDOW)
