"""Prediction on images, folders of images, and HDF5 files, through the one inference path."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .compute import deterministic
from .data.pcam import PATCH_SHAPE
from .data.pixels import as_uint8, looks_scaled
from .errors import ConfigError, DataError
from .frozen import is_champion, open_model
from .inference import TrainedModel, logits, predict_workers, probabilities

__all__ = ["predict", "read_patches"]

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
_HDF5 = (".h5", ".hdf5")
_BLOCK = 1024
"""Patches in memory at a time."""


@dataclass(frozen=True)
class _Block:
    """Patches to predict: (n, 96, 96, 3) uint8, with the path and the row (None for an image) of each."""

    pixels: NDArray[np.uint8]
    origins: list[tuple[str, int | None]]


def predict(
    model: Path, paths: Sequence[Path], *, tta: bool | None = None, threshold: float | None = None
) -> list[dict[str, Any]]:
    """The probability of tumour for every patch in `paths`, in order: PNG, JPEG, TIFF or WebP files of 96x96 px, folders of
    them, and HDF5 files with `x` (N, 96, 96, 3). `model` is a run or a frozen champion, whose probabilities are calibrated and
    whose threshold is the frozen one. `tta` and `threshold` replace the config's; a champion's `tta` cannot be replaced.

    Returns [{"path", "index", "tumor_probability", "label"}...]; `index` is the row in an HDF5 file, None for an image.
    Raises DataError for a file that is missing, unreadable, or of another size, before anything is predicted on images.
    """
    files = [file for path in paths for file in _expand(path)]
    if not files:
        raise DataError("nothing to predict: no paths were given", valid="image files, folders, HDF5 files")
    for file in files:
        if file.suffix.lower() in _IMAGES:
            _check_image(file)
    trained = open_model(model)
    if is_champion(model) and tta is not None and tta != (trained.config.evaluate.tta == "d4"):
        frozen = "--tta" if not tta else "--no-tta"
        raise ConfigError(f"the champion {model} was frozen with {frozen}: its temperature and threshold are for that")
    use_tta = trained.config.evaluate.tta == "d4" if tta is None else tta
    least = trained.config.evaluate.threshold if threshold is None else threshold
    rows: list[dict[str, Any]] = []
    workers = predict_workers(trained)
    try:
        with deterministic(trained.device, 1):
            for block in _blocks(files):
                found = probabilities(logits(trained, _taker(block, trained), len(block.pixels), workers, tta=use_tta))
                rows += [
                    {"path": path, "index": index, "tumor_probability": float(p), "label": int(p >= least)}
                    for (path, index), p in zip(block.origins, found, strict=True)
                ]
    finally:
        workers.close()
    return rows


def read_patches(paths: Sequence[Path]) -> Iterator[tuple[NDArray[np.uint8], list[tuple[str, int | None]]]]:
    """The patches of `paths`, as `predict` takes them, block by block: (n, 96, 96, 3) uint8, and path and row of each. Images are
    checked by their headers before the first block. Raises DataError."""
    files = [file for path in paths for file in _expand(path)]
    for file in files:
        if file.suffix.lower() in _IMAGES:
            _check_image(file)
    for block in _blocks(files):
        yield block.pixels, block.origins


def _taker(block: _Block, trained: TrainedModel) -> Any:
    pixels = torch.from_numpy(block.pixels)
    return lambda start, stop: pixels[start:stop].to(trained.device)


def _expand(path: Path) -> list[Path]:
    """A file itself; a folder's images and HDF5 x-files in the order of their names."""
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in _IMAGES and p.is_file())
        found += sorted(p for p in path.rglob("*_x.h5") if p.is_file())
        if not found:
            raise DataError(f"the folder {path} holds no images and no *_x.h5", valid=" ".join(_IMAGES))
        return found
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if path.suffix.lower() not in _IMAGES + _HDF5:
        raise DataError(
            f"{path}: cannot predict on {path.suffix or 'a file without a suffix'}", valid=" ".join(_IMAGES + _HDF5)
        )
    return [path]


def _blocks(files: Sequence[Path]) -> Iterator[_Block]:
    images: list[Path] = []
    for file in files:
        if file.suffix.lower() in _HDF5:
            yield from _image_block(images)
            images = []
            yield from _hdf5_blocks(file)
        else:
            images.append(file)
            if len(images) == _BLOCK:
                yield from _image_block(images)
                images = []
    yield from _image_block(images)


def _image_block(files: Sequence[Path]) -> Iterator[_Block]:
    if files:
        yield _Block(np.stack([_read_image(file) for file in files]), [(str(file), None) for file in files])


def _hdf5_blocks(path: Path) -> Iterator[_Block]:
    try:
        with h5py.File(path, "r") as file:
            if "x" not in file or not isinstance(file["x"], h5py.Dataset):
                raise DataError(
                    f"{path} has no dataset 'x'", valid=f"x of shape (N, {', '.join(map(str, PATCH_SHAPE))})"
                )
            x = file["x"]
            if x.ndim != 4 or x.shape[1:] != PATCH_SHAPE or x.dtype not in (np.uint8, np.float32, np.float64):
                raise DataError(
                    f"{path}: x has shape {x.shape} and dtype {x.dtype}", valid="(N, 96, 96, 3) uint8 or float32"
                )
            if not len(x):
                raise DataError(f"{path} holds no patches (N = 0)")
            for start in range(0, len(x), _BLOCK):
                yield _hdf5_block(path, x[start : start + _BLOCK], start)
    except OSError as e:
        raise DataError(f"{path} cannot be read as HDF5: {' '.join(str(e).split())}", next="fetch it again") from None


def _hdf5_block(path: Path, values: NDArray[np.generic], start: int) -> _Block:
    if looks_scaled(values):
        raise DataError(
            f"{path}: pixels seem to be scaled to 0-1", valid="whole numbers 0-255", next="multiply x by 255"
        )
    pixels, exact = as_uint8(values)
    if not exact.all():
        row = start + int(np.flatnonzero(~exact)[0])
        raise DataError(
            f"{path}: patch {row} holds values that are no whole numbers 0-255 (NaN, infinite, out of range or fractional)",
            next=f"see all of them with `histoproof data pack {path.parent} --out STORE`: they go into quarantine",
        )
    return _Block(pixels, [(str(path), start + row) for row in range(len(pixels))])


def _check_image(path: Path) -> None:
    """Refuse an image by its header, so that a bad one among thousands is named before the work begins."""
    try:
        with Image.open(path) as image:
            size, mode, frames = image.size, image.mode, getattr(image, "n_frames", 1)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(f"{path} is not a readable image: {' '.join(str(e).split())}") from None
    if size != PATCH_SHAPE[1::-1]:
        raise DataError(
            f"{path} is {size[0]}x{size[1]} px", valid="96x96 px at about 1 µm a pixel (10x), as PCam's patches are"
        )
    if frames > 1:
        raise DataError(f"{path} holds {frames} images", valid="one image a file")
    if mode not in ("RGB", "RGBA", "L", "P"):
        raise DataError(f"{path} has colour mode {mode}", valid="8-bit RGB, RGBA, grey or palette")


def _read_image(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as e:
        raise DataError(f"{path} is a damaged image: {' '.join(str(e).split())}") from None
