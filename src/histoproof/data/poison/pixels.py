"""The pixel file of a poisoned split: streamed, and where nothing is changed copied chunk by chunk without unpacking."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..pcam import PATCH_SHAPE, official_name, read_blocks
from ..pixels import as_uint8
from . import faults
from .plan import Change, SplitPlan
from .spec import (
    BadLabel,
    Blank,
    LabelFlip,
    NonInteger,
    Outlier,
    OutOfRange,
    PoisonSpec,
    Values,
    WholeFile,
    WrongShape,
)

__all__ = ["ROWS", "write_x"]

ROWS = 256
"""Patches in memory at once: 28 MB of float32."""
_SHAPES = {None: PATCH_SHAPE, "channels_first": (3, 96, 96), "flat": (27_648,), "cropped": (64, 64, 3)}
_PATCH_BYTES = int(np.prod(PATCH_SHAPE))
_MOST_LEVEL = 4  # gzip -9 takes 150 ms for a patch in float32, -4 takes 3 and packs 9 % less


def write_x(
    plan: SplitPlan,
    spec: PoisonSpec,
    folder: Path,
    copies: BinaryIO,
    tick: Callable[[int], None],
) -> None:
    """Write the split's x.h5 into `folder`. `copies`: the pixels of its copies, one after the other. Raises DataError."""
    here = [plant for plant in spec.plant if getattr(plant, "split", None) == plan.name]
    how = next((plant.how for plant in here if isinstance(plant, WrongShape)), None)
    bloated = any(isinstance(plant, WholeFile) for plant in here)
    with h5py.File(plan.source.x, "r") as source, h5py.File(folder / official_name(plan.name, "x.h5"), "w") as file:
        old = source["x"]
        layout = {} if bloated or how is not None else _layout(old, plan, spec)
        new = file.create_dataset("x", (plan.n, *_SHAPES[how]), plan.dtype, **layout)
        same_chunks = layout.get("chunks") == (1, *PATCH_SHAPE) and _filters(old) == _filters(new)
        if same_chunks and old.chunks == new.chunks and old.dtype == new.dtype:
            _copy_chunks(plan, old, new, copies, tick)
            return
        chunk = old.chunks[0] if old.chunks else 1
        for start, values in read_blocks(plan.source, chunk if ROWS < chunk <= 16 * ROWS else ROWS):
            low, high = (int(place) for place in np.searchsorted(plan.rows, (start, start + len(values))))
            block = _as_dtype(values[plan.rows[low:high] - start], plan)
            for target in range(low, high):
                if target in plan.changes:
                    block[target - low] = _poisoned(block[target - low], plan.changes[target], copies)
            if high > low:
                new[low:high] = _reshaped(block, how)
            tick(high - low)


def _copy_chunks(
    plan: SplitPlan, old: h5py.Dataset, new: h5py.Dataset, copies: BinaryIO, tick: Callable[[int], None]
) -> None:
    """Where each patch is a chunk of its own and stays as it is, its packed bytes are copied."""
    for row, at in enumerate(plan.rows.tolist()):
        try:
            if row in plan.changes:
                new[row] = _poisoned(_as_dtype(old[at : at + 1], plan)[0], plan.changes[row], copies)
            elif (
                old.id.get_chunk_info_by_coord((at, 0, 0, 0)).byte_offset is not None
            ):  # None: never written, all zeros
                mask, packed = old.id.read_direct_chunk((at, 0, 0, 0))
                new.id.write_direct_chunk((row, 0, 0, 0), packed, mask)
        except OSError as e:
            raise DataError(f"{plan.source.x}: patch {at} cannot be read ({e})", next="fetch it again") from None
        if row % ROWS == ROWS - 1 or row == plan.n - 1:
            tick(row % ROWS + 1)


def _layout(x: h5py.Dataset, plan: SplitPlan, spec: PoisonSpec) -> dict[str, Any]:
    """Chunks and filters of the new x."""
    if spec.compression == "none":
        return {}
    if spec.compression != "keep":
        options = {"compression_opts": _MOST_LEVEL} if spec.compression == "gzip" else {}
        return {"chunks": (1, *PATCH_SHAPE), "compression": spec.compression, **options}
    if x.chunks is None:
        return {}
    level, shuffle = x.compression_opts, x.shuffle
    if x.compression == "gzip" and plan.dtype != x.dtype:
        level, shuffle = min(level, _MOST_LEVEL), True
    return {
        "chunks": tuple(min(pair) for pair in zip(x.chunks, (plan.n, *PATCH_SHAPE), strict=True)),
        "compression": x.compression,
        "compression_opts": level,
        "shuffle": shuffle,
        "fletcher32": x.fletcher32,
    }


def _filters(x: h5py.Dataset) -> list[Any]:
    packing = x.id.get_create_plist()
    return [packing.get_filter(n) for n in range(packing.get_nfilters())]


def _as_dtype(values: NDArray[np.generic], plan: SplitPlan) -> NDArray[Any]:
    """The block in the new dtype, a writable copy. Raises DataError where uint8 would change a value."""
    if plan.dtype != "uint8":
        return values.astype(plan.dtype)
    pixels, exact = as_uint8(values)
    if not exact.all():
        raise DataError(
            f"{plan.source.x}: patches hold values that uint8 cannot", next="dtype: keep in the spec, or dtype: float32"
        )
    return pixels.copy()


def _poisoned(pixels: NDArray[Any], change: Change, copies: BinaryIO) -> NDArray[Any]:
    """One patch with its fault; what was done is noted in `change.detail`."""
    plant = change.plant
    if change.slot is not None:
        copies.seek(change.slot * _PATCH_BYTES)
        return np.frombuffer(copies.read(_PATCH_BYTES), dtype=np.uint8).reshape(PATCH_SHAPE)
    if isinstance(plant, LabelFlip | BadLabel):
        return pixels
    out: NDArray[Any]
    if isinstance(plant, Values | OutOfRange | NonInteger):
        out, change.detail = faults.bad_values(pixels, plant, change.key)
    elif isinstance(plant, Blank):
        out, change.detail = faults.blank(plant, change.key)
    else:
        assert isinstance(plant, Outlier)
        out, change.detail = faults.outlier(as_uint8(pixels[None])[0][0], plant, change.key)
    return out


def _reshaped(block: NDArray[Any], how: str | None) -> NDArray[Any]:
    if how == "channels_first":
        return np.moveaxis(block, 3, 1)
    if how == "flat":
        flat: NDArray[Any] = block.reshape(len(block), -1)
        return flat
    return np.asarray(block[:, 16:80, 16:80]) if how == "cropped" else block
