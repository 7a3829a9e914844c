"""Where and how numbers are computed: device, threads, arithmetic, and pixels turned into a model's input."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from .augment import ColourShift
from .cores import available_cores
from .errors import ConfigError
from .world import ALONE, World

__all__ = [
    "Precision",
    "Standardize",
    "Workers",
    "as_input",
    "autocast",
    "available_cores",
    "deterministic",
    "pick_device",
]

T = TypeVar("T")
Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Standardize:
    """Mean and standard deviation of each channel, in units of 0-1. The default changes nothing."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


_PLAIN = Standardize()


def as_input(
    images_NHWC: Tensor, standardize: Standardize, colour: ColourShift | None = None, *, out: Tensor | None = None
) -> Tensor:
    """uint8 patches (N, 96, 96, 3) as a model's input (N, 3, 96, 96) float32: / 255, colour, standardised.

    `out`, (N, 96, 96, 3) float32 and contiguous, is where it is written, if given.

    The result is channels_last in memory, as the pixels lie in the store: no copy is made for the layout.
    """
    n, height, width, channels = images_NHWC.shape
    if out is None:
        out = torch.empty(images_NHWC.shape, dtype=torch.float32, device=images_NHWC.device)
    x, images = out.view(n, height, width * channels), images_NHWC.reshape(n, height, width * channels)
    scale, shift, from_bytes = _rows(standardize, width, x.device)
    factor = offset = None
    if colour is not None:
        factor, offset = (values.repeat(1, width).unsqueeze(1) for values in colour)
        factor = factor / 255
    few = n if x.device.type == "cuda" else max(_IN_CACHE // (4 * height * width * channels), 1)
    for start in range(0, n, few):
        # Each line below is one pass over memory, which stays in the cache; so factors were multiplied up before.
        part = slice(start, start + few)
        y = x[part].copy_(images[part])
        if factor is not None and offset is not None:
            torch.addcmul(offset[part], y, factor[part], out=y).clamp_(0, 1)
            if standardize != _PLAIN:
                torch.addcmul(shift, y, scale, out=y)
        elif standardize == _PLAIN:
            y.mul_(1 / 255)
        else:
            torch.addcmul(shift, y, from_bytes, out=y)
    return out.permute(0, 3, 1, 2)


_IN_CACHE = 2**20
"""Bytes of floats made at a time on a CPU: a core's second cache."""


@lru_cache(maxsize=16)
def _rows(standardize: Standardize, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(1 / std, -mean / std, 1 / (255 std)) for each value of a row of pixels: to broadcast three numbers over pixels takes ten
    times as long as a whole row."""
    mean, std = (torch.tensor(v, device=device).repeat(width) for v in (standardize.mean, standardize.std))
    return 1 / std, -mean / std, 1 / (255 * std)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The arithmetic of a forward pass; a context manager."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, _DTYPES[precision])


def pick_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to compute on. Raises ConfigError where CUDA is asked for and there is none."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        reason = "this torch is a CPU build" if torch.version.cuda is None else "no CUDA device is visible"
        raise ConfigError(f"train.device = cuda, but {reason}", valid="cpu or auto here")
    # With an index, since the current device is a matter of each thread.
    local = int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else torch.cuda.current_device()
    return torch.device("cuda", local)


@contextmanager
def deterministic(device: torch.device, intra_op_threads: int) -> Iterator[None]:
    """Fix what torch would choose by itself: threads within an operation, CUDA kernels, TF32. Restored afterwards, but for
    CUBLAS_WORKSPACE_CONFIG, which cuBLAS reads once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(intra_op_threads)
    if device.type != "cuda":
        try:
            yield
        finally:
            torch.set_num_threads(threads)
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, tf32 = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    matmul = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = benchmark, tf32
        torch.set_num_threads(threads)


class Workers:
    """A few threads, of one process or several, that share work. Results come back in the order of the work, whoever did it."""

    def __init__(self, count: int, world: World = ALONE) -> None:
        self.count = count
        self.world = world
        # The caller is worker 0: a thread that sleeps must be woken, which costs more than a small piece of work.
        self._lanes: list[SimpleQueue[Callable[[], None] | None]] = [SimpleQueue() for _ in range(count - 1)]
        self._threads = [Thread(target=_serve, args=(lane,), name="worker", daemon=True) for lane in self._lanes]
        for thread in self._threads:
            thread.start()

    def share(
        self, work: Callable[[int, int], T], pieces: int, beside: Callable[[], object] | None = None
    ) -> Sequence[T]:
        """[work(worker, piece) for each piece]: whoever is free takes the next. `beside` is done by one of them too."""
        if self.count == 1 or pieces + (beside is not None) <= 1:
            if beside is not None:
                beside()
            return [work(0, piece) for piece in range(pieces)]
        found: list[Any] = [None] * pieces
        next_piece = itertools.count(
            0 if beside is None else -1
        )  # next() on it is one step that no other thread can split
        ended: SimpleQueue[BaseException | None] = SimpleQueue()
        failed = False

        def lane(worker: int) -> None:
            nonlocal failed
            failure: BaseException | None = None
            try:
                for piece in next_piece:
                    if failed or piece >= pieces:  # what is left would be thrown away
                        break
                    if piece < 0:
                        assert beside is not None
                        beside()
                    else:
                        found[piece] = work(worker, piece)
            except BaseException as e:  # noqa: BLE001 (raised by the caller, once all have ended)
                failure, failed = e, True
            ended.put(failure)

        used = min(self.count, pieces + (beside is not None))
        for worker in range(1, used):
            self._lanes[worker - 1].put(partial(lane, worker))
        lane(0)
        failures = [ended.get() for _ in range(used)]
        for failure in failures:
            if failure is not None:
                raise failure
        return found

    def share_vectors(self, work: Callable[[int, int], Tensor], pieces: int) -> Sequence[Tensor]:
        """`share` among the threads of all processes: process r takes pieces r, r + size, ... Every result is a vector of one
        length and dtype on one device, and every process gets them all."""
        rank, size = self.world.rank, self.world.size
        if size == 1:
            return self.share(work, pieces)
        mine = self.share(lambda worker, k: work(worker, rank + k * size), len(range(rank, pieces, size)))
        rounds = -(-pieces // size)
        if (
            len(mine) < rounds
        ):  # the last round does not need everyone; a tensor of the same shape must travel all the same
            mine = [*mine, torch.zeros_like(mine[0]) if mine else work(0, 0)]
        everyone = self.world.gathered(torch.stack(list(mine)))
        return [everyone[piece % size][piece // size] for piece in range(pieces)]

    def close(self) -> None:
        """End the threads."""
        for lane in self._lanes:
            lane.put(None)
        for thread in self._threads:
            thread.join()


def _serve(lane: "SimpleQueue[Callable[[], None] | None]") -> None:
    """Do what comes along the lane, with one thread inside an operation, until None comes."""
    torch.set_num_threads(1)
    while (task := lane.get()) is not None:
        task()
        del task  # with what it holds: the next one may be long in coming
