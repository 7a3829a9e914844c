"""How well the audit sees: real patches are poisoned by a spec, audited, and the findings held against the truth.

    make audit-score

The second table flips 5 % of the train labels and looks how many of the first 205 suspects are flipped ones, over five seeds.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from histoproof.data.audit import audit
from histoproof.data.poison import poison
from histoproof.data.poison.spec import LabelFlip, PoisonSpec
from histoproof.data.score import score
from histoproof.data.truth import read_truth

REPOSITORY = Path(__file__).parents[1]
TOP = 205
SEEDS = (1, 2, 3, 4, 5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = Path(os.environ.get("HISTOPROOF_REAL_DATA", REPOSITORY.parent / "shared" / "data")) / "pcam-real"
    parser.add_argument("--data", type=Path, default=real, help="official files; default: the real patches")
    parser.add_argument("--spec", type=Path, default=REPOSITORY / "configs" / "poison" / "each-1pct.yaml")
    parser.add_argument("--no-near", action="store_true", help="leave near-duplicates out")
    parser.add_argument("--no-flips", action="store_true", help="leave the table of flipped labels out")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"no patches in {options.data}: set HISTOPROOF_REAL_DATA, or give --data", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = faults(options.data, options.spec, Path(folder), near=not options.no_near)
        if not options.no_flips:
            result["flips"] = flips(options.data, Path(folder))
    print(json.dumps(result, indent=2) if options.json else "\n".join(table(result)))
    return 0


def faults(data: Path, spec: Path, folder: Path, *, near: bool) -> dict[str, Any]:
    """Precision and recall per kind. What the audit finds in the untouched patches is told beside it, and counts as false."""
    clean = audit(data, near=near)["findings"]
    made = poison(data, folder / "poisoned", spec)
    start = time.monotonic()
    findings = audit(folder / "poisoned", near=near)["findings"]
    seconds = time.monotonic() - start
    return {
        "data": str(data),
        "spec": str(spec),
        "n": {name: split["n"] for name, split in made["splits"].items()},
        "seconds": seconds,
        "kinds": score(folder / "poisoned" / "truth.csv", findings),
        "clean": {kind: sum(f["kind"] == kind for f in clean) for kind in sorted({f["kind"] for f in clean})},
    }


def flips(data: Path, folder: Path) -> dict[str, Any]:
    """The share of flipped labels among the first TOP suspects."""
    shares = []
    for seed in SEEDS:
        spec = PoisonSpec(seed=seed, splits=["train"], plant=[LabelFlip(kind="label_flip", split="train", rate=0.05)])
        copy = folder / f"flips-{seed}"
        poison(data, copy, spec)
        flipped = {row.index for row in read_truth(copy / "truth.csv")}
        suspects = [f["index"] for f in audit(copy, suspects=True)["findings"] if f["kind"] == "label_suspect"]
        shares.append(sum(index in flipped for index in suspects[:TOP]) / TOP)
    return {"seeds": list(SEEDS), "top": TOP, "planted": len(flipped), "precision": shares}


def table(result: dict[str, Any]) -> list[str]:
    n = ", ".join(f"{name} {count}" for name, count in result["n"].items())
    lines = [
        f"patches: {n}; audited in {result['seconds']:.1f} s",
        f"{'kind':24}{'planted':>8}{'found':>8}{'false':>8}{'precision':>11}{'recall':>8}",
    ]
    for kind, row in result["kinds"].items():
        precision, recall = (("-" if row[name] is None else f"{row[name]:.3f}") for name in ("precision", "recall"))
        lines.append(f"{kind:24}{row['n_planted']:8}{row['found']:8}{row['false']:8}{precision:>11}{recall:>8}")
    lines.append(
        "in the untouched patches: " + (", ".join(f"{k} {v}" for k, v in result["clean"].items()) or "nothing")
    )
    if "flips" in result:
        found = result["flips"]
        shares = ", ".join(f"{share:.3f}" for share in found["precision"])
        lines.append(
            f"{found['planted']} flipped labels: share of them among the first {found['top']} suspects, seeds 1-5: {shares}; "
            f"mean {mean(found['precision']):.3f}, sd {stdev(found['precision']):.3f}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
