"""An experiment set up: everything about a config that can be checked and read before a run folder is made."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from . import models
from .compute import Standardize, available_cores, pick_device
from .config import Config, TrainConfig, identity
from .data.batches import Sampler, channel_statistics
from .data.groups import group_labels_of
from .data.partition import Part, Patches, open_part
from .data.store import Store, open_store
from .files import canonical

__all__ = ["Setup", "config_digest", "data_digest", "prefetch", "prepare", "residency", "threads"]


@dataclass(frozen=True)
class Setup:
    """What can be checked and read before a run folder is made."""

    config: Config
    device: torch.device
    store: Store
    train: Patches
    valid: Patches
    sampler: Sampler
    valid_rows: NDArray[np.int64]
    standardize: Standardize


def prepare(config: Config) -> Setup:
    """Open, check and measure what `config` names. Raises ConfigError or DataError; nothing has been written then."""
    device = pick_device(config.train.device)
    store = open_store(Path(config.data.store))
    split, valid = (open_part(store, role, config.data.partition, config.data.fold) for role in ("train", "valid"))
    rows, valid_rows = split.rows(config.data.quarantine), valid.rows(config.data.quarantine)
    assert split.labels is not None  # rows() has seen to it
    sampler = Sampler(rows, split.labels, config.data.sampling, config.train.batch_size, config.seed)
    group_labels_of(store, valid, config.evaluate.groups)  # a column that is not there is found now, not after training
    if config.data.verify:
        split.verify()
        valid.verify()
    standardize = Standardize()
    if config.data.standardize == "train":
        standardize = Standardize(*channel_statistics(split, rows))
    models.build(config.model, config.seed)  # a model that cannot be built is a mistake found before a folder is made
    return Setup(config, device, store, split, valid, sampler, valid_rows, standardize)


def threads(config: TrainConfig, device: torch.device, processes: int = 1) -> tuple[int, int]:
    """(threads inside an operation, workers) of each process. With shards > 1 every operation uses one thread and shards are
    shared out."""
    wanted = config.workers or max(available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", processes)), 1)
    if device.type == "cuda":
        return 1, 1
    return (wanted, 1) if config.shards == 1 else (1, min(wanted, config.shards))


def residency(config: Config, split: Patches, device: torch.device) -> Any:
    """Where pixels are read from: what the config says; auto: the GPU's memory if half of what is free there holds them."""
    if config.data.residency != "auto":
        return "ram" if config.data.residency == "device" and device.type == "cpu" else config.data.residency
    if device.type == "cuda":
        return "device" if split.images.nbytes < torch.cuda.mem_get_info(device)[0] // 2 else "disk"
    return "disk"  # the page cache keeps what fits, and gives it back when others need it


def prefetch(config: Config, device: torch.device) -> int | None:
    """Batches that a thread of its own prepares ahead; None: whoever of the workers is free makes the next one."""
    if config.data.prefetch is None:
        return None if device.type == "cpu" else 4
    return config.data.prefetch


def config_digest(config: Config) -> str:
    """Digest of every key that can change a weight."""
    return hashlib.sha256(canonical(identity(config)).encode()).hexdigest()


def data_digest(setup: Setup) -> str:
    """Digest of the patches that training reads: pixels and labels of train and valid, the rows in use, and the partition."""
    parts = [
        [*_digests(split), hashlib.sha256(rows.tobytes()).hexdigest()]
        for split, rows in ((setup.train, setup.sampler.rows), (setup.valid, setup.valid_rows))
    ]
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def _digests(patches: Patches) -> list[str]:
    if isinstance(patches, Part):
        return [patches.sha256, *(digest for split in patches.pool for digest in _digests(split))]
    return [patches.digests["images"]["sha256"], patches.digests["labels"]["sha256"]]
