"""The same patches for every contender: float32 HDF5 (the course), gzip HDF5 (the official form), and the store of them."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from histoproof.data.pack import pack
from histoproof.data.pcam import PATCH_SHAPE, SplitName, official_name, open_split, read_blocks, read_labels
from histoproof.data.store import Split, open_store
from histoproof.data.synth import synth
from histoproof.errors import DataError
from histoproof.files import new_folder

__all__ = ["Patches", "official_folder", "patches", "scratch_folder"]

BLOCK = 256
VALID = 256
"""Valid patches: training wants some, nothing here is scored on them."""
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Patches:
    """Where the same train patches lie in each form. `folder` is scratch: peers write theirs into it, once."""

    folder: Path
    real: bool

    @property
    def float32(self) -> Path:
        """Official-named files, pixels as float32 0-255, one contiguous array: the course's form."""
        return self.folder / "float32"

    @property
    def gzip(self) -> Path:
        """Official-named files, uint8, one patch a gzip chunk: the official form."""
        return self.folder / "gzip"

    @property
    def store(self) -> Path:
        """The store that `pack` made of the float32 files."""
        return self.folder / "store"

    def train(self) -> Split:
        """The store's train split. All of its rows are read, quarantined ones too: the others know of no quarantine."""
        return open_store(self.store).split("train")

    def labels(self) -> NDArray[np.uint8]:
        """(N,) labels of train."""
        labels = self.train().labels
        assert labels is not None  # patches() has seen to it
        return np.asarray(labels)

    def __len__(self) -> int:
        return len(self.train())

    def described(self) -> dict[str, Any]:
        """What a results file says of them."""
        kind = "real PatchCamelyon patches" if self.real else "synthetic patches (histoproof data synth)"
        return {"patches": len(self), "kind": kind}


def official_folder(given: Path | None) -> Path | None:
    """Official files: those given, else the real ones of HISTOPROOF_REAL_DATA or ../shared/data, else None."""
    if given is not None:
        return given
    base = Path(os.environ.get("HISTOPROOF_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    return base / "pcam-real" if (base / "pcam-real").is_dir() else None


@contextmanager
def scratch_folder(given: Path | None) -> Iterator[Path]:
    """`given`, whose files stay for the next call; else a temporary folder."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
        yield Path(folder)


def patches(source: Path | None, scratch: Path, count: int) -> Patches:
    """The first `count` train patches of `source` (None: synthetic ones) in each form; those made before are taken again.

    Raises DataError where the source has no labels, or pixels that uint8 cannot hold.
    """
    identity = f"{source.absolute() if source else None}, {count}"
    folder = scratch / f"patches-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if not folder.exists():
        with new_folder(folder, what="set of patches") as made:
            if source is None:
                synth(made / "synthetic", train=count, valid=min(count, VALID), test=0)
            for split, most in (("train", count), ("valid", VALID)):
                _copy(source or made / "synthetic", made, split, most)  # type: ignore[arg-type]
            pack(made / "float32", made / "store")
    return Patches(folder, source is not None)


def _copy(source: Path, made: Path, split: SplitName, most: int) -> None:
    """Write one split's first patches in both HDF5 forms."""
    official = open_split(source, split)
    labels = read_labels(official)
    if labels is None or not np.isin(labels, (0, 1)).all():
        raise DataError(f"{source}: the {split} split needs labels that are all 0 or 1", next="choose another --data")
    n = min(official.n, most)
    for form in ("float32", "gzip"):
        (made / form).mkdir(exist_ok=True)
        with h5py.File(made / form / official_name(split, "y.h5"), "w") as file:
            file["y"] = labels[:n].astype(np.uint8).reshape(-1, 1, 1, 1)
    packed: dict[str, Any] = {"chunks": (1, *PATCH_SHAPE), "compression": "gzip", "compression_opts": 1}
    with (
        h5py.File(made / "float32" / official_name(split, "x.h5"), "w") as plain_file,
        h5py.File(made / "gzip" / official_name(split, "x.h5"), "w") as gzip_file,
    ):
        plain = plain_file.create_dataset("x", (n, *PATCH_SHAPE), np.float32)
        squeezed = gzip_file.create_dataset("x", (n, *PATCH_SHAPE), np.uint8, **packed)
        for start, block in read_blocks(official, BLOCK):
            if start >= n:
                break
            rows = slice(start, min(start + BLOCK, n))
            with np.errstate(invalid="ignore"):
                pixels = block[: rows.stop - start].astype(np.uint8)
            if not np.array_equal(pixels, block[: len(pixels)]):
                raise DataError(
                    f"{official.x}: patches {start} to {rows.stop - 1} hold values that are no whole numbers 0-255",
                    next="choose files without damage: every contender must be able to deliver the same patches",
                )
            plain[rows], squeezed[rows] = pixels, pixels
