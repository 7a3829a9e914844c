"""Patches without content (blackout, washout), told apart from real glass background by a stated rule."""

import numpy as np
from numpy.typing import NDArray

from .findings import Finding, Kind

__all__ = ["FLAT_RULE", "flat_finding", "may_be_flat"]

_SPAN, _STD, _NOISE, _DARK, _WHITE, _SHARE = 5, 8.0, 1.6, 8, 254, 0.99

FLAT_RULE = (
    f"blackout (mean below 128) or washout (128 and above): each colour channel spans at most {_SPAN} values; or {_SHARE:.0%} of "
    f"the values are {_DARK} or less, or {_WHITE} or more; or every channel's sd is below {_STD:g} and neighbouring pixels are "
    f"unrelated (mean squared difference above {_NOISE:g} times the variance; pure noise: 2). Real glass keeps the grain of "
    "scanner and JPEG: of 5,632 real patches the flattest spans 7 values in a channel, the darkest has no value below 11, and in "
    "the 26 with an sd below 8 that ratio is at most 0.94"
)


def may_be_flat(
    colour: NDArray[np.floating], contrast: NDArray[np.floating], sharpness: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """(n,): patches that need a look, from mean colour (n, 3), variance and mean squared difference to the pixel below (n,)."""
    mean = colour.mean(axis=1)
    dark = _DARK + (1 - _SHARE) * 255  # the highest mean of a patch with that share of its values dark
    # A span bounds steps between rows; noise takes steps as large as its variance allows (the mean colour may add to that).
    spread = contrast - colour.var(axis=1)
    noise = (sharpness < 2.5 * _STD**2) & (sharpness > _NOISE / 2 * spread)
    looked_at: NDArray[np.bool_] = (
        (sharpness <= _SPAN**2 / 2) | noise | (mean <= dark + 1) | (mean >= _WHITE * _SHARE - 1)
    )
    return looked_at


def flat_finding(patch: NDArray[np.uint8], split: str, index: int) -> Finding | None:
    """The finding blackout or washout if FLAT_RULE holds for a patch (96, 96, 3)."""
    if patch.min() == patch.max():  # quick: a file that was never written holds nothing else
        kind: Kind = "blackout" if patch.flat[0] < 128 else "washout"
        return Finding(kind, "error", split, index, f"every value is {int(patch.flat[0])}")
    few = np.ascontiguousarray(patch[::8].reshape(-1, 3).T)  # settles most patches: what it spans, the patch spans
    detail = None
    if int((few.max(axis=1) - few.min(axis=1)).max()) <= _SPAN:
        detail = _one_colour(patch)
    if detail is None and (share := np.count_nonzero(patch <= _DARK) / patch.size) >= _SHARE:
        detail = f"{share:.2%} of the values are {_DARK} or less"
    if detail is None and (share := np.count_nonzero(patch >= _WHITE) / patch.size) >= _SHARE:
        detail = f"{share:.2%} of the values are {_WHITE} or more"
    if detail is None and few.std(axis=1, dtype=np.float32).max() < 2 * _STD and _is_noise(patch):
        detail = f"noise around {patch.mean():.1f}, without the grain of real glass: neighbouring pixels are unrelated"
    if detail is None:
        return None
    return Finding("blackout" if patch.mean() < 128 else "washout", "error", split, index, detail)


def _one_colour(patch: NDArray[np.uint8]) -> str | None:
    pixels = patch.reshape(-1, 3)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    span = int((high - low).max())
    if span == 0:
        return f"one colour throughout: {tuple(int(v) for v in low)}"
    if span <= _SPAN:
        return f"no channel spans more than {span} values (mean {pixels.mean():.1f}): less than real glass's grain"
    return None


def _is_noise(patch: NDArray[np.uint8]) -> bool:
    values = np.ascontiguousarray(patch.transpose(2, 0, 1), dtype=np.float32)
    variance = values.reshape(3, -1).var(axis=1)
    if not (variance < _STD**2).all():
        return False
    steps = (np.diff(values, axis=1) ** 2).mean() + (np.diff(values, axis=2) ** 2).mean()
    return bool(steps / 2 > _NOISE * variance.mean())
