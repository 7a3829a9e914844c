"""What a planted fault does to the pixels of one patch. Each is a pure function of the patch and a key."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ... import rng
from ..pcam import PATCH_SHAPE
from .spec import Blank, NearCopy, NonInteger, Outlier, OutOfRange, Values

__all__ = ["bad_values", "blank", "dihedral", "distinct", "near_copy", "outlier"]

Patch = NDArray[np.uint8]
Bad = Values | OutOfRange | NonInteger

_SIZE = int(np.prod(PATCH_SHAPE))
_TURNS = ("rotated 90", "rotated 180", "rotated 270", "mirrored", "mirrored, rotated 90", "mirrored, rotated 180",
          "mirrored, rotated 270")  # fmt: skip


def bad_values(pixels: NDArray[np.generic], plant: Bad, key: int) -> tuple[NDArray[np.float32], str]:
    """(patch in float32 with some bad values, what was done). `pixels` (96, 96, 3)."""
    out = pixels.astype(np.float32).reshape(-1)
    count = max(1, round(plant.share * _SIZE))
    places = rng.permutation(rng.key(key, "places"), _SIZE)[:count]
    draws = rng.uniform(rng.key(key, "values"), count + 1)
    if isinstance(plant, OutOfRange):
        value = plant.values[int(draws[count] * len(plant.values))]
        out[places] = value
        detail = f"{count} values are {value:g}"
    elif isinstance(plant, NonInteger):
        whole = np.minimum(np.floor(out[places]), 254)
        out[places] = whole + 0.25 * (1 + np.floor(draws[:count] * 3))  # a quarter, a half, three quarters
        detail = f"{count} values are not whole"
    elif plant.kind == "nan":
        out[places] = np.nan
        detail = f"{count} values are NaN"
    else:
        out[places] = np.where(draws[:count] < 0.5, -np.inf, np.inf)
        detail = f"{count} values are infinite"
    return out.reshape(PATCH_SHAPE), detail


def blank(plant: Blank, key: int) -> tuple[Patch, str]:
    """(a patch of one value, give or take the noise; what was done)."""
    level = plant.level if plant.level is not None else (0 if plant.kind == "blackout" else 255)
    values = np.full(_SIZE, float(level))
    if plant.noise:
        values += np.floor(rng.uniform(key, _SIZE) * (2 * plant.noise + 1)) - plant.noise
    detail = f"level {level}" + (f" +-{plant.noise}" if plant.noise else "")
    return np.clip(values, 0, 255).astype(np.uint8).reshape(PATCH_SHAPE), detail


def dihedral(pixels: Patch, turn: int) -> tuple[Patch, str]:
    """(the patch under rotation or reflection `turn`, 1 to 7; which one in words)."""
    turned = np.rot90(pixels[:, ::-1] if turn >= 4 else pixels, turn % 4)
    return np.ascontiguousarray(turned), _TURNS[turn - 1]


def distinct(pixels: Patch) -> bool:
    """Whether a patch differs from itself under all seven rotations and reflections (a blank one does not)."""
    return all(not np.array_equal(pixels, dihedral(pixels, turn)[0]) for turn in range(1, 8))


def near_copy(pixels: Patch, plant: NearCopy, key: int) -> tuple[Patch, str]:
    """(the patch re-encoded, brighter or darker, or shifted; what was done)."""
    u = rng.uniform(key, 4)
    how = plant.how if plant.how != "mixed" else ("jpeg", "brightness", "shift")[int(u[0] * 3)]
    if how == "jpeg":
        low, high = plant.jpeg_quality
        quality = low + int(u[1] * (high - low + 1))
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
        return np.asarray(Image.open(buffer), dtype=np.uint8).copy(), f"jpeg q={quality}"
    if how == "brightness":
        change = (0.2 + 0.8 * u[1]) * plant.brightness * (-1 if u[2] < 0.5 else 1)
        changed = np.clip(np.rint(pixels * (1 + change)), 0, 255).astype(np.uint8)
        return changed, f"brightness {change:+.1%}"
    side = 2 * plant.shift + 1
    place = int(u[1] * (side * side - 1))
    place += place >= side * side // 2  # the middle is no shift
    down, right = place // side - plant.shift, place % side - plant.shift
    padded = np.pad(pixels, ((plant.shift, plant.shift), (plant.shift, plant.shift), (0, 0)), mode="edge")
    top, left = plant.shift - down, plant.shift - right
    return padded[top : top + PATCH_SHAPE[0], left : left + PATCH_SHAPE[1]].copy(), f"shift {down:+d},{right:+d} px"


def outlier(pixels: Patch, plant: Outlier, key: int) -> tuple[Patch, str]:
    """(the patch far too dark, without or with too much colour, out of focus, or of another stain; what was done)."""
    u = rng.uniform(key, 2)
    how = plant.how if plant.how != "mixed" else ("brightness", "saturation", "blur", "stain")[int(u[0] * 4)]
    if how == "blur":
        radius = 6
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius))).copy(), f"blur {radius} px"
    if how == "stain":
        return np.ascontiguousarray(pixels[..., [1, 0, 2]]), "stain: red and green exchanged"
    values = pixels.astype(np.float64)
    if how == "brightness":
        return np.rint(values * 0.25).astype(np.uint8), "brightness x 0.25"
    grey = values.mean(axis=2, keepdims=True)
    factor = 0.0 if u[1] < 0.5 else 3.0
    return np.clip(np.rint(grey + factor * (values - grey)), 0, 255).astype(np.uint8), f"saturation x {factor:g}"
