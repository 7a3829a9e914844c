"""What this machine could do at best, measured in the same run as the rows: memory, gathers, conversion, matrix products.

A ceiling may be reached in several ways (one product on all cores, or one product a core); the fastest counts.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import rng
from ..compute import Workers, available_cores, deterministic
from ..data.partition import Patches, PooledImages
from ..data.pcam import PATCH_SHAPE
from .measure import Stage, estimate
from .rounds import CPU, Case, Outcome

__all__ = [
    "DTYPES",
    "PIXELS",
    "ceilings_json",
    "copy_cases",
    "gemm_cases",
    "largest_piece",
    "random_rows",
    "reading_cases",
    "team",
    "transfer_cases",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PIXELS = int(np.prod(PATCH_SHAPE))
"""Bytes of a patch."""
_LARGE, _CACHED = 128 << 20, 8 << 20
_BATCHES = (16, 256)
_SQUARE = {"cpu": 1024, "cuda": 8192}


def copy_cases(device: torch.device) -> list[Case]:
    """Memory copied, bytes read and written: of 128 MiB, which no cache holds, and of 8 MiB, which a cache may."""
    cores = 1 if device.type == "cuda" else available_cores()
    return [
        _case(name, "bytes/s", device, f"{size >> 20} MiB in all", partial(_copy, device, size, cores))
        for name, size in (("memory_copy", _LARGE), ("cache_copy", _CACHED))
    ]


def reading_cases(images: NDArray[np.uint8], devices: Sequence[torch.device]) -> list[Case]:
    """Random rows gathered, and uint8 made float32, into kept memory and on all cores; on a GPU the conversion only."""
    found = []
    for batch in _BATCHES:
        how = f"batches of {batch}"
        found.append(_case("gather", "images/s", CPU, how, partial(_gather, images, batch)))
        found += [_case("convert", "images/s", device, how, partial(_convert, device, batch)) for device in devices]
    return found


def transfer_cases(device: torch.device) -> list[Case]:
    """Page-locked memory to the GPU, 64 MiB at a time; nothing on a CPU."""
    if device.type != "cuda":
        return []
    return [_case("transfer", "bytes/s", device, "64 MiB page-locked", partial(_transfer, device))]


def gemm_cases(
    device: torch.device, precisions: Sequence[str], hidden: int | None = None, batches: Sequence[int] = ()
) -> list[Case]:
    """Square matrix products; and, with `hidden` units, those of the MLP's first layer for each batch size: x w^T and dy^T x, x
    (batch, 27648), w (hidden, 27648)."""
    found = []
    for precision in precisions:
        dtype = DTYPES[precision]
        n = _SQUARE[device.type]
        shapes = [(f"gemm_{precision}", f"({n} x {n}) x ({n} x {n})", partial(_square, device, n, dtype))]
        for batch in batches if hidden else ():
            assert hidden is not None
            words = f"({batch} x {PIXELS}) x ({PIXELS} x {hidden}), and its gradient"
            shapes.append(
                (f"gemm_mlp_b{batch}_{precision}", words, partial(_first_layer, device, batch, hidden, dtype))
            )
        for name, words, open_ in shapes:
            cores = available_cores() if device.type == "cpu" else 1
            ways = {"one core": (1, 1)} if cores == 1 else {"all cores on one": (cores, 1), "one a core": (1, cores)}
            for way, (intra_op, workers) in ways.items():
                found.append(_case(name, "flop/s", device, f"{words}, {way}", partial(open_, intra_op, workers)))
    return found


def ceilings_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """{name: {"unit", "median", "low", "high", "samples", "how"}}, of each name its fastest way; and gather_convert,
    the gather and then the conversion, sample by sample. What was not measured is left out."""
    found: dict[str, Any] = {}
    for outcome in outcomes:
        name = outcome.case.name["ceiling"]
        rate = outcome.estimate("rate")
        if rate is not None and (name not in found or rate.median > found[name]["median"]):
            facts = outcome.case.facts
            found[name] = {"unit": facts["unit"], **rate.as_json(), "how": facts["how"]}
    gather = found.get("gather_cpu")
    for device in ("cpu", "cuda"):
        convert = found.get(f"convert_{device}")
        if gather and convert:
            both = [1 / (1 / g + 1 / c) for g, c in zip(gather["samples"], convert["samples"], strict=False)]
            how = f"gather ({gather['how']}), then conversion ({convert['how']})"
            found[f"gather_convert_{device}"] = {"unit": "images/s", **estimate(both).as_json(), "how": how}
    return found


def _case(name: str, unit: str, device: torch.device, how: str, open_: Callable[[], Any]) -> Case:
    return Case(
        {"what": "ceiling", "ceiling": f"{name}_{device.type}", "how": how},
        open_,
        device,
        facts={"unit": unit, "how": how},
    )


@contextmanager
def team(
    intra_op: int, workers: int, device: torch.device = CPU
) -> Iterator[Callable[[Callable[[int], None], int], None]]:
    """everyone(work, n): each worker calls work(worker) n times."""
    with ExitStack() as stack:
        stack.enter_context(deterministic(device, intra_op))
        team = stack.enter_context(closing(Workers(workers)))

        def everyone(work: Callable[[int], None], n: int) -> None:
            def lane(worker: int, _: int) -> None:
                for _ in range(n):
                    work(worker)

            team.share(lane, workers)

        yield everyone


@contextmanager
def _copy(device: torch.device, size: int, workers: int) -> Iterator[dict[str, Stage]]:
    pairs = [torch.ones((2, size // 2 // workers), dtype=torch.uint8, device=device) for _ in range(workers)]
    with team(1, workers, device) as everyone:

        def work(w: int) -> None:
            pairs[w][0].copy_(pairs[w][1])

        def run(n: int) -> float:
            everyone(work, n)
            return float(n * workers * pairs[0].numel())

        yield {"rate": Stage(run)}


@contextmanager
def _gather(images: NDArray[np.uint8], batch: int) -> Iterator[dict[str, Stage]]:
    workers, source = available_cores(), torch.from_numpy(images)
    rows = torch.from_numpy(random_rows(len(images), 64 * batch, "gather")).view(64, batch)
    room = [torch.zeros((batch, *PATCH_SHAPE), dtype=torch.uint8) for _ in range(workers)]
    turn = list(range(workers))
    with team(1, workers) as everyone:

        def work(w: int) -> None:
            turn[w] += workers
            torch.index_select(source, 0, rows[turn[w] % 64], out=room[w])

        def run(n: int) -> float:
            everyone(work, n)
            return float(n * workers * batch)

        yield {"rate": Stage(run, settle=64 // workers)}


@contextmanager
def _convert(device: torch.device, batch: int) -> Iterator[dict[str, Stage]]:
    workers = 1 if device.type == "cuda" else available_cores()
    source = [torch.ones((batch, PIXELS), dtype=torch.uint8, device=device) for _ in range(workers)]
    room = [torch.zeros((batch, PIXELS), device=device) for _ in range(workers)]
    with team(1, workers, device) as everyone:

        def work(w: int) -> None:
            room[w].copy_(source[w])

        def run(n: int) -> float:
            everyone(work, n)
            return float(n * workers * batch)

        yield {"rate": Stage(run)}


@contextmanager
def _transfer(device: torch.device) -> Iterator[dict[str, Stage]]:
    source = torch.ones(64 << 20, dtype=torch.uint8).pin_memory()
    room = torch.empty_like(source, device=device)

    def run(n: int) -> float:
        for _ in range(n):
            room.copy_(source, non_blocking=True)
        return float(n * source.numel())

    yield {"rate": Stage(run)}


@contextmanager
def _square(
    device: torch.device, n: int, dtype: torch.dtype, intra_op: int, workers: int
) -> Iterator[dict[str, Stage]]:
    made = [[_numbers(device, (n, n), dtype, f"{w} {k}") for k in range(3)] for w in range(workers)]
    with team(intra_op, workers, device) as everyone:

        def work(w: int) -> None:
            torch.mm(made[w][0], made[w][1], out=made[w][2])

        def run(times: int) -> float:
            everyone(work, times)
            return float(times * workers) * 2 * n**3

        yield {"rate": Stage(run)}


@contextmanager
def _first_layer(
    device: torch.device, batch: int, hidden: int, dtype: torch.dtype, intra_op: int, workers: int
) -> Iterator[dict[str, Stage]]:
    x, weight = _numbers(device, (batch, PIXELS), dtype, "x"), _numbers(device, (hidden, PIXELS), dtype, "w")
    outputs = [torch.zeros((batch, hidden), dtype=dtype, device=device) for _ in range(workers)]
    gradients = [torch.zeros((hidden, PIXELS), dtype=dtype, device=device) for _ in range(workers)]
    with team(intra_op, workers, device) as everyone:

        def work(w: int) -> None:
            torch.mm(x, weight.t(), out=outputs[w])
            torch.mm(outputs[w].t(), x, out=gradients[w])

        def run(times: int) -> float:
            everyone(work, times)
            return float(times * workers) * 4 * batch * PIXELS * hidden

        yield {"rate": Stage(run)}


def largest_piece(patches: Patches) -> NDArray[np.uint8]:
    """(N, 96, 96, 3) of the split, or of the largest of those a partition deals from."""
    pieces = patches.images.pieces if isinstance(patches.images, PooledImages) else (patches.images,)
    return max(pieces, key=len)


def random_rows(n: int, count: int, name: str) -> NDArray[np.int64]:
    """(count,) rows of range(n), each as likely as any other; the same for the same name."""
    return (rng.uniform(rng.key(0, "bench", name), count) * n).astype(np.int64)


def _numbers(device: torch.device, shape: tuple[int, int], dtype: torch.dtype, name: str) -> Tensor:
    """Small numbers that are not all alike, and no denormals: arithmetic at its usual speed."""
    row = torch.from_numpy(rng.uniform(rng.key(0, "bench numbers", name), shape[1]).astype(np.float32))
    column = torch.from_numpy(rng.uniform(rng.key(1, "bench numbers", name), shape[0]).astype(np.float32))
    return ((row[None, :] + column[:, None] - 1) / 64).to(dtype).to(device)
