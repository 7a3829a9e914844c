"""The course's way, written anew: one patch at a time out of HDF5, ToTensor-like, collated by a DataLoader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from histoproof.data.pcam import official_name

from .contender import Contender

__all__ = ["contender", "data_loader", "training_step"]


class HDF5Patches(Dataset[tuple[Tensor, Tensor]]):
    """Train patches of official-named files; opened by each worker itself, as an HDF5 handle survives no fork."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / official_name("train", part) for part in ("x.h5", "y.h5")]
        with h5py.File(self._paths[0]) as file:
            self._n = len(file["x"])
        self._x: Any = None
        self._y: Any = None

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self._x is None:
            self._x, self._y = (h5py.File(p)[key] for p, key in zip(self._paths, "xy", strict=True))
        image = torch.from_numpy(self._x[index]).permute(2, 0, 1).contiguous()  # as ToTensor does
        return image.to(torch.float32).div(255), torch.tensor(float(self._y[index, 0, 0, 0]))


def data_loader(folder: Path, batch_size: int, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    """Shuffled batches. Workers stay between epochs, which flatters it: their start is never in a measured block."""
    return DataLoader(
        HDF5Patches(folder),
        batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(0),
    )


def contender(name: str, words: str, folder: Path, batch_size: int, workers: int, threads: int) -> Contender:
    """That loader as a contender."""
    loader = data_loader(folder, batch_size, workers)
    return Contender(name, words, lambda _: loader, threads)


def training_step() -> Callable[[Tensor, Tensor], None]:
    """One step of the course's loop: the mission's MLP, SGD with momentum, clipping, the loss read at each step."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(96 * 96 * 3, 64), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.3)),
        nn.Linear(32, 1),
    ).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    losses = []

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(images).squeeze(1), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())

    return step
