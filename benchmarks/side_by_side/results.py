"""Results files: one JSON document a part, with the environment, every sample, and the ratios."""

import os
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from histoproof.errors import DataError
from histoproof.files import read_json, write_json
from histoproof.provenance import environment, same_environment

from .patches import Patches
from .timing import Plan, summary

__all__ = ["FORMAT", "PARTS", "amount", "as_text", "joined", "load", "save"]

FORMAT = "histoproof-side-by-side"
VERSION = 1
PARTS = ("loaders", "mlp", "cnn", "packing", "inference")
PEERS = ("webdataset", "datasets", "pyarrow", "tensorstore")


def save(
    folder: Path, part: str, patches: Patches, plan: Plan, measured: dict[str, Any], *, quick: bool, append: bool
) -> Path:
    """Write folder/PART.json, or add its samples to what is there, each process being one entry of `processes`.

    The environment comes without the paths of one machine. Raises DataError where what is there is of another environment.
    """
    here = {key: value for key, value in environment("cpu").items() if key not in ("folder", "command")}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}.json"
    content = {
        "format": FORMAT,
        "version": VERSION,
        "part": part,
        "quick": quick,
        "plan": asdict(plan),
        "data": patches.described(),
        **measured,
        "processes": [{"started": here["started"], "load_average": os.getloadavg()}],
        "peers": {name: _version(name) for name in PEERS},
        "environment": here,
    }
    write_json(path, joined(read_json(path), content) if append and path.exists() else content)
    return path


def joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The samples of both, where they are of the same part, plan, data, peers and environment. Raises DataError otherwise."""
    if any(before.get(key) != now[key] for key in ("version", "part", "quick", "plan", "data", "peers")) or (
        not same_environment(before["environment"], now["environment"])
    ):
        raise DataError(
            f"the results of {now['part']} that are there were measured otherwise, or elsewhere",
            next="measure anew, without --append",
        )
    out = {**before, "processes": [*before["processes"], *now["processes"]]}
    for key in ("rows", "ratios"):
        out[key] = [_joined_samples(a, b) for a, b in zip(before[key], now[key], strict=True)]
    if "memory" in now:
        peaks = zip(before["memory"], now["memory"], strict=True)
        out["memory"] = [a if a["peak_mb"] >= b["peak_mb"] else b for a, b in peaks]
    return out


def _joined_samples(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    if "samples" not in a:
        return a
    both = {**a, **summary([*a["samples"], *b["samples"]])}
    return {**both, "details": [*a["details"], *b["details"]]} if "details" in a else both


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """The results that are there, by part."""
    found = {part: folder / f"{part}.json" for part in PARTS}
    return {part: read_json(path) for part, path in found.items() if path.exists()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def as_text(part: str, content: dict[str, Any]) -> str:
    """A part for the terminal: every row, every ratio, and whether it is what it should at least be."""
    rounds = f"processes x rounds: {len(content['processes'])} x {content['plan']['rounds']}"
    lines = [f"{part}: {content['data']['patches']:,} {content['data']['kind']}, {rounds}"]
    for row in content["rows"]:
        if "not_measured" in row:
            lines.append(f"  {row['words']:88} not measured: {row['not_measured']}")
            continue
        low, median, high = (amount(row, key) for key in ("low", "median", "high"))
        lines.append(f"  {row['words']:88} {median:>9} {row['unit']} ({low} to {high})")
    for ratio in content["ratios"]:
        goal = ""
        if ratio["goal"] is not None:
            goal = f"; goal {ratio['goal']:g}: {'met' if ratio['median'] >= ratio['goal'] else 'not met'}"
        low, median, high = (f"{ratio[key]:.3g}" for key in ("low", "median", "high"))
        lines.append(f"  = {ratio['of'] + ' / ' + ratio['to']:86} {median:>9} ({low} to {high}){goal}")
    for peak in content.get("memory", []):
        lines.append(f"  peak memory, {peak['patches']:,} patches: {peak['peak_mb']:.0f} MB")
    return "\n".join(lines)


def amount(row: dict[str, Any], key: str = "median") -> str:
    """A row's number, as precise as it is worth."""
    return format(row[key], ".2f" if row["unit"] == "GB/s" else ",.0f")
