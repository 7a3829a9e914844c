"""histoproof beside what its users would otherwise take: loaders, training, packing, inference, in one run.

    make bench                                       everything, into benchmarks/results/
    python benchmarks/bench.py --only loaders        one part: loaders, mlp, cnn, packing, inference
    python benchmarks/bench.py --quick --out DIR     a smoke test on a few synthetic patches
    python benchmarks/readme.py                      README's table from the results

Patches are the real ones of --data, HISTOPROOF_REAL_DATA or ../shared/data; synthetic ones where there are none. Every contender
is first held to deliver the same values; then all of a part run in rounds, a block each. docs/side-by-side.md says what is
compared and how each ceiling is defined.
"""

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from histoproof.errors import HistoproofError
from side_by_side import loaders, packing, predicting, results, training
from side_by_side.patches import official_folder, patches, scratch_folder
from side_by_side.timing import Plan

RESULTS = Path(__file__).parent / "results"
# How fast a process runs is partly chance that lasts as long as it lives (where its memory lies): so there are several.
PROCESSES_AND_ROUNDS = {"loaders": (2, 3), "mlp": (2, 3), "cnn": (3, 6), "packing": (1, 4), "inference": (4, 2)}


def main() -> int:
    """Measure each part in processes of its own, print what they found."""
    arguments = _parser().parse_args()
    if arguments.quick and arguments.out.absolute() == RESULTS:
        print("--quick measures nothing that may be kept: give another --out", file=sys.stderr)
        return 2
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched; the library would ask
    try:
        with scratch_folder(arguments.scratch) as scratch:
            for part in arguments.only or results.PARTS:
                processes, _ = PROCESSES_AND_ROUNDS[part]
                for number in range(1 if arguments.quick else arguments.processes or processes):
                    _measured(part, scratch, arguments, append=arguments.append or number > 0)
                print(results.as_text(part, results.load(arguments.out)[part]), flush=True)
    except HistoproofError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


def _measured(part: str, scratch: Path, arguments: argparse.Namespace, *, append: bool) -> None:
    """Measure a part in a fresh process (a smoke test in this one); its results are on disk then."""
    if arguments.quick:
        measure(part, scratch, arguments, append)
        return
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(measure, part, scratch, arguments, append).result()


def measure(part: str, scratch: Path, arguments: argparse.Namespace, append: bool) -> None:
    """One process's share of a part."""
    quick, batch_size = arguments.quick, arguments.batch_size
    data = patches(
        None if quick else official_folder(arguments.data), scratch, arguments.patches or (128 if quick else 4096)
    )
    rounds = arguments.rounds or PROCESSES_AND_ROUNDS[part][1]
    plan = Plan(2, batch_size, 0.0) if quick else Plan(rounds, batch_size)
    sizes = arguments.sizes or ([256] if quick else [4096, 8192, 16384])
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "loaders": lambda: loaders.measure(data, plan, checked=append),
        "mlp": lambda: training.measure_mlp(data, plan),
        "cnn": lambda: training.measure_cnn(data, plan, 1 if quick else 12),
        "packing": lambda: packing.measure(data, scratch, sizes, plan),
        "inference": lambda: predicting.measure(data, plan, 128 if quick else 1024),
    }
    results.save(arguments.out, part, data, plan, parts[part](), quick=quick, append=append)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=results.PARTS, help="only these parts")
    parser.add_argument("--data", type=Path, help="folder of official files; their first patches are used")
    parser.add_argument("--patches", type=_positive, help="train patches (4,096)")
    parser.add_argument("--batch-size", type=_positive, default=64)
    parser.add_argument("--rounds", type=_positive, help="rounds of each process")
    parser.add_argument("--processes", type=_positive, help="fresh processes of each part, one after the other")
    parser.add_argument("--append", action="store_true", help="add the samples to the results that are there")
    parser.add_argument("--sizes", type=_positive, nargs="+", help="patches to pack (4096 8192 16384); 65536 take 9 GB")
    parser.add_argument("--scratch", type=Path, help="where patches are written in each form, and kept (temporary)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--quick", action="store_true", help="a smoke test: few synthetic patches, two rounds")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
