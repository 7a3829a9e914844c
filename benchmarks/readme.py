"""README's tables of speed, written from benchmarks/results.

python benchmarks/readme.py            replaces what stands between the two marks in README.md
python benchmarks/readme.py --check    exits with 1 where README says anything else
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from histoproof.errors import DataError, HistoproofError
from histoproof.files import write_text
from side_by_side.results import amount, load

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- speed: written by benchmarks/readme.py -->", "<!-- /speed -->"
TITLES = {"mlp": "training", "cnn": "training", "packing": "packing", "inference": "inference"}
Results = dict[str, dict[str, Any]]


def render(found: Results) -> str:
    """The tables, as Markdown. Raises DataError where a part is missing."""
    for part in ("loaders", "mlp", "cnn", "packing", "inference"):
        if part not in found:
            raise DataError(f"there are no results of {part}", next=f"python benchmarks/bench.py --only {part}")
    lines = [_where(found), "", *_loaders(found["loaders"]), "", *_others(found), ""]
    peaks = found["packing"]["memory"]
    sizes, most = (_listed([f"{peak[key]:,.0f}" for peak in peaks]) for key in ("patches", "peak_mb"))
    lines.append(f"Packing {sizes} patches takes at most {most} MB of memory.")
    rows = [row for content in found.values() for row in content["rows"] if "not_measured" in row]
    if rows:
        lines.append("Not measured: " + "; ".join(f"{row['words']} ({row['not_measured']})" for row in rows) + ".")
    return "\n".join(lines)


def replaced(text: str, tables: str) -> str:
    """README with `tables` between its marks. Raises DataError where it has none."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError("README.md must hold each mark once, in this order", valid=f"{BEGIN} and {END}")
    before, after = text.split(BEGIN, maxsplit=1)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def _where(found: Results) -> str:
    """Hardware and n of each part, said once where they are the same."""
    said: dict[str, list[str]] = {}
    for part, content in found.items():
        cpu = content["environment"]["cpu"]
        torch = content["environment"]["packages"]["torch"]["version"]
        words = (
            f"{content['data']['patches']:,} {content['data']['kind']}, batches of {content['plan']['batch_size']}; "
            f"{cpu['available']} cores ({cpu['model']}, {cpu['capability']}), torch {torch}, no GPU"
        )
        said.setdefault(words, []).append(part)
    rounds = [
        f"{len(content['processes'])} x {content['plan']['rounds']} for {part}" for part, content in found.items()
    ]
    here = " ".join(f"{words}." if len(said) == 1 else f"{', '.join(parts)}: {words}." for words, parts in said.items())
    return f"{here} Processes x rounds: {', '.join(rounds)}."


def _loaders(content: dict[str, Any]) -> list[str]:
    lines = ["| reading in random order, model-ready | patches/s | histoproof (memory map) is |", "|---|---|---|"]
    ratios = {ratio["to"]: ratio for ratio in content["ratios"] if ratio["of"] == "histoproof, memory map"}
    for row in content["rows"]:
        if "not_measured" in row:
            continue
        its = ratios.get(row["name"])
        lines.append(f"| {row['words']} | {amount(row)} | {_told(its) if its else ''} |")
    return lines


def _others(found: Results) -> list[str]:
    lines = ["| | histoproof | beside it | histoproof is |", "|---|---|---|---|"]
    for part, title in TITLES.items():
        rows = {row["name"]: row for row in found[part]["rows"]}
        for ratio in found[part]["ratios"]:
            mine, other = (
                f"{rows[ratio[side]]['words']}: {amount(rows[ratio[side]])} {rows[ratio[side]]['unit']}"
                for side in ("of", "to")
            )
            mine = mine.removeprefix("histoproof: ").removeprefix("histoproof ")
            lines.append(f"| {title} | {mine} | {other} | {_told(ratio)} |")
    return lines


def _told(ratio: dict[str, Any]) -> str:
    values = (ratio["median"], ratio["low"], ratio["high"])
    if ratio["share"]:
        median, low, high = (f"{value * 100:.0f}" for value in values)
        return f"{median} % of it ({low} to {high} %)"
    median, low, high = (f"{value:.2f}" if value < 10 else f"{value:.3g}" for value in values)
    return f"{median} times as fast ({low} to {high})"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def main() -> int:
    """Write README, or hold it against the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    try:
        found = load(RESULTS)
        if any(content["quick"] for content in found.values()):
            raise DataError(f"{RESULTS} holds results of a smoke test", next="make bench")
        before = README.read_text(encoding="utf-8")
        after = replaced(before, render(found))
        if arguments.check:
            if before != after:
                print("README.md says something else than benchmarks/results: run `python benchmarks/readme.py`")
            return int(before != after)
        write_text(README, after)
    except HistoproofError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
