"""Chapter 5: runs and their seeds together, curves, scores with intervals, and the sealed test split."""

import shlex
from pathlib import Path
from typing import Any

from ...runs.seeds import by_config
from ...runs.status import describe
from .. import figures
from ..blocks import Block, Chapter, Code, Column, Drawing, Heading, Paragraph, Source, Strong, Table, Text, nothing
from ..evidence import Evidence
from ..evidence.runs import RunEvidence
from ..evidence.stores import StoreEvidence
from ..language import Language
from .champion import champion_blocks
from .search import search_blocks

__all__ = ["chapter"]

_METRICS = (
    *("auc", "average_precision", "f2", "recall", "precision", "specificity", "f1", "accuracy", "balanced_accuracy"),
    *("ece", "nll", "brier"),
)


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    blocks: list[Block] = []
    if found.runs:
        blocks += [Heading(w.say("models.runs"), "c5-runs"), *_runs(found.runs, w)]
        for run in found.runs:
            other = found.same_as(run)
            told = (
                [*_curves(run, w), *_scores(run, w)] if other is None else [Paragraph(w.say("same_as", run=other.name))]
            )
            blocks += [Heading(run.name, f"c5-{run.id}"), *told]
    elif not found.champions and not found.studies:
        blocks += nothing(w.say("nothing"), "histoproof train CONFIG --seeds 42,43,44", "histoproof evaluate RUN")
    for number, study in enumerate(found.studies, start=1):
        blocks += search_blocks(study, f"c5-s{number}", w)
    if not found.studies:
        command = "histoproof search CONFIG --space YAML --trials N --out STUDY"
        blocks += [Heading(w.say("search.title"), "c5-search"), *nothing(w.say("search.none"), command)]
    for number, champion in enumerate(found.champions, start=1):
        blocks += champion_blocks(champion, f"c5-c{number}", w)
    if not found.champions:
        blocks += [
            Heading(w.say("champion.title"), "c5-champion"),
            *nothing(w.say("champion.none"), "histoproof champion STUDY"),
        ]
    blocks.append(Heading(w.say("ledger.title"), "c5-ledger"))
    for store in found.stores:
        blocks += _ledger(store, w)
    if not found.stores:
        blocks += [Paragraph(w.say("ledger.no_store"))]
    return Chapter("c5", w.say("models.title"), blocks)


def _runs(runs: list[RunEvidence], w: Language) -> list[Block]:
    """The best epoch of each run, and seeds of one config together."""
    columns = [
        *(Column(w.say(f"models.{n}")) for n in ("run", "model")),
        *(Column(w.say(f"models.{n}"), number=True) for n in ("seed", "epoch", "auc", "primary")),
    ]
    rows: list[list[Text]] = []
    described = [describe(run.path) for run in runs]
    for run, row in zip(runs, described, strict=True):
        scored = {} if row["best"] is None else row["best"]["valid"]
        primary = run.config["evaluate"]["primary"]
        auc = w.number(scored.get("auc"))
        if run.summary is not None:
            auc = w.with_interval(run.summary["best"]["intervals"]["auc"])
        told = f"{primary.upper()} {w.number(scored.get(primary))}"
        epoch = "–" if row["best"] is None else str(row["best"]["epoch"])
        rows.append([Code(run.name), run.config["model"]["name"], str(run.config["seed"]), epoch, auc, told])
    files = tuple(path for run in runs for path in run.files if path.name == "summary.json")
    parents = dict.fromkeys(run.path.parent for run in runs)
    command = shlex.join(["histoproof", "runs", str(next(iter(parents)))]) if len(parents) == 1 else None
    blocks: list[Block] = [
        Table(columns, rows, Source(command, files), w.say("models.runs")),
        Paragraph(w.say("models.best_note")),
    ]
    together = [group for group in by_config(described) if len(group["seeds"]) > 1]
    if not together:
        missing = w.say("models.one_seed")
        return [*blocks, *nothing(missing, "histoproof train CONFIG --seeds 42,43,44")]
    columns = [
        Column(w.say("models.seeds")),
        *(Column(w.say(f"models.{n}"), number=True) for n in ("score", "mean", "sd")),
        Column(w.say("models.seed_interval")),
    ]
    rows = []
    for group in together:
        for name, s in group["scores"].items():
            seeds = f"{group['model']}: {', '.join(map(str, group['seeds']))}"
            rows.append([seeds, name.upper(), w.number(s["mean"]), w.number(s["sd"]), w.interval(s)])
    table = Table(columns, rows, Source(command, files), w.say("models.seeds"))
    return [*blocks, table, Paragraph(w.say("models.seed_note"))]


def _curves(run: RunEvidence, w: Language) -> list[Block]:
    if not run.epochs:
        return [Paragraph(f"{w.say('not_measured').capitalize()}.")]
    caption = w.say("models.curves_open")
    if run.summary is not None:
        caption = w.say("models.curves", epoch=run.summary["best"]["epoch"], by=run.config["evaluate"]["best_by"])
    files = tuple(path for path in run.files if path.name == "metrics.jsonl")
    alt = w.say("models.curves_alt", run=run.name)
    return [
        Drawing(
            f"{run.id}-curves", lambda: figures.curves(run, w.get("figure")), caption, alt, Source(run.command, files)
        )
    ]


def _scores(run: RunEvidence, w: Language) -> list[Block]:
    blocks: list[Block] = []
    for split in ("valid", "test"):
        blocks.append(Heading(w.say(f"evaluate.on.{split}"), f"c5-{run.id}-{split}", 4))
        if split not in run.evaluations:
            if split == "test":
                blocks.append(Paragraph(f"{w.say('not_measured').capitalize()}. {w.say('evaluate.sealed')}"))
            else:
                blocks += nothing(
                    f"{w.say('not_measured').capitalize()}.", shlex.join(["histoproof", "evaluate", str(run.path)])
                )
            continue
        blocks += _evaluation(run, split, w)
    return blocks


def _evaluation(run: RunEvidence, split: str, w: Language) -> list[Block]:
    e = run.evaluations[split]
    files = tuple(path for path in run.files if path.name in (f"{split}.json", f"{split}.npz"))
    source = Source(_command(run, e), files)
    lead = w.say(
        "evaluate.n", n=w.count(e["n"]), positive=w.count(e["positive"]), threshold=w.number(e["threshold"], 2)
    )
    groups = e["groups"]
    over = (
        w.say("evaluate.over_groups", count=w.count(groups["count"]), column=groups["column"])
        if groups
        else w.say("evaluate.over_patches")
    )
    optimistic = [w.say("evaluate.optimistic")] if split == "valid" else []
    columns = [
        Column(w.say("evaluate.metric")),
        Column(w.say("evaluate.value"), number=True),
        Column(w.say("evaluate.interval")),
    ]
    rows: list[list[Text]] = [
        [w.say(f"evaluate.names.{name}"), w.number(e["metrics"][name]["value"]), w.interval(e["metrics"][name])]
        for name in _METRICS
    ]
    values = {"run": run.name, "split": split}
    blocks: list[Block] = [
        Paragraph(" ".join([lead, over, *optimistic])),
        Table(columns, rows, source, w.say(f"evaluate.on.{split}")),
        Drawing(
            f"{run.id}-confusion-{split}",
            lambda: figures.confusion(e, w.get("figure")),
            w.say("evaluate.confusion", n=w.count(e["n"])),
            w.say("evaluate.confusion_alt", **values),
            source,
        ),
    ]
    if e["metrics"]["auc"]["value"] is not None:
        found = run.predictions[split]
        blocks.append(
            Drawing(
                f"{run.id}-ranking-{split}",
                lambda: figures.ranking(found, e, w.get("figure")),
                w.say("evaluate.ranking", n=w.count(e["n"])),
                w.say("evaluate.ranking_alt", **values),
                source,
            )
        )
    return blocks


def _command(run: RunEvidence, found: dict[str, Any]) -> str:
    """The command that makes an evaluation as it is."""
    words = ["histoproof", "evaluate", str(run.path), "--split", found["split"]]
    if (found["tta"] == "d4") != (run.config["evaluate"]["tta"] == "d4"):
        words.append("--tta" if found["tta"] == "d4" else "--no-tta")
    if Path(found["store"]).absolute() != run.store:
        words += ["--store", found["store"]]
    if found.get("reason"):
        words += ["--open-test", found["reason"]]
    return shlex.join(words)


def _ledger(store: StoreEvidence, w: Language) -> list[Block]:
    if store.manifest is None:
        return [Paragraph(w.say("data.gone", path=str(store.path)))]
    source = Source(shlex.join(["histoproof", "ledger", str(store.path)]), (store.ledger_path,))
    blocks: list[Block] = [
        Paragraph(f"{w.say('ledger.broken')}: {w.translate(problem)}", warning=True, source=source)
        for problem in store.problems
    ]
    blocks += [Paragraph(w.translate(note)) for note in store.notes]
    if store.problems:
        return blocks
    n = len(store.openings)
    times = w.say(
        "ledger.times.zero" if n == 0 else "ledger.times.one" if n == 1 else "ledger.times.many", n=w.count(n)
    )
    blocks.append(Paragraph([Strong(times), f" ({store.name})"], source=source))
    if n:
        columns = [Column(w.say(f"ledger.{name}")) for name in ("when", "by", "reason", "opened_for", "weights")]
        rows: list[list[Text]] = []
        for line in store.openings:
            frozen = line.get("champion_sha256")
            by: Text = Strong(w.say("ledger.no_champion"))
            if frozen is not None:
                by = [w.say("ledger.champion"), " ", Code(frozen[:12])]
            rows.append(
                [line["opened"], line["by"], line["reason"], by, Code(str(line.get("weights_sha256", "–"))[:12])]
            )
        blocks.append(Table(columns, rows, source, w.say("ledger.title")))
    return blocks
