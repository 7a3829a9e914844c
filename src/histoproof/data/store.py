"""The store: packed patches as plain NumPy files, with a manifest that vouches for every block.

    STORE/manifest.json                 format version, source digests, counts, digests
    STORE/meta.csv                      split, index, and the official meta columns where the source had them
    STORE/findings.jsonl                what packing found, one JSON object a line
    STORE/quarantine.csv                split, index, reasons: patches left out of training
    STORE/{split}/images.npy            (N, 96, 96, 3) uint8
    STORE/{split}/labels.npy            (N,) uint8: 0, 1, or 255 where the source's label was neither; absent without labels

docs/store.md specifies it. Everything that reads patches for training or evaluation reads them here.
"""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import canonical, read_json, sha256_file
from .pcam import PATCH_SHAPE, SPLITS, SplitName

__all__ = [
    "BLOCK_ROWS",
    "FORMAT",
    "NO_LABEL",
    "Split",
    "Store",
    "content_sha256",
    "open_store",
]

FORMAT = "histoproof-store"
VERSION = 1
BLOCK_ROWS = 1024
"""Patches per digested block (27 MiB): small enough to name where a store was changed."""
NO_LABEL = 255


@dataclass(frozen=True)
class Split:
    """One split of a store. Arrays are memory-mapped: nothing is read until it is indexed."""

    name: SplitName
    folder: Path
    images: NDArray[np.uint8]
    """(N, 96, 96, 3), 0-255."""
    labels: NDArray[np.uint8] | None
    """(N,): 0, 1, or 255 for unknown; None for a split that came without labels."""
    quarantined: NDArray[np.int64]
    """Sorted rows that are in quarantine."""
    digests: dict[str, Any]
    """This split's part of the manifest."""

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, quarantine: Literal["exclude", "include"]) -> NDArray[np.int64]:
        """Rows that may be trained on or scored: those with a label, without the quarantined ones unless included.

        Raises DataError for a split without labels, or with none left.
        """
        if self.labels is None:
            raise DataError(
                f"the {self.name} split of {self.folder.parent} has no labels",
                valid="it can be predicted on (`histoproof predict`), not trained on or evaluated",
                next=f"put the official {self.name}_y.h5 beside its x.h5 and pack again",
            )
        usable = np.asarray(self.labels) != NO_LABEL
        if quarantine == "exclude":
            usable[self.quarantined] = False
        rows = np.flatnonzero(usable).astype(np.int64)
        if not len(rows):
            raise DataError(
                f"no patch of the {self.name} split is left: all {len(self)} are in quarantine or without a label",
                next=f"read {self.folder.parent / 'findings.jsonl'}",
            )
        return rows

    def verify(self) -> None:
        """Digest this split's files and hold them against the manifest. Raises DataError naming the changed block."""
        for name in ("images", "labels"):
            path = self.folder / f"{name}.npy"
            if self.digests.get(name) is None:
                continue
            if sha256_file(path) != self.digests[name]["sha256"]:
                raise DataError(
                    f"{path} is not what the manifest says{self._changed_block(name)}",
                    next="the store was changed after packing: pack it again",
                )

    def _changed_block(self, name: str) -> str:
        if name != "images":
            return ""
        for block, expected in enumerate(self.digests["images"]["blocks"]):
            start = block * BLOCK_ROWS
            rows = np.ascontiguousarray(self.images[start : start + BLOCK_ROWS])
            if hashlib.sha256(rows.data.cast("B")).hexdigest() != expected:
                return f": it differs within patches {start} to {start + len(rows) - 1}"
        return ": its header differs"


@dataclass(frozen=True)
class Store:
    """A packed store, opened. `splits` holds those it has, in the order train, valid, test."""

    path: Path
    manifest: dict[str, Any]
    splits: dict[SplitName, Split]

    @property
    def content_sha256(self) -> str:
        """Digest of what training and evaluation read: pixels, labels and quarantine; not of where they came from."""
        return str(self.manifest["content_sha256"])

    def split(self, name: SplitName) -> Split:
        """The split of that name. Raises DataError if the store has none."""
        if name not in self.splits:
            raise DataError(f"the store {self.path} has no {name} split", valid=f"it has {', '.join(self.splits)}")
        return self.splits[name]

    def columns(self) -> list[str]:
        """The columns of meta.csv that may name groups: all but split and index."""
        with (self.path / "meta.csv").open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
        return [name for name in header if name not in ("split", "index")]

    def meta(self, name: SplitName, column: str) -> NDArray[np.str_] | None:
        """One column of meta.csv for a split, shape (N,), as text; None where the store has no such column."""
        with (self.path / "meta.csv").open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if column not in (reader.fieldnames or ()):
                return None
            values = [row[column] for row in reader if row["split"] == name]
        return np.array(values, dtype=np.str_) if any(values) else None


def open_store(path: Path) -> Store:
    """Open a store for reading. Raises DataError if it is none, is of another version, or its files do not fit."""
    if not (path / "manifest.json").is_file():
        hint = f"make one with `histoproof data pack DIR --out {path}`"
        if any(path.glob("*_x.h5")):
            hint = f"these are official files: pack them first, `histoproof data pack {path} --out STORE`"
        raise DataError(
            f"{path} is no store: it has no manifest.json" if path.exists() else f"no such store: {path}", next=hint
        )
    manifest = read_json(path / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise DataError(
            f"{path / 'manifest.json'} is not of a store this version reads",
            valid=f'"format": "{FORMAT}", "version": {VERSION}',
            next="pack the official files again",
        )
    try:
        _check_small_files(path, manifest)
        quarantined = _read_quarantine(path / "quarantine.csv")
        splits = {
            name: _open_split(path / name, name, manifest["splits"][name], quarantined.get(name, []))
            for name in SPLITS
            if name in manifest["splits"]
        }
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise DataError(f"the store {path} is damaged: {e}", next="pack the official files again") from None
    return Store(path=path, manifest=manifest, splits=splits)


def content_sha256(splits: dict[str, Any], quarantine: str) -> str:
    """Digest of a store's content from its splits' digests and the text of quarantine.csv."""
    parts = {
        name: {"images": split["images"]["sha256"], "labels": split["labels"]["sha256"] if split["labels"] else None}
        for name, split in splits.items()
    }
    return hashlib.sha256(canonical({"splits": parts, "quarantine": quarantine}).encode()).hexdigest()


def _check_small_files(path: Path, manifest: dict[str, Any]) -> None:
    """Quarantine and metadata decide what is trained on and how intervals are made: hold them against the manifest at once."""
    quarantine = (path / "quarantine.csv").read_text(encoding="utf-8")
    if content_sha256(manifest["splits"], quarantine) != manifest["content_sha256"]:
        raise ValueError("quarantine.csv, or a digest in manifest.json, was changed")
    if sha256_file(path / "meta.csv") != manifest["meta_sha256"]:
        raise ValueError("meta.csv was changed")


def _open_split(folder: Path, name: SplitName, digests: dict[str, Any], quarantined: list[int]) -> Split:
    # Copy-on-write mapping: torch wants a writable array, and the file can still never be written through it.
    images = np.load(folder / "images.npy", mmap_mode="c", allow_pickle=False)
    if images.dtype != np.uint8 or images.shape != (digests["n"], *PATCH_SHAPE):
        raise ValueError(f"{folder / 'images.npy'} has shape {images.shape} and dtype {images.dtype}")
    labels = None
    if digests["labels"] is not None:
        # mapped too: opening a store reads no label, those of the sealed test split least of all
        labels = np.load(folder / "labels.npy", mmap_mode="c", allow_pickle=False)
        if labels.dtype != np.uint8 or labels.shape != (digests["n"],):
            raise ValueError(f"{folder / 'labels.npy'} has shape {labels.shape} and dtype {labels.dtype}")
    blocks = digests["images"]["blocks"]
    if not isinstance(blocks, list) or len(blocks) != -(-digests["n"] // BLOCK_ROWS):
        raise ValueError(f"manifest.json does not have one digest for each {BLOCK_ROWS:,} patches of {name}")
    return Split(name, folder, images, labels, np.array(sorted(quarantined), dtype=np.int64), digests)


def _read_quarantine(path: Path) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["split"], []).append(int(row["index"]))
    return rows
