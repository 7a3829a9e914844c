"""A bench result as a table: for the terminal, and as Markdown."""

from collections.abc import Sequence
from typing import Any

__all__ = ["markdown", "name_of", "number", "scale_of", "table", "words"]

_HEADS = (
    "",
    "device",
    "precision",
    "batch",
    "images/s",
    "95 %",
    "data",
    "transfer",
    "compute",
    "bottleneck",
    "ceiling",
    "RAM",
)
_ALL = 0.95
_LEFT = {"", "device", "precision", "bottleneck", "ceiling"}
_UNITS = (("bytes/s", 1e9, "GB/s"), ("flop/s", 1e9, "GFLOP/s"))


def words(content: dict[str, Any]) -> list[str]:
    """The lines that a command prints."""
    lines = [*_plain(table(content["rows"])), *unmeasured(content["rows"]), ""]
    binding = {row["ceiling"]["name"] for row in content["rows"] if row["ceiling"]}
    lines += [f"{name}: {_ceiling(one)}" for name, one in content["ceilings"].items() if name in binding]
    lines += cost_words(content["costs"])
    if content["stopped"]:
        lines.append(f"stopped by {content['stopped']}: the rows above hold what was measured until then")
    return [*lines, f"bench: {content['out']}"]


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Heads, and a line a row that has a rate: images/s end to end and by stage, what binds it, memory; of an audit also GB/s."""
    if any("bytes_per_s" in row for row in rows):
        heads = ["", "images/s", "95 %", "GB/s of files", "ceiling", "RAM"]
        return [heads, *(_of_files(row) for row in rows if row["bytes_per_s"])]
    lines = [_line(row) for row in rows if row["images_per_s"] is not None]
    vram = any(row["peak_vram_bytes"] is not None for row in rows)
    heads = [*_HEADS, *(["VRAM"] if vram else [])]
    return [heads, *(line if vram else line[:-1] for line in lines)]


def unmeasured(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Why other rows have no rate, those with one reason together."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["status"] != "measured":
            found.setdefault((row["status"], row["reason"]), []).append(name_of(row))
    return [
        f"{status.replace('_', ' ')}: {', '.join(names) if len(names) < 4 else f'{len(names)} rows ({names[0]}, ...)'}: {reason}"
        for (status, reason), names in found.items()
    ]


def cost_words(costs: Sequence[dict[str, Any]]) -> list[str]:
    """What is paid beside the work itself."""
    lines = []
    for cost in costs:
        if cost["what"] == "epoch":
            shares = ", ".join(f"{name} {_percent(cost[name])}" for name in ("logging", "validation", "checkpoints"))
            lines.append(f"of an epoch of {cost['epoch_s']:.3g} s ({name_of(cost)}): {shares}")
        else:
            ratio = cost["ratio"]
            between = "" if ratio["low"] is None else f" ({ratio['low']:.3f} to {ratio['high']:.3f})"
            lines.append(f"{cost['words']} ({name_of(cost)}): {ratio['median']:.3f}{between}")
    return lines


def markdown(content: dict[str, Any]) -> str:
    """bench.md."""
    env, subject = content["environment"], content["subject"]
    heads, *lines = table(content["rows"])
    heads[0] = "model"
    parts = [
        f"# histoproof bench {content['kind']}",
        "",
        f"`{' '.join(content['command'])}`",
        "",
        f"{env['cpu']['model']}, {env['cpu']['available']} cores available"
        + (f"; {env['gpu']['name']}" if env["gpu"] else "; no GPU")
        + f". histoproof {env['histoproof']}, torch {(env['packages'].get('torch') or {}).get('version')}. {env['started']}.",
        "",
        f"Of {subject.get('store') or subject.get('folder')}. {content['method'].capitalize()}. "
        "Rates are images (patches) a second; bottleneck: the slowest stage, its share of the stages' time, and how much of the "
        "rest overlap hides. docs/bench.md says how to read it.",
        "",
        *(["stopped by " + content["stopped"], ""] if content["stopped"] else []),
        "| " + " | ".join(heads) + " |",
        "|" + "|".join("---" if head in {*_LEFT, "model"} else "--:" for head in heads) + "|",
        *("| " + " | ".join(line) + " |" for line in lines),
        "",
        *(f"- {line}" for line in unmeasured(content["rows"])),
        "",
        "| ceiling | median | 95 % | how |",
        "|---|--:|--:|---|",
        *(
            f"| {name} | {_with_unit(one['median'], one['unit'])} | {_between(one, scale_of(one['unit'])[0])} | {one['how']} |"
            for name, one in content["ceilings"].items()
        ),
        "",
        *(f"- {line}" for line in cost_words(content["costs"])),
        "",
        "![images a second against batch size](throughput.svg)",
        "",
    ]
    return "\n".join(parts)


def number(value: float | None) -> str:
    """Three digits that count, thousands apart."""
    if value is None:
        return "-"
    if value >= 1000:
        digits = max(len(str(int(value))) - 3, 0)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def _line(row: dict[str, Any]) -> list[str]:
    stages, found, ceiling = row["stages"], row["bottleneck"], row["ceiling"]
    named = "-"
    if found:
        told = found["hidden"] is not None and found["share"] < _ALL  # of next to nothing, any part is noise
        hidden = f", {found['hidden']:.0%} hidden" if told else ""
        named = f"{found['stage']} {found['share']:.0%}{hidden}"
    return [
        " ".join(filter(None, (row["model"], row["variant"]))) or row["what"],
        row["device"],
        row["precision"] or "-",
        str(row["batch_size"] or "-"),
        number(row["images_per_s"]["median"]),
        _between(row["images_per_s"]),
        *(number(stages[name]["median"]) if stages.get(name) else "-" for name in ("data", "transfer", "compute")),
        named,
        "-" if ceiling is None else f"{ceiling['fraction']:.0%} of {ceiling['name']}",
        _bytes(row["peak_ram_bytes"]),
        _bytes(row["peak_vram_bytes"]),
    ]


def _of_files(row: dict[str, Any]) -> list[str]:
    rate, ceiling = row["images_per_s"], row["ceiling"]
    return [
        " ".join(filter(None, (row["what"], row["variant"]))),
        number(rate["median"]),
        _between(rate),
        number(row["bytes_per_s"]["median"] / 1e9),
        "-" if ceiling is None else f"{ceiling['fraction']:.0%} of {ceiling['name']}",
        _bytes(row["peak_ram_bytes"]),
    ]


def name_of(row: dict[str, Any]) -> str:
    """A row in a few words."""
    parts = [row.get(name) for name in ("model", "variant", "device", "precision")]
    batch = row.get("batch_size")
    return " ".join([*(str(part) for part in parts if part), *([f"batch {batch}"] if batch else [])]) or row["what"]


def _plain(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = {n for n, head in enumerate(lines[0]) if head in _LEFT}
    return [
        "  ".join(
            c.ljust(w) if n in left else c.rjust(w) for n, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _ceiling(one: dict[str, Any]) -> str:
    return f"{_with_unit(one['median'], one['unit'])} ({one['how']})"


def scale_of(unit: str) -> tuple[float, str]:
    """(what to divide by, the unit then) for people."""
    return next(((factor, short) for name, factor, short in _UNITS if name == unit), (1.0, unit))


def _with_unit(value: float, unit: str) -> str:
    factor, short = scale_of(unit)
    return f"{number(value / factor)} {short}"


def _between(rate: dict[str, Any], factor: float = 1.0) -> str:
    return "-" if rate["low"] is None else f"{number(rate['low'] / factor)}-{number(rate['high'] / factor)}"


def _percent(part: dict[str, Any]) -> str:
    between = "" if part["low"] is None else f" ({part['low']:.1%} to {part['high']:.1%})"
    return f"{part['share']:.1%}{between}"


def _bytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e9:.2f} GB"
