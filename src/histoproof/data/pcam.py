"""The official PatchCamelyon files: their names, their shapes, and reading them block by block.

PatchCamelyon (Veeling et al., MICCAI 2018, doi:10.1007/978-3-030-00934-2_24), Zenodo record 2546921. Per split:
`camelyonpatch_level_2_split_{split}_x.h5` with `x` (N, 96, 96, 3) uint8, `.._y.h5` with `y` (N, 1, 1, 1) uint8 (1: a tumour
pixel lies in the centre 32x32 px), and `.._meta.csv`. Copies in float32, chunked or not, are read as well.
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

__all__ = [
    "META_COLUMNS",
    "PATCH_SHAPE",
    "SPLITS",
    "SourceSplit",
    "SplitName",
    "csv_rows",
    "dataset",
    "find_splits",
    "meta_columns",
    "official_name",
    "open_h5",
    "open_split",
    "read_blocks",
    "read_labels",
    "read_meta",
    "reason_of",
]

SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
PATCH_SHAPE = (96, 96, 3)
META_COLUMNS = ("coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi")
_PIXEL_DTYPES = "uint8, float32, float64"
_LABEL_SHAPES = "(N, 1, 1, 1) or (N,)"


@dataclass(frozen=True)
class SourceSplit:
    """One split's official files. `y` and `meta` are None where there is no such file."""

    name: SplitName
    x: Path
    y: Path | None
    meta: Path | None
    n: int
    dtype: str
    """dtype of the pixels on disk, e.g. "uint8"."""


def official_name(split: SplitName, part: Literal["x.h5", "y.h5", "meta.csv"]) -> str:
    """The official file name, e.g. camelyonpatch_level_2_split_train_x.h5."""
    return f"camelyonpatch_level_2_split_{split}_{part}"


def find_splits(folder: Path) -> list[SourceSplit]:
    """The splits whose pixels are in `folder`, in the order train, valid, test. Raises DataError if there is none."""
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}", next="give the folder that holds the official .h5 files")
    for split in SPLITS:
        _check_names(folder, split)
    found = [open_split(folder, split) for split in SPLITS if (folder / official_name(split, "x.h5")).exists()]
    if not found:
        raise DataError(
            f"{folder} holds no PatchCamelyon split",
            valid=", ".join(official_name(split, "x.h5") for split in SPLITS),
            next="point to the folder with the official names, or make one with `histoproof data synth`",
        )
    return found


def _check_names(folder: Path, split: SplitName) -> None:
    """Refuse labels or metadata without their pixels, and what is there under an official name but is no file."""
    x, *others = (folder / official_name(split, part) for part in ("x.h5", "y.h5", "meta.csv"))
    for path in (x, *others):
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path} is a link to something that is not there")
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is no regular file", valid="the official HDF5 and CSV files")
    orphans = [path.name for path in others if path.exists()]
    if orphans and not x.exists():
        near = sorted(
            p.name for p in folder.iterdir() if p.name.lower().startswith(x.name) or p.name == f"{split}_x.h5"
        )
        hint = f"rename or unpack {near[0]}" if near else f"add {x.name}, or remove {orphans[0]}"
        raise DataError(f"{folder} holds {' and '.join(orphans)}, but no {x.name}", next=hint)


def open_split(folder: Path, split: SplitName) -> SourceSplit:
    """Check one split's files (shapes, dtypes, equal length) without reading pixels. Raises DataError."""
    x_path = folder / official_name(split, "x.h5")
    y_path = folder / official_name(split, "y.h5")
    meta_path = folder / official_name(split, "meta.csv")
    with open_h5(x_path) as file:
        x = dataset(file, "x", x_path)
        if x.ndim != 4 or x.shape[1:] != PATCH_SHAPE:
            raise DataError(f"{x_path}: x has shape {x.shape}", valid=f"(N, {', '.join(map(str, PATCH_SHAPE))})")
        if x.dtype not in (np.uint8, np.float32, np.float64):
            raise DataError(f"{x_path}: x has dtype {x.dtype}", valid=_PIXEL_DTYPES)
        n, dtype = int(x.shape[0]), str(x.dtype)
    if n == 0:
        raise DataError(f"{x_path} holds no patches (N = 0)", next="remove the file, or fetch it again")
    if y_path.exists():
        with open_h5(y_path) as file:
            y = dataset(file, "y", y_path)
            if y.ndim == 0 or y.shape[0] != n:
                raise DataError(
                    f"{split}: x holds {n} patches, y holds {y.shape[0] if y.ndim else 0} labels ({y_path.name})",
                    next="fetch both files again: which label belongs to which patch cannot be known",
                )
            if y.shape not in ((n, 1, 1, 1), (n,)):
                raise DataError(f"{y_path}: y has shape {y.shape}", valid=_LABEL_SHAPES)
            if y.dtype.kind not in "buif":
                raise DataError(
                    f"{y_path}: y has dtype {y.dtype}", valid="an integer, float or bool dtype holding 0 and 1"
                )
    return SourceSplit(
        name=split,
        x=x_path,
        y=y_path if y_path.exists() else None,
        meta=meta_path if meta_path.exists() else None,
        n=n,
        dtype=dtype,
    )


def read_blocks(source: SourceSplit, rows: int) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """(first row, pixels of up to `rows` patches), in order; one block is in memory at a time. Raises DataError."""
    with open_h5(source.x) as file:
        x = dataset(file, "x", source.x)
        for start in range(0, source.n, rows):
            stop = min(start + rows, source.n)
            try:
                block = x[start:stop]
            except OSError as e:
                raise DataError(
                    f"{source.x}: patches {start} to {stop - 1} cannot be read ({reason_of(e)})",
                    next="the file is damaged or cut short: fetch it again",
                ) from None
            yield start, block


def read_labels(source: SourceSplit) -> NDArray[np.float64] | None:
    """Labels as stored, shape (N,), in float64 so that no value is lost; None without a y file. Raises DataError."""
    if source.y is None:
        return None
    with open_h5(source.y) as file:
        try:
            return np.asarray(dataset(file, "y", source.y)[...], dtype=np.float64).reshape(-1)
        except OSError as e:
            raise DataError(
                f"{source.y}: labels cannot be read ({reason_of(e)})",
                next="the file is damaged or cut short: fetch it again",
            ) from None


def meta_columns(path: Path) -> list[str]:
    """The named columns of a meta CSV. Raises DataError."""
    with csv_rows(path) as reader:
        return [c for c in reader.fieldnames or () if c]


def read_meta(path: Path, n: int) -> Iterator[dict[str, str]]:
    """The rows of a meta CSV, as text, one after the other. Raises DataError unless there are exactly n."""
    count = 0
    with csv_rows(path) as reader:
        for row in reader:
            count += 1
            yield row
    if count != n:
        raise DataError(f"{path} has {count} rows, its split has {n} patches", next="fetch both files again")


@contextmanager
def csv_rows(path: Path) -> Iterator["csv.DictReader[str]"]:
    """The rows of a CSV, as they are iterated over. Raises DataError for a file that cannot be read, also in the middle."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"{path} is not a readable CSV: {e}") from None


def open_h5(path: Path) -> h5py.File:
    """An HDF5 file, open for reading. Raises DataError for what is none."""
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except OSError as e:
        size = path.stat().st_size if path.exists() else 0
        raise DataError(
            f"{path} is no readable HDF5 file of {size} bytes ({reason_of(e)})",
            next="it may be cut short, still compressed (.gz), or something else under that name: fetch it again",
        ) from None


def dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A dataset of an HDF5 file by its name. Raises DataError where there is none."""
    try:
        found = file[name]
    except (KeyError, OSError, RuntimeError):
        raise DataError(
            f"{path} has no dataset {name!r}", valid=f"a dataset {name!r}; found: {sorted(_names(file))}"
        ) from None
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"{path}: {name!r} is a group, not a dataset", valid=f"a dataset {name!r}")
    return found


def _names(file: h5py.File) -> list[str]:
    try:
        return list(file.keys())
    except (OSError, RuntimeError):
        return []


def reason_of(e: Exception) -> str:
    """The last, telling part of h5py's message, in one line."""
    text = " ".join(str(e).split())
    return text if len(text) <= 160 else text[:157] + "..."
