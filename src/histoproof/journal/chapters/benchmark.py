"""Chapter 8: how fast, and what holds it up. Inside training, from what the runs wrote down; apart, from `bench`."""

import statistics
from typing import Any

from ...bench import figures
from ..blocks import (
    Block,
    Bullets,
    Chapter,
    Code,
    Column,
    Drawing,
    Heading,
    Paragraph,
    Source,
    Strong,
    Table,
    Text,
    nothing,
)
from ..evidence import Evidence
from ..evidence.benches import BenchEvidence
from ..evidence.runs import RunEvidence
from ..language import Language

__all__ = ["chapter"]

_STAGES = ("data", "transfer", "compute")


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    title, timed = w.say("benchmark.title"), [run for run in found.runs if run.speeds]
    commands = ("histoproof bench loader --store STORE", "histoproof bench train CONFIG")
    if not timed and not found.benches:
        return Chapter("c8", title, nothing(w.say("nothing"), "histoproof train CONFIG", *commands))
    blocks: list[Block] = []
    for number, bench in enumerate(found.benches, start=1):
        blocks += _apart(bench, f"c8-b{number}", w)
    if not found.benches:
        blocks += nothing(w.say("benchmark.missing"), *commands)
    if timed:
        blocks += _inside(timed, w)
    return Chapter("c8", title, blocks)


def _inside(timed: list[RunEvidence], w: Language) -> list[Block]:
    """Throughput as the runs wrote it down."""
    numbers = ("batch", "median", "range", "epochs")
    names = ("run", "device", "precision", "batch", "workers", "median", "range", "epochs")
    columns = [Column(w.say(f"benchmark.{n}"), number=n in numbers) for n in names]
    rows: list[list[Text]] = []
    for run in timed:
        env, train = run.environment, run.config["train"]
        threads = env.get("threads") or {}
        low, high = min(run.speeds), max(run.speeds)
        rows.append(
            [
                Code(run.name),
                _device(env),
                train["precision"],
                str(train["batch_size"]),
                f"{threads.get('processes', '–')} × {threads.get('workers', '–')}",
                w.count(round(statistics.median(run.speeds))),
                f"{w.count(round(low))} – {w.count(round(high))}",
                str(len(run.speeds)),
            ]
        )
    files = tuple(path for run in timed for path in run.files if path.name == "events.jsonl")
    source = Source(timed[0].command if len(timed) == 1 else None, files)
    return [
        Heading(w.say("benchmark.training"), "c8-training"),
        Paragraph(w.say("benchmark.note")),
        Table(columns, rows, source, w.say("benchmark.training")),
    ]


def _apart(bench: BenchEvidence, id_: str, w: Language) -> list[Block]:
    """One benchmark: where, the table, the figure, what it costs beside the work, what was not measured."""
    found, source = bench.content, Source(bench.command, bench.files)
    title = w.say("benchmark.heading", kind=w.say(f"benchmark.kinds.{found['kind']}"), name=bench.name)
    drawn = {**figures.ENGLISH, **w.get("figure.bench")}
    measured = [row for row in found["rows"] if row["images_per_s"] is not None]
    blocks: list[Block] = [Heading(title, id_), Paragraph(_where(found, w))]
    if found["stopped"]:
        blocks.append(Paragraph(w.say("benchmark.stopped", signal=found["stopped"]), warning=True))
    if measured:
        held = [row for row in measured if row["bottleneck"]]
        if held:
            blocks.append(Paragraph(_verdict(held, w)))
        blocks += [
            Table(*_rates(measured, w), source, title),
            Paragraph(w.say("benchmark.reading")),
            Drawing(
                f"{id_}-throughput",
                lambda: figures.throughput(found, words=drawn),
                w.say("benchmark.figure", kind=w.say(f"benchmark.kinds.{found['kind']}")),
                w.say("benchmark.figure_alt"),
                source,
            ),
        ]
    costs = _costs(found["costs"], w)
    if costs:
        blocks.append(Bullets(costs))
    blocks += _not_measured(found["rows"], w)
    return blocks


def _where(found: dict[str, Any], w: Language) -> list[Any]:
    """Machine, cluster job, and what stood in the way while it was measured."""
    env = found["environment"]
    slurm = {name: env["slurm"].get(name) for name in ("partition", "node", "job_id")}
    text: list[Any] = [w.say("benchmark.machine", device=_device(env), cores=str(env["cpu"]["available"])), " "]
    if any(slurm.values()):
        told = {name: value or w.say("benchmark.unknown") for name, value in slurm.items()}
        text += [w.say("benchmark.slurm", **told), " "]
    else:
        text += [w.say("benchmark.no_slurm"), " "]
    busy = [c["busy_elsewhere_cores"] for c in _conditions(found) if c.get("busy_elsewhere_cores") is not None]
    steal = [c["steal_share"] for c in _conditions(found) if c.get("steal_share") is not None]
    if busy and steal:
        text.append(w.say("benchmark.conditions", busy=w.number(max(busy), 2), steal=w.percent(max(steal))))
    return text


def _conditions(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [row["conditions"] for row in found["rows"] if row["conditions"]]


def _verdict(rows: list[dict[str, Any]], w: Language) -> list[Any]:
    """In how many rows each stage is the slowest."""
    text: list[Any] = [w.say("benchmark.bottleneck"), " "]
    counts = {stage: sum(row["bottleneck"]["stage"] == stage for row in rows) for stage in _STAGES}
    for stage, count in counts.items():
        if count:
            words = w.say("benchmark.slowest", stage=w.say(f"benchmark.{stage}"), count=str(count), all=str(len(rows)))
            text += [Strong(words), " "]
    return text


def _rates(rows: list[dict[str, Any]], w: Language) -> tuple[list[Column], list[list[Text]]]:
    files = any("bytes_per_s" in row for row in rows)
    vram = any(row["peak_vram_bytes"] is not None for row in rows)
    names = ["what", "rate", "ci"]
    names += ["gigabytes"] if files else ["data", "transfer", "compute", "held"]
    names += ["ceiling", "ram", *(["vram"] if vram else [])]
    if not files:
        names[1:1] = ["device", "precision", "batch"]
    left = {"what", "device", "precision", "held", "ceiling"}
    columns = [Column(w.say(f"benchmark.{name}"), number=name not in left) for name in names]
    return columns, [[_cell(row, name, w) for name in names] for row in rows]


def _cell(row: dict[str, Any], name: str, w: Language) -> Text:  # noqa: PLR0911 (a cell each)
    rate = row["images_per_s"]
    match name:
        case "what":
            return Code(" ".join(filter(None, (row["model"], row["variant"]))) or row["what"])
        case "device" | "precision":
            return row[name] or "–"
        case "batch":
            return str(row["batch_size"] or "–")
        case "rate":
            return _rate(rate["median"], w)
        case "ci":
            return "–" if rate["low"] is None else f"{_rate(rate['low'], w)} – {_rate(rate['high'], w)}"
        case "data" | "transfer" | "compute":
            stage = row["stages"].get(name)
            return "–" if stage is None else _rate(stage["median"], w)
        case "held":
            held = row["bottleneck"]
            return "–" if held is None else f"{w.say('benchmark.' + held['stage'])} {w.percent(held['share'], 0)}"
        case "ceiling":
            top = row["ceiling"]
            return "–" if top is None else [f"{w.percent(top['fraction'], 0)} ", Code(str(top["name"]))]
        case "gigabytes":
            return w.number(row["bytes_per_s"]["median"] / 1e9, 2)
        case "ram":
            return _gigabytes(row["peak_ram_bytes"], w)
        case _:
            return _gigabytes(row["peak_vram_bytes"], w)


def _rate(value: float, w: Language) -> str:
    """Three digits that count."""
    if value < 1000:
        return w.number(value, 0 if value >= 100 else 1)
    return w.count(int(round(value, 3 - len(str(int(value))))))


def _gigabytes(value: int | None, w: Language) -> str:
    return "–" if value is None else f"{w.number(value / 1e9, 2)} GB"


def _costs(costs: list[dict[str, Any]], w: Language) -> list[Text]:
    items: list[Text] = []
    for cost in costs:
        name = " ".join(str(cost[key]) for key in ("model", "device", "precision") if cost.get(key))
        if cost["what"] == "epoch":
            shares = {
                part: w.percent(max(cost[part]["share"], 0.0)) for part in ("logging", "validation", "checkpoints")
            }
            items.append([Code(name), " ", w.say("benchmark.epoch", batch=str(cost["batch_size"]), **shares)])
        elif cost["what"] == "d4":
            items.append([Code(name), " ", w.say("benchmark.d4", ratio=w.number(cost["ratio"]["median"], 2))])
    return items


def _not_measured(rows: list[dict[str, Any]], w: Language) -> list[Block]:
    """The rows without a rate, those of one reason together."""
    groups: dict[tuple[str, str, str], int] = {}
    for row in rows:
        if row["status"] != "measured":
            key = (row["status"], row["device"], row["reason"] or "")
            groups[key] = groups.get(key, 0) + 1
    return [
        Paragraph([w.say(f"benchmark.status.{status}", count=str(count), device=device), " ", Code(reason)])
        for (status, device, reason), count in groups.items()
    ]


def _device(env: dict[str, Any]) -> str:
    return str(env["gpu"]["name"] if env["gpu"] else env["cpu"]["model"] or env["device"])
