"""Chapter 8: how fast. Inside training, from what the runs wrote down."""

import statistics

from ..blocks import Block, Chapter, Code, Column, Heading, Paragraph, Source, Table, Text, nothing
from ..evidence import Evidence
from ..language import Language

__all__ = ["chapter"]


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    title, timed = w.say("benchmark.title"), [run for run in found.runs if run.speeds]
    if not timed:
        return Chapter("c8", title, nothing(w.say("nothing"), "histoproof train CONFIG"))
    numbers = ("batch", "median", "range", "epochs")
    names = ("run", "device", "precision", "batch", "workers", "median", "range", "epochs")
    columns = [Column(w.say(f"benchmark.{n}"), number=n in numbers) for n in names]
    rows: list[list[Text]] = []
    for run in timed:
        env, train = run.environment, run.config["train"]
        threads = env.get("threads") or {}
        device = env["gpu"]["name"] if env["gpu"] else env["cpu"]["model"] or env["device"]
        low, high = min(run.speeds), max(run.speeds)
        rows.append(
            [
                Code(run.name),
                device,
                train["precision"],
                str(train["batch_size"]),
                f"{threads.get('processes', '–')} × {threads.get('workers', '–')}",
                w.count(round(statistics.median(run.speeds))),
                f"{w.count(round(low))} – {w.count(round(high))}",
                str(len(run.speeds)),
            ]
        )
    files = tuple(path for run in timed for path in run.files if path.name == "events.jsonl")
    blocks: list[Block] = [
        Heading(w.say("benchmark.training"), "c8-training"),
        Paragraph(w.say("benchmark.note")),
        Table(columns, rows, Source(timed[0].command if len(timed) == 1 else None, files), w.say("benchmark.training")),
        Paragraph(w.say("benchmark.missing")),
    ]
    return Chapter("c8", title, blocks)
