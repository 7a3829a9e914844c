"""Several processes that train one model together, as torchrun starts them; alone, a world of one.

Every process holds the whole model and computes some of the shards. What they exchange is put in the order of the shards before
it is added up, so the bits are those of one process. Nothing is pickled: only tensors travel.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from .errors import ConfigError, RunError

__all__ = ["ALONE", "World", "join"]

_PATIENCE = timedelta(minutes=30)
"""How long processes wait for each other: validation of a large split by one of them must fit in."""


@dataclass(frozen=True)
class World:
    """Which of how many processes this is."""

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder and prints."""
        return self.rank == 0

    def gathered(self, mine: Tensor) -> list[Tensor]:
        """Every process's tensor, of one shape and dtype, in the order of the ranks."""
        if self.size == 1:
            return [mine]
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        with _together(self.rank):
            dist.all_gather(everyone, mine.contiguous())
        return everyone

    def told(self, text: str) -> str:
        """The leader's text, on every process. The others' is not looked at."""
        if self.size == 1:
            return text
        device = (
            torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
        )
        content = text.encode()
        length = torch.tensor([len(content)], dtype=torch.int64, device=device)
        with _together(self.rank):
            dist.broadcast(length, 0)
            letters = torch.zeros(int(length), dtype=torch.uint8, device=device)
            if self.leads:
                letters.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            dist.broadcast(letters, 0)
        return bytes(letters.cpu().tolist()).decode()

    def first(self, work: Callable[[], str]) -> str:
        """Let the leader do `work` alone; its text, on every process. Where it fails, all fail."""
        if self.size == 1:
            return work()
        failure: Exception | None = None
        text = "failed:"
        if self.leads:
            try:
                text = "done:" + work()
            except Exception as e:  # noqa: BLE001 (raised again below, once the others know)
                failure = e
        text = self.told(text)
        with _together(self.rank):
            dist.barrier()  # nobody leaves before everybody knows
        if failure is not None:
            raise failure
        if text == "failed:":
            time.sleep(2)  # torchrun ends every process when the first one ends: let the leader say why
            raise RunError("process 0 could not begin; it says why")
        return text.removeprefix("done:")

    def agree(self, text: str, what: str) -> None:
        """Raise RunError unless every process has the same text, e.g. a digest of its weights."""
        theirs = self.told(text)
        if theirs != text:
            raise RunError(
                f"process {self.rank} has another {what} than process 0 ({text[:12]}, {theirs[:12]})",
                next="the processes of one run must have the same software and the same kind of processor",
            )


ALONE = World(0, 1)


@contextmanager
def _together(rank: int) -> Iterator[None]:
    """Turn the loss of another process into words."""
    try:
        yield
    except RuntimeError as e:
        raise RunError(
            f"process {rank} lost the others: one of them ended, or did not answer ({str(e).splitlines()[0][:120]})",
            next="see what the process that ended first said; the run goes on from its last checkpoint with "
            "`torchrun ... -m histoproof train --resume RUN`",
        ) from e


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """The world that torchrun set up in the environment (RANK, WORLD_SIZE, ...); a world of one without it.

    gloo between CPUs, nccl between GPUs, one GPU a process. Raises ConfigError for an environment that is incomplete.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set",
            next="start several processes with `torchrun --nproc-per-node N -m histoproof train ...`",
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
