"""Groups: which patches belong together (a slide, a site, a stain cluster), from the store's meta.csv or an extra CSV."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import DEFAULT_GROUPS, GroupsConfig
from ..errors import DataError
from .pcam import SplitName
from .store import Store

__all__ = ["group_labels"]


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
    if not path.is_file():
        raise DataError(
            f"no such groups file: {path}", next="evaluate.groups.csv names it; {split} stands for the split"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if config.column not in columns:
                raise DataError(f"{path} has no column {config.column!r}", valid=", ".join(columns))
            values = np.array([row[config.column] or "" for row in reader], dtype=np.str_)
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"{path} is not a readable CSV: {e}") from None
    if (values == "").any():
        raise DataError(
            f"{path}: row {int(np.flatnonzero(values == '')[0]) + 2} has no {config.column}",
            valid="a group for every patch",
        )
    n = len(store.split(split))
    if len(values) != n:
        raise DataError(
            f"{path} has {len(values)} rows, the {split} split has {n} patches", valid="one row a patch, in order"
        )
    return values
