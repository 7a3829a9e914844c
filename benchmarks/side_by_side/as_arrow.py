"""Hugging Face datasets: a memory-mapped Arrow table, batches taken by their rows."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from histoproof.data.pcam import PATCH_SHAPE
from histoproof.files import new_folder

from .contender import Batches, Contender, scaled, shuffled
from .patches import Patches

__all__ = ["contender"]


def contender(patches: Patches, batch_size: int, threads: int) -> Contender:
    """Raises ModuleNotFoundError where datasets is not installed. A patch is one binary value, taken in the library's arrow
    format: the fastest of the forms tried here."""
    import datasets

    datasets.disable_progress_bars()
    table: Any = datasets.load_from_disk(str(_table(patches))).with_format("arrow")

    def epoch(number: int) -> Batches:
        for rows in shuffled(len(table), batch_size, number):
            found = table[rows.tolist()]
            yield scaled(_pixels(found["x"])), torch.from_numpy(found["y"].to_numpy().astype(np.float32))

    return Contender("datasets", "Hugging Face datasets (Arrow, memory-mapped), batches of rows", epoch, threads)


def _pixels(column: Any) -> torch.Tensor:
    """(B, 96, 96, 3) uint8: the values of a binary column lie one behind the other."""
    array = column.combine_chunks()
    _, ends, values = array.buffers()
    first = int(np.frombuffer(ends, np.int32)[array.offset])
    size = int(np.prod(PATCH_SHAPE))
    pixels = np.frombuffer(values, np.uint8, len(array) * size, first).reshape(-1, *PATCH_SHAPE)
    with warnings.catch_warnings():  # torch: not writable; it is not written to
        warnings.simplefilter("ignore")
        return torch.from_numpy(pixels)


def _table(patches: Patches) -> Path:
    import datasets

    folder = patches.folder / "arrow"
    if folder.exists():
        return folder
    images, labels = patches.train().images, patches.labels()

    def rows() -> Any:
        for image, label in zip(images, labels.tolist(), strict=True):
            yield {"x": image.tobytes(), "y": label}

    features = datasets.Features({"x": datasets.Value("binary"), "y": datasets.Value("uint8")})
    with new_folder(folder, what="Arrow table") as made:
        cache = str(patches.folder / "arrow-cache")
        table: Any = datasets.Dataset.from_generator(rows, features=features, cache_dir=cache)
        table.save_to_disk(str(made))
    return folder
