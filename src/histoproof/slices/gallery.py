"""Which patches to look at: the most confident false positives and negatives, and the least certain."""

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.partition import Patches
from ..errors import DataError
from ..evaluate import Predictions
from .cut import Column

__all__ = ["GALLERIES", "Gallery", "as_npz", "from_npz", "galleries"]

GALLERIES = ("false_positives", "false_negatives", "least_certain")


@dataclass(frozen=True)
class Gallery:
    """Patches of one kind, the foremost first."""

    name: str
    of: int
    """How many of that kind there are; of the least certain, all patches."""
    images: NDArray[np.uint8]
    """(n, 96, 96, 3)."""
    rows: list[dict[str, Any]]
    """Of each {"index", "label", "probability", "factors": {name: value}, "unusual": [{"factor", "value", "percentile"}...]}."""


def galleries(
    found: Predictions, patches: Patches, columns: Mapping[str, Column], *, threshold: float, count: int
) -> list[Gallery]:
    """The three galleries, at most `count` patches each; ties by index. `unusual` are the three numbers of the patch that lie
    farthest out among all patches, with their percentile, 0 to 100."""
    probability, label = found.probability, found.label
    called = probability >= threshold
    ranks = {name: _percentiles(column) for name, column in columns.items() if column.numeric}
    kinds = {
        "false_positives": (np.flatnonzero(called & (label == 0)), -probability),
        "false_negatives": (np.flatnonzero(~called & (label == 1)), probability),
        "least_certain": (np.arange(len(label)), np.abs(probability - threshold)),
    }
    out = []
    for name in GALLERIES:
        which, order = kinds[name]
        chosen = which[np.argsort(order[which], kind="stable")][:count]
        images = np.stack([np.asarray(patches.images[int(found.index[k])]) for k in chosen]) if len(chosen) else None
        rows = [_row(found, columns, ranks, int(k)) for k in chosen]
        out.append(Gallery(name, len(which), np.empty((0, 96, 96, 3), np.uint8) if images is None else images, rows))
    return out


def _row(
    found: Predictions, columns: Mapping[str, Column], ranks: Mapping[str, NDArray[np.float64]], k: int
) -> dict[str, Any]:
    factors = {name: float(c.values[k]) if c.numeric else str(c.values[k]) for name, c in columns.items()}
    farthest = sorted(ranks, key=lambda name: -abs(ranks[name][k] - 50))[:3]
    unusual = [{"factor": name, "value": factors[name], "percentile": float(ranks[name][k])} for name in farthest]
    return {
        "index": int(found.index[k]),
        "label": int(found.label[k]),
        "probability": float(found.probability[k]),
        "factors": factors,
        "unusual": unusual,
    }


def _percentiles(column: Column) -> NDArray[np.float64]:
    """(N,) the share of patches below each, and half of those alike, in percent."""
    values = column.values.astype(np.float64)
    order = np.sort(values)
    below, upto = np.searchsorted(order, values, side="left"), np.searchsorted(order, values, side="right")
    return np.asarray(50 * (below + upto) / len(values), dtype=np.float64)


def as_npz(drawn: Sequence[Gallery], maps: Mapping[str, NDArray[np.float64]]) -> bytes:
    """The galleries' pixels, NAME_images (n, 96, 96, 3) uint8, and NAME_saliency (n, 96, 96) where it was measured, as plain NPZ:
    what the journal draws them again from, in its own language, wherever the store is by then."""
    arrays: dict[str, NDArray[Any]] = {f"{one.name}_images": one.images for one in drawn}
    arrays |= {f"{name}_saliency": found.astype(np.float32) for name, found in maps.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def from_npz(
    path: Path, told: Sequence[Mapping[str, Any]], sha256: str
) -> list[tuple[Gallery, NDArray[np.float64] | None]]:
    """The galleries of slices.json (`told`) with their pixels, and saliency where there is one. Raises DataError if the file is
    missing, or not the one with the digest `sha256`: a run of `slices` was killed between the two files, or it was changed."""
    found: list[tuple[Gallery, NDArray[np.float64] | None]] = []
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{path} is not what slices.json was written with", next="make the slices again")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            for one in told:
                images, rows = file[f"{one['name']}_images"], list(one["patches"])
                if images.shape != (len(rows), 96, 96, 3) or images.dtype != np.uint8:
                    raise DataError(f"{path} does not hold the galleries of slices.json", next="make the slices again")
                key = f"{one['name']}_saliency"
                found.append((Gallery(one["name"], one["of"], images, rows), file.get(key)))
    except (OSError, KeyError, ValueError, MemoryError, zipfile.BadZipFile) as e:
        raise DataError(f"{path} cannot be read: {e}", next="make the slices again") from None
    return found
