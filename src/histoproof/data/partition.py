"""A partition: which patches of a store train and which validate, written beside it, and the store seen through it.

    STORE/partitions/NAME.npy     (N,) uint16: the part of each pooled patch, in the order of parts or the fold's number
    STORE/manifest.json           "partitions": {NAME: how it was made, its counts, the file's SHA-256}

A pooled patch is numbered through the splits that the partition was drawn from: index = offset of its split + row in it. So an
index in a trail or a predictions file leads back to one row of one `images.npy` (`Part.locate`). The test split is never pooled.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, OutputError, RunError
from ..files import read_json, sha256_file, write_bytes, write_json
from ..runs import locked
from ..yamlfile import parse_value
from .pcam import PATCH_SHAPE, SplitName
from .store import NO_LABEL, Split, Store

__all__ = [
    "Part",
    "Partition",
    "Patches",
    "PooledImages",
    "check_name",
    "open_part",
    "open_partition",
    "part_rows",
    "pool",
    "write_partition",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class PooledImages:
    """Several splits' pixels behind one numbering. Memory-mapped as they are: nothing is read until it is indexed."""

    pieces: tuple[NDArray[np.uint8], ...]
    """Each (n, 96, 96, 3), 0-255."""

    def __len__(self) -> int:
        return sum(len(piece) for piece in self.pieces)

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return sum(piece.nbytes for piece in self.pieces)

    def lookup(self, indices: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """[(piece, places in `indices`, rows in the piece)...] of those pieces that `indices` (N,) reach into."""
        found, offset = [], 0
        for number, piece in enumerate(self.pieces):
            places = np.flatnonzero((indices >= offset) & (indices < offset + len(piece))).astype(np.int64)
            if len(places):
                found.append((number, places, indices[places] - offset))
            offset += len(piece)
        return found

    def __getitem__(self, at: int | NDArray[np.int64]) -> NDArray[np.uint8]:
        """One patch (96, 96, 3), or those at an array of indices (N, 96, 96, 3), in its order."""
        if isinstance(at, int | np.integer):
            one: NDArray[np.uint8] = self[np.array([at], dtype=np.int64)][0]
            return one
        if len(at) and not (at.min() >= 0 and at.max() < len(self)):
            raise IndexError(f"index outside 0 to {len(self) - 1}")
        out = np.empty((len(at), *PATCH_SHAPE), dtype=np.uint8)
        for number, places, rows in self.lookup(at):
            out[places] = self.pieces[number][rows]
        return out


@dataclass(frozen=True)
class Part:
    """One part of a partition, used like a `store.Split`. Rows are pooled indices; `images` and `labels` are the whole pool's."""

    name: SplitName
    """What it is used as."""
    partition: str
    fold: int | None
    sha256: str
    """Digest of the partition's file."""
    pool: tuple[Split, ...]
    images: PooledImages
    labels: NDArray[np.uint8]
    """(N,) of the pool: 0, 1, or 255 for unknown."""
    quarantined: NDArray[np.int64]
    """Sorted pooled indices that are in quarantine."""
    members: NDArray[np.bool_]
    """(N,) which pooled patches belong to this part."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def offsets(self) -> dict[SplitName, int]:
        """{split: the pooled index of its row 0}."""
        starts = np.cumsum([0, *(len(split) for split in self.pool)])
        return {split.name: int(start) for split, start in zip(self.pool, starts, strict=False)}

    def locate(self, index: int) -> tuple[SplitName, int]:
        """(split, row in it) of a pooled index."""
        ((number, _, rows),) = self.images.lookup(np.array([index], dtype=np.int64))
        return self.pool[number].name, int(rows[0])

    def rows(self, quarantine: Literal["exclude", "include"]) -> NDArray[np.int64]:
        """Pooled indices of this part that may be trained on or scored, as `Split.rows`. Raises DataError if none is left."""
        rows = part_rows(self.labels, self.quarantined, quarantine)
        rows = rows[self.members[rows]]
        if not len(rows):
            raise DataError(
                f"no usable patch is left in {self.name} of the partition {self.partition}",
                next="make another partition with `histoproof data split`",
            )
        return rows

    def verify(self) -> None:
        """Digest the pooled splits' files and hold them against the manifest, as `Split.verify`."""
        for split in self.pool:
            split.verify()

    def as_json(self) -> dict[str, Any]:
        """What results say of the partition they were made with: name, fold, digest, and how indices lead back to rows."""
        return {"name": self.partition, "fold": self.fold, "sha256": self.sha256, "offsets": self.offsets}


Patches = Split | Part
"""What is trained on or scored: a store's own split, or a part of a partition."""


@dataclass(frozen=True)
class Partition:
    """A partition as it lies in a store."""

    name: str
    record: dict[str, Any]
    """Its entry in the manifest."""
    parts: NDArray[np.uint16]
    """(N,) the part (position in record["parts"]) or the fold of each pooled patch."""
    pool: tuple[Split, ...]

    def members(self, role: SplitName, fold: int | None) -> NDArray[np.bool_] | None:
        """(N,) which patches are used as `role`; None where the partition has no such part. Raises ConfigError for a fold that
        there is not."""
        if self.record["kind"] == "folds":
            count = len(self.record["parts"])
            if fold is None or not 0 <= fold < count:
                raise ConfigError(
                    f"data.fold = {'null' if fold is None else fold}, and the partition {self.name} has {count} folds",
                    valid=f"0 to {count - 1}",
                    next=f"e.g. --set data.fold=0: then fold 0 is valid, and the other {count - 1} are train",
                )
            return {"valid": self.parts == fold, "train": self.parts != fold}.get(role)
        if fold is not None:
            raise ConfigError(
                f"data.fold = {fold}, but the partition {self.name} has no folds", valid="data.fold: null"
            )
        names = list(self.record["parts"])
        return self.parts == names.index(role) if role in names else None


def part_rows(
    labels: NDArray[np.uint8], quarantined: NDArray[np.int64], quarantine: Literal["exclude", "include"]
) -> NDArray[np.int64]:
    """Rows with a label, without the quarantined ones unless included."""
    usable = np.asarray(labels) != NO_LABEL
    if quarantine == "exclude":
        usable[quarantined] = False
    return np.flatnonzero(usable).astype(np.int64)


def pool(splits: Sequence[Split]) -> tuple[PooledImages, NDArray[np.uint8], NDArray[np.int64]]:
    """(images, labels (N,), sorted quarantined indices) of splits that have labels, in one numbering."""
    starts = np.cumsum([0, *(len(split) for split in splits)])
    labels = [np.asarray(split.labels) for split in splits]
    quarantined = [split.quarantined + start for split, start in zip(splits, starts, strict=False)]
    images = PooledImages(tuple(split.images for split in splits))
    return images, np.concatenate(labels), np.concatenate(quarantined).astype(np.int64)


def open_part(store: Store, role: SplitName, name: str | None, fold: int | None) -> Patches:
    """What a config's data.partition and data.fold mean by `role`: without a partition the store's own split.

    The test split stays the store's own, unless the partition has a test part. Raises ConfigError for a partition or a fold that
    there is not, DataError for one that was changed.
    """
    if name is None:
        return store.split(role)
    found = open_partition(store, name)
    members = found.members(role, fold)
    if members is None:
        return store.split(role)
    images, labels, quarantined = pool(found.pool)
    digest = found.record["sha256"]
    return Part(role, name, fold, digest, found.pool, images, labels, quarantined, members)


def open_partition(store: Store, name: str) -> Partition:
    """A partition of a store. Raises ConfigError if it has none of that name, DataError if its file is gone or was changed."""
    known = store.manifest.get("partitions", {})
    if name not in known:
        raise ConfigError(
            f"data.partition = {name}: the store {store.path} has no such partition",
            valid=", ".join(known) or "null: it has none yet",
            next=f"make one with `histoproof data split {store.path} --folds 5 --name {name}`",
        )
    try:
        record = known[name]
        path = store.path / record["file"]
        splits = tuple(store.split(split) for split in record["from"])
        if sha256_file(path) != record["sha256"]:
            raise ValueError(f"{path} is not what the manifest says")
        parts = np.load(path, allow_pickle=False)
        if parts.dtype != np.uint16 or parts.shape != (sum(len(split) for split in splits),):
            raise ValueError(f"{path} has shape {parts.shape} and dtype {parts.dtype}")
    except (OSError, KeyError, TypeError, ValueError, EOFError) as e:
        raise DataError(
            f"the partition {name} of {store.path} is damaged: {e}",
            next="put its file back, or make another with `histoproof data split`",
        ) from None
    return Partition(name, record, parts, splits)


def check_name(store: Store, name: str) -> None:
    """Raise DataError for a name with odd characters, or one that is taken (upper and lower case are one to some disks)."""
    if not _NAME.fullmatch(name) or parse_value(name) != name:
        raise DataError(
            f"{name!r} is no name for a partition",
            valid="1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit, and not what YAML reads as a number, true or null",
        )
    known = store.manifest.get("partitions", {})
    taken = [other for other in known if other.casefold() == name.casefold()]
    if taken:
        raise DataError(
            f"the store {store.path} has a partition {taken[0]} already: a partition is never overwritten",
            valid=f"a name that is not one of {', '.join(known)}",
            next="give another --name",
        )


def write_partition(store: Store, name: str, parts: NDArray[np.uint16], record: dict[str, Any]) -> dict[str, Any]:
    """Write a partition's file, then its entry in the manifest: it exists whole or not at all. Returns the entry.

    Raises DataError if the name was taken meanwhile, OutputError where the store cannot be written to.
    """
    file = f"partitions/{name}.npy"
    content = io.BytesIO()
    np.save(content, parts)
    try:
        with locked(store.path):
            manifest = read_json(store.path / "manifest.json")
            check_name(Store(store.path, manifest, store.splits), name)
            write_bytes(store.path / file, content.getvalue())
            entry = {**record, "file": file, "sha256": sha256_file(store.path / file)}
            manifest["partitions"] = {**manifest.get("partitions", {}), name: entry}
            write_json(store.path / "manifest.json", manifest)
    except OutputError as e:
        raise OutputError(
            e.problem, next="a partition is written into its store: free space there, or copy it where you may write"
        ) from e
    except RunError as e:
        raise OutputError(f"another process is writing to {store.path}", next="wait for it to end, try again") from e
    return entry
