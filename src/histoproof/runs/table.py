"""The list of runs for people: a table on a terminal, aligned columns of plain text elsewhere."""

import io
from typing import Any

__all__ = ["shown"]

_STATUS = {"finished": "green", "running": "cyan", "unfinished": "yellow", "damaged": "bold red"}
_HOW = {
    *("data.store", "data.residency", "data.prefetch", "data.verify"),
    *("train.workers", "train.device", "train.checkpoint_every_steps", "seed", "model.name"),
}
"""Config keys that have a column already, or change no result."""
_MOST_VARYING = 4


def shown(result: dict[str, Any], *, terminal: bool, width: int = 120) -> str:
    """What `runs` returned as text: a row a run, a row for the seeds of each config, and the problems of damaged runs."""
    rows = result["runs"]
    if not rows:
        more = f" ({result['found']} runs, none of them wanted)" if result["found"] else ""
        return f"no runs in {result['folder']}{more}"
    parts = [_table(*_run_table(result), terminal=terminal, width=width)]
    groups = [group for group in result["groups"] if len(group["seeds"]) > 1]
    if groups:
        parts += ["", "seeds of one config together: mean, sd, 95 % t interval of valid scores at the best epoch"]
        parts.append(_table(*_group_table(groups, result["folder"]), terminal=terminal, width=width))
    parts += [f"left out: {out['run']}: {out['why']}" for group in groups for out in group["left_out"]]
    parts += [f"damaged: {row['run']}: {row['problem']}" for row in rows if row["status"] == "damaged"]
    return "\n".join(parts)


def _run_table(result: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = result["runs"]
    varying = _varying(rows)
    primaries = sorted({row["primary"] for row in rows if row["primary"]} - {"auc"})
    header = ["run", "status", "model", "seed", "epochs", "auc", *primaries, *varying]
    body = []
    for row in rows:
        valid = row["best"]["valid"] if row["best"] else {}
        scores = [_number(valid.get(name)) for name in ("auc", *primaries)]
        plain = [_text(row[key]) for key in ("status", "model", "seed", "epochs")]
        config = [_text(row["config"].get(key)) for key in varying]
        body.append([_short(row["run"], result["folder"]), *plain, *scores, *config])
    return header, body


def _group_table(groups: list[dict[str, Any]], folder: str) -> tuple[list[str], list[list[str]]]:
    header = ["first run", "n", "seeds", "score", "mean", "sd", "interval"]
    body = []
    for group in groups:
        for metric, s in group["scores"].items():
            interval = "" if s["low"] is None else f"{s['low']:.4f} to {s['high']:.4f}"
            seeds = ",".join(map(str, group["seeds"]))
            first = _short(group["runs"][0], folder)
            body.append([first, str(s["n"]), seeds, metric, _number(s["mean"]), _number(s["sd"]), interval])
    return header, body


def _varying(rows: list[dict[str, Any]]) -> list[str]:
    """The config keys in which the runs differ, the first few: what the table has to tell apart."""
    known = [row["config"] for row in rows if row["config"]]
    keys = dict.fromkeys(key for config in known for key in config)
    differing = [key for key in keys if key not in _HOW and len({_text(config.get(key)) for config in known}) > 1]
    return differing[:_MOST_VARYING]


def _table(header: list[str], body: list[list[str]], *, terminal: bool, width: int) -> str:
    if not terminal:
        widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in [header, *body])
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in body:
        table.add_row(*(Text(cell, style=_STATUS.get(cell, "")) for cell in row))
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")


def _short(run: str, folder: str) -> str:
    return run.removeprefix(f"{folder}/")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _text(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
