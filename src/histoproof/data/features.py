"""Fast features of a patch, for the model that doubts labels: colour, local binary patterns, and how often small shapes occur.

The label speaks of the centre 32x32 px, so everything is pooled over the centre with the ring around it (a quarter centre, three
quarters ring) and over the whole patch. Nothing is learnt from labels, and nothing comes pretrained.

Shapes: at every second pixel the local jet of three colour channels at several scales (blurred value, gradient, Laplacian, and
difference of the Hessian's eigenvalues: Koenderink & van Doorn 1987; turning a patch changes none of them), passed through
random cosines (Rahimi & Recht 2007), averaged. So the average is a smooth histogram of local shapes.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .. import rng
from ..compute import Workers, available_cores, deterministic

__all__ = ["FAMILIES", "Features"]

FAMILIES = (261, 120, 256, 256)
"""How many numbers there are of colour, binary patterns, and shapes in densities and in values."""
_CPU = torch.device("cpu")
_SIDE, _STRIDE, _COSINES, _BANDWIDTH = 96, 2, 128, 2.0
_SCALES = {"density": (1.0, 2.0, 4.0), "rgb": (0.7, 1.4, 2.8, 5.6)}
_TOGETHER = 32
"""Patches that are computed at a time: what they need stays within tens of MB."""
_FIRST = 256
"""Patches that the jets are standardised by: the first ones of a split."""
# Optical densities of hematoxylin, eosin and a residue (Ruifrok & Johnston 2001).
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


class Features:
    """The features of one split's patches, gathered block by block."""

    def __init__(self) -> None:
        self._waiting: list[NDArray[np.uint8]] = []
        self._scale: dict[str, tuple[Tensor, Tensor]] | None = None
        self._found: list[NDArray[np.float16]] = []

    def add(self, block: NDArray[np.uint8]) -> None:
        """See the next patches (n, 96, 96, 3)."""
        if self._scale is None:
            self._waiting.append(block.copy())
            if sum(map(len, self._waiting)) < _FIRST:
                return
            self._begin()
        else:
            self._found.append(self._compute(block))

    def matrix(self) -> NDArray[np.float16]:
        """(N, D) features of all patches so far."""
        if self._scale is None and self._waiting:
            self._begin()
        return np.concatenate(self._found) if self._found else np.zeros((0, 0), np.float16)

    def _begin(self) -> None:
        first = np.concatenate(self._waiting)
        with deterministic(_CPU, 1):
            self._scale = {}
            for kind in _SCALES:
                parts = [
                    _jets(_channels(first[k : k + _TOGETHER], kind), kind)
                    for k in range(0, min(len(first), _FIRST), _TOGETHER)
                ]
                jets = torch.cat([part[:, ::8] for part in parts]).flatten(0, 1)
                self._scale[kind] = jets.mean(0), jets.std(0, correction=0) + 1e-6
        self._found = [self._compute(block) for block in self._waiting]
        self._waiting = []

    def _compute(self, block: NDArray[np.uint8]) -> NDArray[np.float16]:
        starts = range(0, len(block), _TOGETHER)
        workers = Workers(min(available_cores(), len(starts)) or 1)
        try:
            with deterministic(_CPU, 1):
                parts = workers.share(lambda _, k: self._some(block[k * _TOGETHER : (k + 1) * _TOGETHER]), len(starts))
        finally:
            workers.close()
        return np.concatenate(parts)

    def _some(self, patches: NDArray[np.uint8]) -> NDArray[np.float16]:
        assert self._scale is not None
        parts = [_colour(patches), _binary_patterns(patches)]
        for kind in _SCALES:
            mean, deviation = self._scale[kind]
            z = ((_jets(_channels(patches, kind), kind) - mean) / deviation).clamp_(-5, 5)
            weights, phases = _cosines(z.shape[-1], kind)
            shapes = (z @ weights).mul_(_BANDWIDTH).add_(phases).cos_()
            parts.append((_pools(_SIDE // _STRIDE) @ shapes).flatten(1))
        return torch.cat(parts, dim=1).numpy().astype(np.float16)


def _channels(patches: NDArray[np.uint8], kind: str) -> Tensor:
    """(n, 3, 96, 96): brightness, and two differences of colours; of optical densities or of values in 0-1."""
    x = torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2).float()
    r, g, b = (-torch.log((x + 1) / 256) if kind == "density" else x / 255).unbind(1)
    return torch.stack([(r + g + b) / 3, r - (0.7 if kind == "density" else 1.0) * g, b - (r + g) / 2], dim=1)


def _jets(channels: Tensor, kind: str) -> Tensor:
    """(n, 48 * 48, 12 per scale): value, gradient, Laplacian and eccentricity of the Hessian."""
    found = []
    for sigma in _SCALES[kind]:
        blur, first, second = (_derivative(sigma, order) for order in range(3))
        along = [channels @ m for m in (blur, first, second)]
        b, d, dd = (a.transpose(2, 3) for a in along)
        value, dx, dy = b @ blur, d @ blur, b @ first
        dxx, dyy, dxy = dd @ blur, b @ second, d @ first
        found += [value, (dx**2 + dy**2).sqrt_(), dxx + dyy, ((dxx - dyy) ** 2 + 4 * dxy**2).sqrt_()]
    return torch.cat(found, dim=1).flatten(2).transpose(1, 2)


def _derivative(sigma: float, order: int) -> Tensor:
    """(96, 48): a Gaussian's derivative, times sigma to its order, at every second pixel; reflected at the border."""
    reach = int(4 * sigma + 1)
    k = np.arange(-reach, reach + 1)
    kernel = np.exp(-(k**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    if order == 1:
        kernel = -k / sigma * kernel
    if order == 2:
        kernel = (k**2 / sigma**2 - 1) * kernel
        kernel -= kernel.mean()
    matrix = np.zeros((_SIDE, _SIDE // _STRIDE), np.float32)
    for column in range(_SIDE // _STRIDE):
        at = np.abs(column * _STRIDE + k)
        at = np.where(at >= _SIDE, 2 * _SIDE - 2 - at, at)
        matrix[:, column] = np.bincount(at, weights=kernel, minlength=_SIDE)
    return torch.from_numpy(matrix)


def _cosines(inputs: int, kind: str) -> tuple[Tensor, Tensor]:
    """Random weights (inputs, 128), standard normal over the root of `inputs`, and phases (128,); always the same ones."""
    draws = np.clip(rng.uniform(rng.key(0, "cosines", kind), 2 * inputs * _COSINES), 1e-12, 1)
    normal = np.sqrt(-2 * np.log(draws[::2])) * np.cos(2 * math.pi * draws[1::2])
    phases = 2 * math.pi * rng.uniform(rng.key(0, "phases", kind), _COSINES)
    weights = (normal / math.sqrt(inputs)).reshape(inputs, _COSINES)
    return torch.from_numpy(weights.astype(np.float32)), torch.from_numpy(phases.astype(np.float32))


def _regions(side: int) -> Tensor:
    """(3, side * side), each row adding up to 1: the centre third, the ring to two thirds, the rest."""
    step = _SIDE // side
    y, x = np.mgrid[:side, :side] * step
    r = np.maximum(np.abs(y - 47.5), np.abs(x - 47.5)).ravel()
    masks = np.stack([r < 16, (r >= 16) & (r < 32), r >= 32]).astype(np.float32)
    return torch.from_numpy(masks / masks.sum(1, keepdims=True))


def _pools(side: int) -> Tensor:
    """(2, side * side): a quarter centre and three quarters ring; and the whole patch."""
    centre, ring, rest = _regions(side)
    return torch.stack([(centre + 3 * ring) / 4, (1024 * centre + 3072 * ring + 5120 * rest) / 9216])


def _colour(patches: NDArray[np.uint8]) -> Tensor:
    """(n, 3 * (8 * 9 + 15)): moments and quantiles of colours and stains in each region, and how they go together."""
    x = torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2).float()
    density = -torch.log((x + 1) / 256)
    unit = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
    stains = torch.einsum("nchw,ck->nkhw", density, torch.from_numpy(np.linalg.inv(unit).astype(np.float32)))
    x = x / 255
    all_ = torch.cat([x, stains, density.sum(1, keepdim=True), x[:, :1] - x[:, 2:]], dim=1).flatten(2)
    found = []
    for region in _regions(_SIDE):
        values = all_[:, :, region > 0]
        mean, deviation = values.mean(2), values.std(2)
        z = (values - mean[..., None]) / (deviation[..., None] + 1e-4)
        quantiles = torch.quantile(values, torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]), dim=2)
        together = z[:, :6] @ z[:, :6].transpose(1, 2) / values.shape[2]
        above = torch.triu_indices(6, 6, 1)
        found += [mean, deviation, (z**3).mean(2), (z**4).mean(2), *quantiles, together[:, above[0], above[1]]]
    return torch.cat(found, dim=1)


def _binary_patterns(patches: NDArray[np.uint8]) -> Tensor:
    """(n, 2 * 60): uniform rotation-invariant local binary patterns (Ojala et al. 2002) of density and stain, 3 scales."""
    x = torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2).float()
    density = -torch.log((x + 1) / 256)
    unit = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
    weights = torch.from_numpy(np.linalg.inv(unit)[:, 0].astype(np.float32))
    channels = torch.stack([density.mean(1), torch.einsum("nchw,c->nhw", density, weights)], dim=1)
    histograms = [_patterns(channels, sigma, radius) for sigma, radius in ((0.0, 1), (1.0, 2), (1.5, 4))]
    return (torch.cat(histograms, dim=1) @ _pools(_SIDE).t()).transpose(1, 2).flatten(1)


def _patterns(channels: Tensor, sigma: float, radius: int) -> Tensor:
    """(n, 2 * 10, 96 * 96): which of 10 patterns each pixel is the middle of; none within 4 px of the border."""
    smooth = _smoothed(channels, sigma) if sigma else channels
    middle = smooth[:, :, 4:-4, 4:-4]
    around = [smooth[:, :, 4 + y : 92 + y, 4 + x : 92 + x] for y, x in _circle(radius)]
    bits = torch.stack([(neighbour > middle + 0.01).float() for neighbour in around], dim=2)
    changes = (bits != bits.roll(1, 2)).sum(2)
    code = torch.where(changes <= 2, bits.sum(2).long(), 9)
    one_hot = F.one_hot(code, 10).float().permute(0, 1, 4, 2, 3).flatten(1, 2)
    return F.pad(one_hot, (4, 4, 4, 4)).flatten(2)


def _circle(radius: int) -> Iterator[tuple[int, int]]:
    diagonal = max(1, round(radius * math.sqrt(0.5)))
    for y, x in ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)):
        length = diagonal if y and x else radius
        yield y * length, x * length


def _smoothed(channels: Tensor, sigma: float) -> Tensor:
    reach = int(3 * sigma + 0.5)
    k = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * sigma**2))
    k /= k.sum()
    n = channels.shape[1]
    padded = F.pad(channels, (reach, reach, reach, reach), mode="reflect")
    across = F.conv2d(padded, k.view(1, 1, 1, -1).expand(n, 1, 1, -1), groups=n)
    return F.conv2d(across, k.view(1, 1, -1, 1).expand(n, 1, -1, 1), groups=n)
