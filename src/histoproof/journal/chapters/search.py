"""A search in chapter 5: its space, its trials, what mattered."""

from typing import Any

from ...search import figures
from ..blocks import Block, Code, Column, Drawing, Fold, Heading, Paragraph, Source, Table, Text
from ..evidence.studies import StudyEvidence
from ..language import Language

__all__ = ["search_blocks"]


def search_blocks(study: StudyEvidence, id_: str, w: Language) -> list[Block]:
    """Everything about one search."""
    found, source = study.content, Source(study.command, study.files)
    n, metric = found["counts"], found["metric"].upper()
    lead = w.say(
        "search.lead",
        finished=w.count(n["finished"]),
        wanted=w.count(found["trials_wanted"]),
        complete=w.count(n["complete"]),
        pruned=w.count(n["pruned"]),
        failed=w.count(n["failed"]),
        retried=w.count(n["retried"]),
        sampler=found["sampler"]["name"],
        pruner=found["pruner"]["name"],
        metric=metric,
        seed=found["seed"],
    )
    words = {**figures.ENGLISH, **w.get("figure.search")}
    mattered = {**found["importances"], "method": w.translate(found["importances"]["method"])}
    lower = found["direction"] == "minimize"
    rows, space, name = found["trials"], found["space"], found["metric"]
    drawings = {
        "history": lambda: figures.history(rows, name, lower=lower, words=words),
        "parallel": lambda: figures.parallel(rows, name, space, lower=lower, words=words),
        "importances": lambda: figures.importance_bars(mattered, words=words),
        "slices": lambda: figures.slices(rows, name, space, words=words),
    }
    done = w.count(n["complete"])
    if found["importances"]["values"] is None:
        del drawings["importances"]
    return [
        Heading(w.say("search.heading", name=study.name), id_),
        *(Paragraph(f"{w.say('contradiction')} {w.translate(problem)}", warning=True) for problem in study.problems),
        Paragraph(lead),
        _space(found, source, w),
        *(
            Drawing(f"{id_}-{what}", draw, w.say(f"search.{what}", n=done), w.say(f"search.{what}_alt"), source)
            for what, draw in drawings.items()
        ),
        *([] if "importances" in drawings else [Paragraph(f"{w.translate(found['importances']['why'])}.")]),
        Fold(w.say("search.trials"), [_trials(found, source, w)], open=False),
    ]


def _space(found: dict[str, Any], source: Source, w: Language) -> Table:
    columns = [Column(w.say(f"search.{n}")) for n in ("key", "values", "when")]
    rows: list[list[Text]] = []
    for key, d in found["space"].items():
        when = ", ".join(f"{k} = {v}" for k, v in (d["when"] or {}).items())
        rows.append([Code(key), _values(d, w), when or w.say("search.always")])
    return Table(columns, rows, source, w.say("search.space"))


def _values(d: dict[str, Any], w: Language) -> str:
    if d["choices"] is not None:
        return ", ".join(map(str, d["choices"]))
    scale = [w.say("search.log")] if d["log"] else []
    scale += [w.say("search.step", step=f"{d['step']:g}")] if d["step"] else []
    return ", ".join([f"{d['low']:g} – {d['high']:g}", *scale])


def _trials(found: dict[str, Any], source: Source, w: Language) -> Table:
    keys = list(found["space"])
    columns = [
        Column(w.say("search.number"), number=True),
        Column(w.say("search.state")),
        Column(found["metric"].upper(), number=True),
        Column(w.say("search.epochs"), number=True),
        *(Column(key) for key in keys),
    ]
    rows: list[list[Text]] = [
        [
            str(row["number"]),
            w.say(f"search.states.{row['state']}"),
            w.number(row["value"], 4),
            str(row["epochs"]),
            *(_shown(row["params"].get(key)) for key in keys),
        ]
        for row in found["trials"]
    ]
    return Table(columns, rows, source, w.say("search.trials"))


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
