"""Loaders: every way to read the same patches in random order, batch by batch, ready for a model."""

from collections.abc import Callable
from typing import Any

from histoproof.compute import available_cores

from . import as_arrow, as_tensorstore, as_webdataset, course, hdf5_batches, ours
from .ceilings import convert_task, gather_task
from .contender import Contender, check
from .patches import Patches
from .timing import Plan, Task, not_measured, one_after_the_other, ratio, row, rows_of, run_rounds, say

__all__ = ["contenders", "measure", "opened"]

COURSE = ("course float32, 0 workers", "course float32, 2 workers", "course gzip, 0 workers", "course gzip, 2 workers")
OURS, OURS_RAM, CEILING = "histoproof, memory map", "histoproof, RAM", "gather plus convert"
WORKERS = 2


def contenders(patches: Patches, batch_size: int) -> list[tuple[str, str, Callable[[], Contender]]]:
    """(name, words, how to open it) of each; opening raises ModuleNotFoundError where a peer is not installed."""
    cores = available_cores()

    def of_course(name: str) -> tuple[str, str, Callable[[], Contender]]:
        folder = patches.float32 if "float32" in name else patches.gzip
        workers = WORKERS if f"{WORKERS} workers" in name else 0
        form = "float32 HDF5" if "float32" in name else "gzip uint8 HDF5"
        words = f"the course's way: DataLoader, {form} patch by patch, {workers} workers"
        return name, words, lambda: course.contender(name, words, folder, batch_size, workers, cores)

    def of_hdf5(form: str, most: int | None) -> tuple[str, str, Callable[[], Contender]]:
        name, words = f"hdf5 batches, {form}", f"HDF5 batch reads, {form}, sorted rows at once"
        folder = patches.float32 if form == "float32" else patches.gzip
        return name, words, lambda: hdf5_batches.contender(name, words, folder, batch_size, cores, most)

    disk = "histoproof: rows of the store's memory map, all cores"
    ram = "histoproof: the same from RAM"
    return [
        *map(of_course, COURSE),
        of_hdf5("float32", None),
        of_hdf5("gzip", 4 * batch_size),
        ("webdataset", "webdataset", lambda: as_webdataset.contender(patches, batch_size, WORKERS, cores)),
        ("datasets", "Hugging Face datasets (Arrow)", lambda: as_arrow.contender(patches, batch_size, cores)),
        ("tensorstore", "TensorStore (Zarr)", lambda: as_tensorstore.contender(patches, batch_size, cores)),
        (OURS, disk, lambda: ours.contender(OURS, disk, patches, "disk", batch_size)),
        (OURS_RAM, ram, lambda: ours.contender(OURS_RAM, ram, patches, "ram", batch_size)),
    ]


def opened(patches: Patches, batch_size: int) -> tuple[list[Contender], dict[str, dict[str, Any]]]:
    """Those that are installed, and the rows of those that are not, by name."""
    found, missing = [], {}
    for name, words, open_it in contenders(patches, batch_size):
        say(f"opening {name}")
        try:
            found.append(open_it())
        except ModuleNotFoundError as e:
            missing[name] = not_measured(name, words, f"not installed: {e.name} (extra [bench])")
    return found, missing


def measure(patches: Patches, plan: Plan, *, checked: bool) -> dict[str, Any]:
    """Rows and ratios. Unless they were `checked` before, raises UnequalError where a contender does not deliver what it was
    given."""
    images, labels = patches.train().images, patches.labels()
    present, missing = opened(patches, plan.batch_size)
    for contender in () if checked else present:
        say(f"checking {contender.name}")
        check(contender, images, labels)
    tasks = [Task(contender.name, contender.words, _block(contender), contender.threads) for contender in present]
    tasks += [gather_task(patches), convert_task(patches)]
    samples = run_rounds(tasks, plan)
    for contender in present:
        contender.close()
    measured = {row["name"]: row for row in rows_of(tasks, samples)}
    rows = [measured.get(name) or missing[name] for name, _, _ in contenders(patches, plan.batch_size)]
    samples[CEILING] = one_after_the_other(samples["gather"], samples["convert"])
    ceiling = row(CEILING, "ceiling: one after the other", samples[CEILING])
    others = [contender.name for contender in present if contender.name not in (OURS, OURS_RAM)]
    return {
        "rows": [*rows, measured["gather"], measured["convert"], ceiling],
        "ratios": [
            *(ratio(OURS, name, samples, goal=25.0 if name in COURSE else None) for name in others),
            ratio(OURS, CEILING, samples, goal=0.4, share=True),
            ratio(OURS_RAM, CEILING, samples, share=True),
        ],
    }


def _block(contender: Contender) -> Callable[[], int]:
    """Reads an epoch, another one each time, or its first `most` patches."""
    number = 0

    def block() -> int:
        nonlocal number
        number += 1
        done = 0
        for images, _ in contender.epoch(number):
            done += len(images)
            if contender.most is not None and done >= contender.most:
                break
        return done

    return block
