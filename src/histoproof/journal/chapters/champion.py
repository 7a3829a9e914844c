"""The champion in chapter 5: how it was chosen, its seeds, calibration, threshold, what it was compared with."""

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...champion import figures
from ...champion.valid import open_valid
from ...errors import HistoproofError
from ...inference import probabilities
from ...runs import Run
from ..blocks import Block, Code, Column, Drawing, Heading, Paragraph, Source, Strong, Table, Text
from ..evidence.champions import ChampionEvidence
from ..language import Language

__all__ = ["champion_blocks"]

_CALIBRATION = ("ece", "nll", "brier", "auc")
_CHOICE = ("recall", "specificity", "precision", "accuracy", "f1", "f2")


def champion_blocks(champion: ChampionEvidence, id_: str, w: Language) -> list[Block]:
    """Everything about one champion."""
    source, drawn = Source(champion.command, champion.files[:1]), Source(champion.command, champion.files[:2])
    parts = {name: Heading(w.say(f"champion.parts.{name}"), f"{id_}-{name}", 4) for name in w.get("champion.parts")}
    return [
        Heading(w.say("champion.heading", name=champion.name), id_),
        *(Paragraph(f"{w.say('contradiction')} {w.translate(problem)}", warning=True) for problem in champion.problems),
        *(Paragraph(w.translate(warning), warning=True) for warning in champion.content["warnings"]),
        _facts(champion, source, w),
        parts["selection"],
        *_selection(champion, source, w),
        parts["seeds"],
        *_seeds(champion, source, w),
        parts["calibration"],
        *_calibration(champion, id_, source, drawn, w),
        parts["threshold"],
        *_threshold(champion, id_, source, drawn, w),
        parts["comparison"],
        *_comparison(champion, source, w),
        parts["test"],
        *_test(champion, w),
    ]


def _facts(champion: ChampionEvidence, source: Source, w: Language) -> Table:
    found = champion.content
    choice = found["choice"]
    rows: list[list[Text]] = [
        [w.say("champion.model"), f"{found['model']}, {w.count(found['parameters'])} {w.say('champion.weights')}"],
        [w.say("champion.frozen"), f"{found['frozen']} ({found['run']})"],
        [w.say("champion.primary"), found["primary"].upper()],
        [w.say("champion.threshold"), Strong(w.with_interval(choice["threshold"]))],
        [w.say("champion.temperature"), w.with_interval(found["calibration"]["temperature"])],
        [w.say("champion.digest"), Code(found["champion_sha256"], digest=True)],
        [w.say("champion.digest_weights"), Code(found["weights_sha256"], digest=True)],
    ]
    return Table((), rows, source, champion.name)


def _selection(champion: ChampionEvidence, source: Source, w: Language) -> list[Block]:
    selection = champion.content["selection"]
    by = selection["by"].upper()
    lead = w.say("champion.selection", n=w.count(selection["candidates"]), runs=w.count(selection["runs"]), by=by)
    columns = [
        Column(w.say("champion.place"), number=True),
        Column(w.say("champion.candidate"), wide=True),
        Column(w.say("champion.score", by=by), number=True),
        Column("AUC", number=True),
    ]
    shown = selection["ranking"][:_MOST]
    rows: list[list[Text]] = [
        [str(place), _candidate(row, shown), w.number(row["primary"]), w.number(row["auc"])]
        for place, row in enumerate(shown, start=1)
    ]
    table = Table(columns, rows, source, w.say("champion.parts.selection"))
    return [Paragraph(lead), table, Paragraph(w.say("champion.flattered"))]


_MOST = 10


def _candidate(row: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """A candidate's model, and what sets it apart from the others shown that have the same model."""
    alike = [other["config"] for other in others if other["model"] == row["model"]]
    varying = [key for key, value in row["config"].items() if any(other.get(key) != value for other in alike)]
    told = ", ".join(f"{key}={_value(row['config'][key])}" for key in varying if row["config"][key] is not None)
    return f"{row['model']}: {told}" if told else str(row["model"])


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _seeds(champion: ChampionEvidence, source: Source, w: Language) -> list[Block]:
    seeds, by = champion.content["seeds"], champion.content["primary"]
    columns = [
        Column(w.say("champion.seed"), number=True),
        Column(w.say("champion.score", by=by.upper()), number=True),
        Column("AUC", number=True),
        Column(w.say("champion.own_threshold"), number=True),
        Column(w.say("champion.is_frozen")),
    ]
    rows: list[list[Text]] = [
        [
            str(row["seed"]),
            w.number(row["primary"]),
            w.number(row["auc"]),
            w.number(row["threshold"]),
            Strong(w.say("yes")) if row["seed"] == champion.content["seed"] else "",
        ]
        for row in seeds["rows"]
    ]
    told = [
        w.say(
            "champion.spread",
            by=name.upper(),
            mean=w.number(s["mean"]),
            sd=w.number(s["sd"]),
            interval=w.interval(s),
            n=w.count(s["n"]),
            promised=w.number(seeds["promised"][name]),
        )
        for name, s in seeds["scores"].items()
    ]
    table = Table(columns, rows, source, w.say("champion.parts.seeds"))
    return [table, *(Paragraph(text) for text in told), Paragraph(w.say("champion.median"))]


def _calibration(champion: ChampionEvidence, id_: str, source: Source, drawn: Source, w: Language) -> list[Block]:
    found = champion.content["calibration"]
    columns = [
        Column(w.say("evaluate.metric")),
        Column(w.say("champion.before"), number=True),
        Column(w.say("champion.after"), number=True),
        Column(w.say("champion.cross_fitted"), number=True),
    ]
    rows: list[list[Text]] = [
        [
            w.say(f"evaluate.names.{name}"),
            w.with_interval(found["before"][name]),
            w.with_interval(found["after"][name]),
            w.number(found["cross_fitted"].get(name)),
        ]
        for name in _CALIBRATION
    ]
    blocks: list[Block] = [
        Paragraph(w.say("champion.calibration", temperature=w.with_interval(found["temperature"]))),
        Table(columns, rows, source, w.say("champion.parts.calibration")),
    ]
    predictions = champion.predictions
    if predictions is not None:
        temperature, groups = champion.content["temperature"], _groups(champion)
        alone = f" {w.say('champion.bars_alone')}" if groups is None and champion.content["groups"] else ""
        blocks.append(
            Drawing(
                f"{id_}-reliability",
                lambda: figures.reliability(
                    predictions.label,
                    probabilities(predictions.logit * temperature),
                    predictions.probability,
                    found,
                    groups=groups,
                    words=_words(w),
                ),
                w.say("champion.reliability", n=w.count(len(predictions.label))) + alone,
                w.say("champion.reliability_alt"),
                drawn,
            )
        )
    return blocks


def _threshold(champion: ChampionEvidence, id_: str, source: Source, drawn: Source, w: Language) -> list[Block]:
    choice = champion.content["choice"]
    columns = [
        Column(w.say("evaluate.metric")),
        Column(w.say("champion.at", threshold=w.number(choice["threshold"]["value"])), number=True),
        Column(w.say("champion.corrected"), number=True),
        Column(w.say("champion.at", threshold=w.number(0.5, 1)), number=True),
    ]
    rows: list[list[Text]] = [
        [
            w.say(f"evaluate.names.{name}"),
            w.with_interval(choice["chosen"][name]),
            w.number(choice["corrected"].get(name)),
            w.with_interval(choice["half"][name]),
        ]
        for name in _CHOICE
    ]
    values = {"rule": w.translate(choice["rule"]), "threshold": w.with_interval(choice["threshold"])}
    blocks: list[Block] = [
        Paragraph(w.say("champion.choice", **values)),
        Table(columns, rows, source, w.say("champion.parts.threshold")),
        Paragraph(w.say("champion.choice_note")),
    ]
    predictions = champion.predictions
    if predictions is not None:
        blocks.append(
            Drawing(
                f"{id_}-precision-recall",
                lambda: figures.precision_recall(
                    predictions.label,
                    predictions.probability,
                    choice["threshold"],
                    w.translate(choice["rule"]),
                    average_precision=choice["chosen"]["average_precision"]["value"],
                    words=_words(w),
                ),
                w.say("champion.precision_recall", n=w.count(len(predictions.label))),
                w.say("champion.precision_recall_alt"),
                drawn,
            )
        )
    return blocks


def _comparison(champion: ChampionEvidence, source: Source, w: Language) -> list[Block]:
    found = champion.content
    columns = [
        *(Column(w.say(f"champion.{n}")) for n in ("against", "on", "method")),
        *(Column(w.say(f"champion.{n}"), number=True) for n in ("difference", "p", "p_holm")),
    ]
    rows: list[list[Text]] = []
    for name, compared in found["comparison"].items():
        for row in compared:
            p = w.p_value(row["p_holm"])
            shown = Strong(p) if row["p_holm"] is not None and row["p_holm"] < 0.05 else p
            rows.append(
                [
                    name,
                    w.say(f"evaluate.short.{row['score']}")
                    if row["score"] in w.get("evaluate.short")
                    else row["score"],
                    w.translate(row["method"]),
                    w.with_interval(row["difference"]),
                    w.p_value(row["p_value"]),
                    shown,
                ]
            )
    blocks: list[Block] = [
        Table(columns, rows, source, w.say("champion.parts.comparison")),
        Paragraph(w.say("champion.comparison_note", n=w.count(found["n"]), tests=w.count(len(rows)))),
    ]
    return blocks


def _test(champion: ChampionEvidence, w: Language) -> list[Block]:
    found = champion.test
    command = shlex.join(["histoproof", "evaluate", str(champion.path), "--split", "test"])
    if found is None:
        return [Paragraph([w.say("champion.not_opened"), " ", Code(command)])]
    files = tuple(path for path in champion.files if path.name == "test.json")
    columns = [
        Column(w.say("evaluate.metric")),
        Column(w.say("evaluate.value"), number=True),
        Column(w.say("evaluate.interval")),
    ]
    rows: list[list[Text]] = [
        [w.say(f"evaluate.names.{name}"), w.number(m["value"]), w.interval(m)]
        for name, m in found["metrics"].items()
        if name in w.get("evaluate.names")
    ]
    values = {"n": w.count(found["n"]), "positive": w.count(found["positive"])}
    return [
        *(Paragraph(w.translate(text), warning=True) for text in found["warnings"]),
        Paragraph(w.say("evaluate.n", **values, threshold=w.number(found["threshold"]))),
        Table(columns, rows, Source(command, files), w.say("champion.parts.test")),
    ]


def _groups(champion: ChampionEvidence) -> NDArray[np.str_] | None:
    """The groups of the valid patches, where the store is still there."""
    try:
        return open_valid(Run(champion.run).load_config(), champion.store).groups
    except HistoproofError:
        return None


def _words(w: Language) -> Mapping[str, str]:
    return {**figures.WORDS, **w.get("figure.champion")}
