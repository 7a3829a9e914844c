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
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from histoproof.errors import HistoproofError
from histoproof.files import read_json
from side_by_side import loaders, packing, predicting, results, training
from side_by_side.patches import official_folder, patches, scratch_folder
from side_by_side.timing import Plan

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure, write, print."""
    arguments = _parser().parse_args()
    quick = arguments.quick
    if quick and arguments.out.absolute() == RESULTS:
        print("--quick measures nothing that may be kept: give another --out", file=sys.stderr)
        return 2
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched; the library would ask
    count = arguments.patches or (128 if quick else 4096)
    plan = Plan(2, arguments.batch_size, 0.0) if quick else Plan(arguments.rounds, arguments.batch_size)
    longer = plan if quick else replace(plan, rounds=3 * plan.rounds)  # its ratio is near 1: noise must be small
    sizes = arguments.sizes or ([256] if quick else [4096, 8192, 16384])
    try:
        with scratch_folder(arguments.scratch) as scratch:
            data = patches(None if quick else official_folder(arguments.data), scratch, count)
            parts: dict[str, Callable[[], dict[str, Any]]] = {
                "loaders": lambda: loaders.measure(data, plan),
                "mlp": lambda: training.measure_mlp(data, plan),
                "cnn": lambda: training.measure_cnn(data, longer, 1 if quick else 12),
                "packing": lambda: packing.measure(data, scratch, sizes, plan),
                "inference": lambda: predicting.measure(data, plan, 128 if quick else 1024),
            }
            for part in arguments.only or results.PARTS:
                used = longer if part == "cnn" else plan
                path = results.save(arguments.out, part, data, used, parts[part](), quick=quick)
                print(results.as_text(part, read_json(path)), flush=True)
    except HistoproofError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=results.PARTS, help="only these parts")
    parser.add_argument("--data", type=Path, help="folder of official files; their first patches are used")
    parser.add_argument("--patches", type=_positive, help="train patches (4,096)")
    parser.add_argument("--batch-size", type=_positive, default=64)
    parser.add_argument("--rounds", type=_positive, default=5)
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
