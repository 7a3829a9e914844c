"""The factors of a split's patches, as a table on disk: NPZ for programs, CSV for people."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.partition import Patches
from ..data.store import Store
from ..files import atomic_path, canonical, write_bytes
from .known import FACTORS
from .reference import Reference, distances, identity, measure_rows

__all__ = ["Table", "factor_table", "write_table"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Table:
    """Factors of rows of a split."""

    index: NDArray[np.int64]
    """(n,) rows of the split; of a partition's part pooled indices, as in a predictions file."""
    values: Floats
    """(n, len(FACTORS))."""
    identity: dict[str, Any]
    """Digests of the patches and of the reference, and the version of the formulas."""

    def column(self, name: str) -> Floats:
        """(n,) one factor."""
        out: Floats = self.values[:, [factor.name for factor in FACTORS].index(name)]
        return out


def factor_table(
    store: Store,
    patches: Patches,
    rows: NDArray[np.int64],
    reference: Reference,
    cache: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Table:
    """The factors of `rows` (n,): from `cache` (an NPZ) where that is of the same patches, reference and formulas, else measured.

    Nothing is written; see `write_table`.
    """
    wanted = {**identity(store, patches, rows), "reference_sha256": reference.sha256}
    kept = _read(cache)
    if kept is not None and kept.identity == wanted and np.array_equal(kept.index, rows):
        return kept
    out = np.empty((len(rows), len(FACTORS)), dtype=np.float32)
    start = 0
    for values, histograms in measure_rows(patches, rows, progress=progress):
        stop = start + len(values)
        out[start:stop, :-1] = values
        out[start:stop, -1] = distances(np.sqrt(histograms), reference.roots)
        start = stop
    return Table(rows, out, wanted)


def write_table(table: Table, path: Path) -> None:
    """Write NPZ (index, values, names, identity as JSON text) to `path`, and a CSV beside it. Raises OutputError."""
    names = [factor.name for factor in FACTORS]
    content = io.BytesIO()
    np.savez(
        content,
        index=table.index,
        values=table.values,
        names=np.array(names),
        identity=np.array(canonical(table.identity)),
    )
    write_bytes(path, content.getvalue())
    with atomic_path(path.with_suffix(".csv")) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", *names])
        for row, values in zip(table.index.tolist(), table.values, strict=True):
            writer.writerow([row, *(f"{value:.6g}" for value in values.tolist())])


def _read(path: Path) -> Table | None:
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found = Table(file["index"], file["values"], json.loads(str(file["identity"])))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError):
        return None
    whole = found.values.shape == (len(found.index), len(FACTORS)) and bool(np.isfinite(found.values).all())
    return found if whole else None
