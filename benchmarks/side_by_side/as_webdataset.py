"""webdataset: tar shards of raw bytes, read by DataLoader workers through a shuffle buffer."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from histoproof.data.pcam import PATCH_SHAPE
from histoproof.files import new_folder

from .contender import Batches, Contender, scaled
from .patches import Patches

__all__ = ["contender"]

SHARDS = 16
BUFFER = 1000


def contender(patches: Patches, batch_size: int, workers: int, threads: int) -> Contender:
    """Raises ModuleNotFoundError where webdataset is not installed. Its order is random within what the buffer holds only."""
    import webdataset

    folder = _shards(patches)
    urls = [str(path) for path in sorted(folder.iterdir())]
    data: Any = webdataset.WebDataset(urls, shardshuffle=len(urls), workersplitter=webdataset.split_by_worker, seed=0)
    data = data.shuffle(BUFFER).to_tuple("bin", "cls").batched(batch_size, collation_fn=_collated)
    loader: Any = webdataset.WebLoader(data, batch_size=None, num_workers=workers, persistent_workers=workers > 0)

    def epoch(_: int) -> Batches:
        yield from loader

    return Contender("webdataset", f"webdataset, tar shards of raw bytes, {workers} workers", epoch, threads)


def _collated(samples: list[tuple[bytes, bytes]]) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = np.frombuffer(b"".join(x for x, _ in samples), np.uint8).reshape(-1, *PATCH_SHAPE)
    with torch.no_grad():
        return scaled(torch.from_numpy(pixels.copy())), torch.tensor([float(y) for _, y in samples])


def _shards(patches: Patches) -> Path:
    folder = patches.folder / "webdataset"
    if folder.exists():
        return folder
    images, labels = patches.train().images, patches.labels()
    with new_folder(folder, what="set of shards") as made:
        for shard, rows in enumerate(np.array_split(np.arange(len(labels)), SHARDS)):
            with tarfile.open(made / f"{shard:03d}.tar", "w") as tar:
                for row in rows.tolist():
                    for suffix, content in (("bin", images[row].tobytes()), ("cls", str(labels[row]).encode())):
                        entry = tarfile.TarInfo(f"{row:07d}.{suffix}")
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
    return folder
