"""Groups: which patches belong together (a slide, a site, a stain cluster), from the store's meta.csv or an extra CSV."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import DEFAULT_GROUPS, GroupsConfig
from ..errors import DataError
from .partition import Part, Patches
from .pcam import SplitName
from .store import Store

__all__ = ["group_labels", "group_labels_of", "pooled_labels"]


def group_labels(store: Store, split: SplitName, config: GroupsConfig) -> NDArray[np.str_] | None:
    """(N,) the group of each patch of a split, as text; None where the store has no such column and no CSV is named.

    Raises DataError for a CSV that is missing, has no such column, or not one row a patch.
    """
    if config.column is None:
        return None
    if config.csv is None:
        found = store.meta(split, config.column)
        if found is None and config.column != DEFAULT_GROUPS:
            raise DataError(
                f"the store {store.path} knows no {config.column!r} of the {split} split",
                valid="a column of its meta.csv, or evaluate.groups.column: null for patches that stand alone",
            )
        return found
    path = Path(config.csv.replace("{split}", split))
    return _column(path, config.column, len(store.split(split)), f"the {split} split")


def group_labels_of(store: Store, patches: Patches, config: GroupsConfig) -> NDArray[np.str_] | None:
    """`group_labels` of a store's own split, or of a partition's whole pool: (N,), by the rows of `patches`."""
    if isinstance(patches, Part):
        return pooled_labels(store, [split.name for split in patches.pool], config)
    return group_labels(store, patches.name, config)


def pooled_labels(store: Store, splits: Sequence[SplitName], config: GroupsConfig) -> NDArray[np.str_] | None:
    """(N,) the groups of several splits' patches, one split after the other; None where one of them has none.

    A CSV without {split} in its path must then hold the rows of all of them, in this order. Raises DataError as `group_labels`.
    """
    if config.column is not None and config.csv is not None and "{split}" not in config.csv:
        n = sum(len(store.split(split)) for split in splits)
        return _column(Path(config.csv), config.column, n, " and ".join(splits))
    found = [labels for split in splits if (labels := group_labels(store, split, config)) is not None]
    return np.concatenate(found) if len(found) == len(splits) else None


def _column(path: Path, column: str, n: int, what: str) -> NDArray[np.str_]:
    if not path.is_file():
        raise DataError(
            f"no such groups file: {path}",
            next="evaluate.groups.csv or --groups names it; {split} in it stands for the split",
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if column not in columns:
                raise DataError(f"{path} has no column {column!r}", valid=", ".join(columns))
            if columns.count(column) > 1:
                raise DataError(f"{path} has {columns.count(column)} columns {column!r}", valid="each name once")
            values = np.array([row[column] or "" for row in reader], dtype=np.str_)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"{path} is not a readable CSV: {e}") from None
    if (values == "").any():
        raise DataError(
            f"{path}: row {int(np.flatnonzero(values == '')[0]) + 2} has no {column}", valid="a group for every patch"
        )
    if len(values) != n:
        plural = "has" if what.startswith("the ") else "have"
        raise DataError(
            f"{path} has {len(values)} rows, {what} {plural} {n} patches", valid="one row a patch, in order"
        )
    return values
