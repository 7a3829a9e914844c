"""The obvious improvement: a batch in one h5py read, its rows sorted as h5py wants them, converted at once."""

from pathlib import Path

import h5py
import numpy as np
import torch

from histoproof.data.pcam import official_name

from .contender import Batches, Contender, scaled, shuffled

__all__ = ["contender"]


def contender(name: str, words: str, folder: Path, batch_size: int, threads: int, most: int | None = None) -> Contender:
    """Batch reads from the train files in `folder`. Rows within a batch come sorted: a batch is a set."""
    file = h5py.File(folder / official_name("train", "x.h5"))
    with h5py.File(folder / official_name("train", "y.h5")) as y:
        labels = torch.from_numpy(y["y"][:].reshape(-1).astype(np.float32))

    def epoch(number: int) -> Batches:
        for rows in shuffled(len(labels), batch_size, number):
            rows.sort()
            yield scaled(torch.from_numpy(file["x"][rows])), labels[torch.from_numpy(rows)]

    return Contender(name, words, epoch, threads, file.close, most)
