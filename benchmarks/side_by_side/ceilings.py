"""What this machine can do at most, measured in the same rounds: moving pixels, and multiplying matrices.

Gather plus convert: a loader must fetch each patch's bytes from where they lie and must turn them into float32. Each half is
measured alone, with nothing around it, by torch's own kernels on all cores into buffers used again and again: no batches, no
labels, no order to draw, no allocation, no hand-over. Of several sizes of piece (all within the caches) and ways to share the
cores the fastest counts. A loader that does one after the other can at best reach 1 / (1 / gather + 1 / convert).

GEMM: the first layer of the MLP is (batch x 27,648) by (27,648 x 64) forward and its weight's gradient backward, 99.8 % of the
arithmetic of a step. A training cannot be faster than these two products alone, in the faster of the usual memory layouts, each
on all cores, with operands that stay where they are.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from histoproof.compute import Workers, available_cores

from .patches import Patches
from .timing import Task

__all__ = ["convert_task", "fastest", "gather_task", "gemm_tasks"]

PIXELS = 96 * 96 * 3
HIDDEN = 64
SCALE = 1 / 255
Piece = Callable[[int, int], None]
"""(worker, piece) -> done"""


def gather_task(patches: Patches, sizes: tuple[int, ...] = (16, 64, 256)) -> Task:
    """Rows in random order out of the warm memory map."""
    mapped = torch.from_numpy(patches.train().images)
    n = len(mapped)
    order = torch.from_numpy(np.random.default_rng(0).permutation(n))

    def gather(size: int, workers: Workers) -> Piece:
        rooms = [torch.empty((size, *mapped.shape[1:]), dtype=torch.uint8) for _ in range(workers.count)]

        def piece(worker: int, k: int) -> None:
            rows = order[k * size : (k + 1) * size]
            torch.index_select(mapped, 0, rows, out=rooms[worker][: len(rows)])

        return piece

    return fastest("gather", "ceiling: rows gathered from the memory map", _variants(n, sizes, gather))


def convert_task(patches: Patches, sizes: tuple[int, ...] = (4, 16, 64)) -> Task:
    """uint8 in a buffer to float32 / 255 in another."""
    n = len(patches)

    def copied(source: Tensor, out: Tensor) -> None:
        out.copy_(source).mul_(SCALE)

    def multiplied(source: Tensor, out: Tensor) -> None:
        torch.mul(source, SCALE, out=out)

    def convert(kernel: Callable[[Tensor, Tensor], None]) -> Callable[[int, Workers], Piece]:
        def of(size: int, workers: Workers) -> Piece:
            sources = [torch.randint(256, (size, PIXELS), dtype=torch.uint8) for _ in range(workers.count)]
            rooms = [torch.empty((size, PIXELS)) for _ in range(workers.count)]

            def piece(worker: int, _: int) -> None:
                kernel(sources[worker], rooms[worker])

            return piece

        return of

    tasks = [task for kernel in (copied, multiplied) for task in _variants(n, sizes, convert(kernel))]
    return fastest("convert", "ceiling: bytes in cache to float32 / 255", tasks)


def _variants(n: int, sizes: tuple[int, ...], make: Callable[[int, Workers], Piece]) -> list[Task]:
    """Pieces of each size, shared among worker threads or within torch's operations."""
    cores = available_cores()
    tasks = []
    for size in {min(size, n) for size in sizes}:
        for count, threads in {(cores, 1), (1, cores)}:
            workers = Workers(count)
            piece, pieces = make(size, workers), n // size

            def block(piece: Piece = piece, workers: Workers = workers, pieces: int = pieces, size: int = size) -> int:
                workers.share(piece, pieces)
                return pieces * size

            words = (
                f"{size} patches a piece, {count} worker{'s' * (count > 1)} of {threads} thread{'s' * (threads > 1)}"
            )
            tasks.append(Task("", words, block, threads))
    return tasks


def fastest(name: str, words: str, tasks: list[Task], tries: int = 3) -> Task:
    """The one of `tasks` whose best of a few tries is the fastest."""

    def rate(task: Task) -> float:
        torch.set_num_threads(task.threads)
        task.block()
        best = 0.0
        for _ in range(tries):
            start = time.perf_counter()
            done = task.block()
            best = max(best, done / (time.perf_counter() - start))
        return best

    before = torch.get_num_threads()
    chosen = max(tasks, key=rate)
    torch.set_num_threads(before)
    return Task(name, words, chosen.block, chosen.threads, chosen.words)


def gemm_tasks(batch_size: int, products: int = 8) -> tuple[Task, Task]:
    """(forward, gradient): the two products of a batch through the first layer, each in its faster layout."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((batch_size, PIXELS), generator=generator)
    dy = torch.randn((batch_size, HIDDEN), generator=generator)
    weight, weight_T = torch.randn((HIDDEN, PIXELS), generator=generator), torch.randn((PIXELS, HIDDEN))
    y, y_T = torch.empty((batch_size, HIDDEN)), torch.empty((HIDDEN, batch_size))
    cores = available_cores()

    def task(words: str, a: Tensor, b: Tensor, out: Tensor) -> Task:
        def block() -> int:
            for _ in range(products):
                torch.mm(a, b, out=out)
            return products * batch_size

        return Task("", words, block, cores)

    gradient, gradient_T = torch.empty_like(weight), torch.empty_like(weight_T)
    forward = [
        task("x @ W.T, W (64, 27648)", x, weight.t(), y),
        task("x @ W, W (27648, 64)", x, weight_T, y),
        task("W @ x.T, W (64, 27648)", weight, x.t(), y_T),
    ]
    backward = [
        task("dy.T @ x", dy.t(), x, gradient),
        task("x.T @ dy", x.t(), dy, gradient_T),
    ]
    return (
        fastest("gemm forward", "ceiling: the MLP's first product", forward),
        fastest("gemm gradient", "ceiling: its weight's gradient", backward),
    )
