"""Columns of meta.csv, or of a CSV that is named, as factors: slide, site, stain cluster, whatever else is known of a patch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import GroupsConfig
from ..data.groups import group_labels_of
from ..data.partition import Part, Patches
from ..data.store import Store
from ..errors import DataError

__all__ = ["columns_of", "parse_column"]

_NOT_FACTORS = ("coord_x", "coord_y", "tumor_patch", "center_tumor_patch")
"""Where a patch lies in its slide says nothing across slides; the other two are the label."""


def columns_of(store: Store, patches: Patches, named: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """{column: (N,) texts by the rows of `patches`}: those of the store's meta.csv, then those `named`, as COLUMN or CSV:COLUMN.

    Raises DataError for a name that is not known, or a CSV that does not fit.
    """
    splits = [split.name for split in patches.pool] if isinstance(patches, Part) else [patches.name]
    found: dict[str, NDArray[np.str_]] = {}
    for column in store.columns():
        if column not in _NOT_FACTORS and all(store.meta(split, column) is not None for split in splits):
            labels = group_labels_of(store, patches, GroupsConfig(column=column))
            assert labels is not None
            found[column] = labels
    for text in named:
        config = parse_column(store, text)
        labels = group_labels_of(store, patches, config)
        if labels is None:
            raise DataError(
                f"the store {store.path} knows no {config.column!r} of these patches",
                next=f"for a column of a CSV: --groups FILE.csv:{config.column}",
            )
        assert config.column is not None
        found[config.column] = labels
    return found


def parse_column(store: Store, text: str) -> GroupsConfig:
    """COLUMN of the store's meta.csv, or CSV:COLUMN. Raises DataError for text that is neither."""
    path, colon, column = text.rpartition(":")
    if not column or (colon and not path):
        raise DataError(f"--groups {text!r} names no column", valid="COLUMN, or CSV:COLUMN")
    if not colon and Path(column).suffix == ".csv":
        raise DataError(f"--groups {text} names no column", valid=f"{text}:COLUMN")
    if not colon and column not in store.columns():
        known = ", ".join(store.columns()) or "none"
        raise DataError(
            f"--groups {text}: meta.csv of {store.path} has no column {text!r}",
            valid=f"its columns: {known}; or CSV:COLUMN",
        )
    return GroupsConfig(column=column, csv=path or None)
