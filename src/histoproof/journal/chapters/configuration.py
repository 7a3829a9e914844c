"""Chapter 3: each run's whole config, and the keys in which runs differ."""

from typing import Any

from ...runs.status import flattened
from ..blocks import Block, Chapter, Code, Column, Heading, Listing, Paragraph, Source, Table, Text, nothing
from ..evidence import Evidence
from ..evidence.runs import RunEvidence
from ..language import Language

__all__ = ["chapter"]


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    title = w.say("config.title")
    if not found.runs:
        return Chapter("c3", title, nothing(w.say("nothing"), "histoproof train CONFIG"))
    blocks: list[Block] = [Paragraph(w.say("config.note"))]
    if len(found.runs) > 1:
        blocks += [Heading(w.say("config.differences"), "c3-differences"), *_differences(found.runs, w)]
    blocks.append(Heading(w.say("config.files"), "c3-files"))
    shown: dict[str, str] = {}
    for run in found.runs:
        files = tuple(path for path in run.files if path.name == "config.yaml")
        other = shown.setdefault(run.config_text, run.name)
        if other is run.name:
            blocks.append(Listing(f"{run.name}: config.yaml", run.config_text, Source(run.command, files)))
        else:
            blocks.append(Paragraph(f"{run.name}: {w.say('config.as_another', run=other)}", source=Source(None, files)))
    return Chapter("c3", title, blocks)


def _differences(runs: list[RunEvidence], w: Language) -> list[Block]:
    configs = [flattened(run.config) for run in runs]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    varying = [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs[1:])]
    if not varying:
        return [Paragraph(w.say("config.same"))]
    columns = [Column(w.say("config.run")), *(Column(key) for key in varying)]
    rows: list[list[Text]] = [
        [Code(run.name), *(_shown(config.get(key)) for key in varying)]
        for run, config in zip(runs, configs, strict=True)
    ]
    files = tuple(path for run in runs for path in run.files if path.name == "config.yaml")
    return [Table(columns, rows, Source(None, files), w.say("config.differences"))]


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
