"""`bench loader`: from the store to a tensor that a model takes, in random rows, without any training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..augment import colour_shifts, d4_elements, dihedral
from ..compute import Standardize, as_input, available_cores
from ..config import AugmentConfig, Config, load
from ..data.batches import channel_statistics
from ..data.pcam import PATCH_SHAPE
from ..data.store import Split, open_store
from ..errors import ConfigError
from ..experiment import config_digest
from .ceilings import DTYPES, PIXELS, copy_cases, random_rows, reading_cases, team, transfer_cases
from .drive import Plan, carry_out, effort_of
from .measure import Stage
from .options import BATCH_SIZES, PRECISIONS, Device, asked_devices, checked, checked_samples, whole_numbers
from .rounds import CPU, Case, Outcome
from .rows import nearest

__all__ = ["loader"]

_ORDERS = 64
"""Batches of random rows drawn beforehand, and gone through again and again."""


@dataclass(frozen=True)
class _Source:
    """What is loaded, and how it is changed on the way."""

    split: Split
    standardize: Standardize
    augment: AugmentConfig


def loader(
    store: Path,
    *,
    split: Literal["train", "valid"] = "train",
    batch_sizes: Sequence[Any] = BATCH_SIZES,
    devices: Sequence[str] = ("cpu", "cuda"),
    precisions: Sequence[str] = PRECISIONS,
    config: Path | None = None,
    sets: Sequence[str] = (),
    quick: bool = False,
    samples: int | None = None,
    out: Path | None = None,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """How many patches a second become model-ready tensors: random rows of a store's split gathered into kept memory and
    converted there (float32, or the precision's dtype). On a CPU every allowed core makes whole batches of its own; on a GPU one
    core gathers into page-locked memory, and the GPU converts.

    `config` with `sets` says how pixels are standardised and augmented; default: / 255, unchanged. Writes a folder (`out`, or the
    first free bench/loader-001, ...) and returns the content of its bench.json (docs/bench.md). Raises ConfigError, DataError,
    OutputError.
    """

    def make() -> Plan:
        checked_samples(samples)
        sizes, kinds = whole_numbers("--batch-sizes", batch_sizes), checked("--precisions", precisions, DTYPES)
        checked("--split", [split], ("train", "valid"))
        if sets and config is None:
            raise ConfigError("--set replaces keys of a config, and there is none", next="give --config as well")
        opened, wanted = open_store(store), asked_devices(devices)
        part = opened.split(split)
        settings = None if config is None else load(config, sets)
        source = _source(part, settings)
        there = [device.torch for device in wanted if device.torch is not None]
        ceilings = [*reading_cases(part.images, there), *(case for d in there for case in copy_cases(d))]
        return Plan(
            kind="loader",
            stem="loader",
            subject={
                "store": str(store),
                "store_sha256": opened.content_sha256,
                "split": split,
                "n": len(part),
                "config": None if config is None else str(config),
                "config_sha256": None if settings is None else config_digest(settings),
                "settings": {
                    "augment": source.augment.model_dump(),
                    "standardize": source.standardize != Standardize(),
                },
            },
            rows=[_case(source, device, size, kind) for device in wanted for kind in kinds for size in sizes],
            ceilings=[*ceilings, *(case for d in there for case in transfer_cases(d))],
            ceiling_of=_ceiling,
        )

    return carry_out(make, effort_of(quick, samples), out, progress)


def _source(split: Split, settings: Config | None) -> _Source:
    if settings is None:
        return _Source(split, Standardize(), AugmentConfig())
    standardize = Standardize()
    if settings.data.standardize == "train":
        standardize = Standardize(*channel_statistics(split, split.rows(settings.data.quarantine)))
    return _Source(split, standardize, settings.augment)


def _case(source: _Source, device: Device, batch: int, precision: str) -> Case:
    name = {"what": "loader", "model": None, "device": device.name, "batch_size": batch, "precision": precision}
    name["variant"] = None
    if device.torch is None:
        return Case(name, None, reason=device.reason)
    open_ = _on_gpu if device.torch.type == "cuda" else _on_cpu
    workers = 1 if device.torch.type == "cuda" else available_cores()
    opened = partial(open_, source, device.torch, batch, DTYPES[precision])
    return Case(name, opened, device.torch, threads={"intra_op": 1, "workers": workers})


def _ceiling(outcome: Outcome, ceilings: dict[str, Any]) -> dict[str, Any] | None:
    """On a CPU gather, then conversion, both of them at this machine's best; on a GPU the slowest of what can overlap."""
    rate = {name: one["median"] for name, one in ceilings.items()}
    if outcome.case.device.type == "cpu":
        return nearest(outcome.estimate("end_to_end"), {"gather_convert_cpu": rate.get("gather_convert_cpu")})
    transfer = rate.get("transfer_cuda")
    bounds = {name: rate.get(name) for name in ("gather_cpu", "convert_cuda")}
    bounds["transfer_cuda"] = transfer / PIXELS if transfer else None
    return nearest(outcome.estimate("end_to_end"), bounds)


def _orders(split: Split, batch: int) -> NDArray[np.int64]:
    count = max(2, min(_ORDERS, (1 << 20) // batch))
    return random_rows(len(split), count * batch, "loader").reshape(count, batch)


class _Lane:
    """One worker's memory, kept from batch to batch, and its place in the orders."""

    def __init__(
        self, source: _Source, orders: NDArray[np.int64], dtype: torch.dtype, device: torch.device, start: int
    ) -> None:
        batch, pinned = orders.shape[1], device.type == "cuda"
        self._source, self._orders, self._at = source, orders, start
        self._pixels = torch.from_numpy(source.split.images)
        self.gathered = torch.zeros((batch, *PATCH_SHAPE), dtype=torch.uint8, pin_memory=pinned)
        self.arrived = torch.zeros_like(self.gathered, device=device) if pinned else self.gathered
        self._floats = torch.zeros((batch, *PATCH_SHAPE), device=device)
        self._low = None if dtype == torch.float32 else torch.zeros_like(self._floats, dtype=dtype)
        self._colour: tuple[Tensor, Tensor] | None = None

    def gather(self, stride: int) -> None:
        """The next batch's pixels, rotated and flipped where the config says so."""
        self._at = (self._at + stride) % len(self._orders)
        rows, augment = self._orders[self._at], self._source.augment
        torch.index_select(self._pixels, 0, torch.from_numpy(rows), out=self.gathered)
        if augment.d4:
            self.gathered.copy_(dihedral(self.gathered, d4_elements(0, 0, rows)))
        colour = colour_shifts(augment, 0, 0, rows)
        device = self._floats.device
        self._colour = None if colour is None else (colour[0].to(device), colour[1].to(device))

    def send(self) -> None:
        """To the device."""
        self.arrived.copy_(self.gathered, non_blocking=True)

    def convert(self) -> None:
        """What has arrived, as a model takes it."""
        made = as_input(self.arrived, self._source.standardize, self._colour, out=self._floats)
        if self._low is not None:
            self._low.copy_(made.permute(0, 2, 3, 1))


@contextmanager
def _on_cpu(source: _Source, device: torch.device, batch: int, dtype: torch.dtype) -> Iterator[dict[str, Stage]]:
    workers, orders = available_cores(), _orders(source.split, batch)
    lanes = [_Lane(source, orders, dtype, CPU, start) for start in range(workers)]

    def both(worker: int) -> None:
        lanes[worker].gather(workers)
        lanes[worker].convert()

    with team(1, workers) as everyone:

        def stage(work: Callable[[int], None]) -> Stage:
            def run(n: int) -> float:
                everyone(work, n)
                return float(n * workers * batch)

            return Stage(run)

        yield {
            "data": stage(lambda worker: lanes[worker].gather(workers)),
            "compute": stage(lambda worker: lanes[worker].convert()),
            "end_to_end": stage(both),
        }


@contextmanager
def _on_gpu(source: _Source, device: torch.device, batch: int, dtype: torch.dtype) -> Iterator[dict[str, Stage]]:
    """Two lanes in turn: the next batch is gathered while the one before travels and is converted."""
    orders = _orders(source.split, batch)
    lanes = [_Lane(source, orders, dtype, device, start) for start in range(2)]
    sent = [torch.cuda.Event() for _ in lanes]  # type: ignore[no-untyped-call]

    def stage(work: Callable[[int], None]) -> Stage:
        def run(n: int) -> float:
            for turn in range(n):
                work(turn % 2)
            return float(n * batch)

        return Stage(run, settle=2)

    def all_of_it(lane: int) -> None:
        sent[lane].synchronize()  # its page-locked memory is free again
        lanes[lane].gather(2)
        lanes[lane].send()
        sent[lane].record()
        lanes[lane].convert()

    with team(1, 1, device):
        yield {
            "data": stage(lambda lane: lanes[lane].gather(2)),
            "transfer": stage(lambda lane: lanes[lane].send()),
            "compute": stage(lambda lane: lanes[lane].convert()),
            "end_to_end": stage(all_of_it),
        }
