"""Chapter 6: where the model fails: slices, errors, what accuracy alone would miss, drift."""

from functools import partial
from typing import Any

from ...drift import figures as drift_figures
from ...slices import figures
from ..blocks import (
    Block,
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
from ..evidence.slices import DriftEvidence, SlicesEvidence
from ..language import Language

__all__ = ["chapter"]

_MOST, _MIXES = 15, 5
_SCORES = ("accuracy", "cross_auc", "auc", "recall", "specificity", "ece")


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    blocks: list[Block] = []
    for number, one in enumerate(found.slices, start=1):
        blocks += _slices(one, f"c6-s{number}", w)
    if not found.slices:
        blocks += nothing(w.say("nothing"), "histoproof slices RUN --saliency")
    for number, drift in enumerate(found.drifts, start=1):
        blocks += _drift(drift, f"c6-d{number}", w)
    if not found.drifts:
        blocks += [
            Heading(w.say("drift.title"), "c6-drift"),
            *nothing(w.say("drift.none"), "histoproof drift RUN PATH --out DIR"),
        ]
    return Chapter("c6", w.say("slices.title"), blocks)


def _slices(one: SlicesEvidence, id_: str, w: Language) -> list[Block]:
    found, source = one.content, Source(one.command, one.files)
    family, units = found["family"], found["units"]
    over = w.say("slices.over_patches")
    if units is not None:
        over = w.say("slices.over_groups", count=w.count(units["count"]), column=units["column"])
    values = {
        "n": w.count(found["n"]),
        "positive": w.count(found["positive"]),
        "threshold": w.number(found["threshold"]),
    }
    tests = {"slices": w.count(family["slices"]), "tests": w.count(family["tests"])}
    words = {**figures.ENGLISH, **w.get("figure.slices")}
    flagged = sum(row["worst"] in row["flagged"] for row in found["slices"])
    verdict = w.say("slices.flagged", n=w.count(flagged)) if flagged else w.say("slices.none_flagged")
    blocks: list[Block] = [
        Heading(w.say("slices.heading", run=one.name, split=found["split"]), id_),
        *(Paragraph(f"{w.say('contradiction')} {w.translate(problem)}", warning=True) for problem in one.problems),
        Paragraph(" ".join([w.say("slices.lead", **values), over])),
        Paragraph([Strong(verdict), " ", w.say("slices.tests", **tests), " ", w.translate(family["assumes"]) + "."]),
    ]
    if found["slices"]:
        blocks += [
            _table(found, source, w),
            Paragraph(w.say("slices.table_note")),
            Drawing(
                f"{id_}-forest",
                lambda: figures.forest(found, "cross_auc", words=words),
                w.say("slices.forest", n=values["n"]),
                w.say("slices.forest_alt"),
                source,
            ),
            Drawing(
                f"{id_}-curves",
                lambda: figures.curves(found, words=words),
                w.say("slices.curves", n=values["n"]),
                w.say("slices.curves_alt"),
                source,
            ),
        ]
    blocks += [Heading(w.say("slices.errors"), f"{id_}-errors", 4), *_galleries(one, id_, source, w)]
    blocks += [Heading(w.say("slices.silent"), f"{id_}-silent", 4), *_silent(found, id_, words, source, w)]
    return blocks


def _table(found: dict[str, Any], source: Source, w: Language) -> Table:
    columns = [
        Column(w.say("slices.slice"), wide=True),
        *(Column(w.say(f"slices.{n}"), number=True) for n in ("patches", "positive")),
        Column(w.say("slices.worst")),
        Column(w.say("slices.p"), number=True),
        *(Column(w.say(f"slices.{n}"), number=True) for n in _SCORES),
    ]
    rows: list[list[Text]] = []
    for row in found["slices"][:_MOST]:
        p = w.p_value(row["p_corrected"])
        scores = [_score(name, row["scores"][name], w) for name in _SCORES]
        worst = "–" if row["worst"] is None else w.say(f"slices.names.{row['worst']}")
        rows.append(
            [
                Code(row["rule"]),
                w.count(row["n"]),
                w.count(row["positive"]),
                worst,
                Strong(p, alarm=True) if row["worst"] in row["flagged"] else p,
                *scores,
            ]
        )
    return Table(columns, rows, source, w.say("slices.title"))


def _score(name: str, found: dict[str, Any], w: Language) -> str:
    if found["value"] is None:
        why = w.translate(found.get("why") or "")
        return why or w.say("slices.undefined", score=w.say(f"slices.names.{name}"))
    return w.with_interval(found)


def _galleries(one: SlicesEvidence, id_: str, source: Source, w: Language) -> list[Block]:
    found = one.content
    words = {**figures.ENGLISH, **w.get("figure.slices")}
    blocks: list[Block] = []
    for gallery, saliency in one.galleries:
        values = {"n": w.count(len(gallery.rows)), "of": w.count(gallery.of)}
        title = w.say(f"slices.galleries.{gallery.name}")
        if not gallery.rows:
            blocks.append(Paragraph(f"{title}: {w.say('none')}."))
            continue
        for kind, maps in (("gallery", None), ("saliency", saliency)):
            if kind == "gallery" or maps is not None:
                draw = partial(figures.gallery, gallery, maps, words=words)
                caption = w.say(f"slices.{kind}_caption", title=title, **values)
                blocks.append(Drawing(f"{id_}-{kind}-{gallery.name}", draw, caption, title, source))
    saliency = found["saliency"]
    if saliency is None:
        return [*blocks, *nothing(w.say("slices.no_saliency"), "histoproof slices RUN --saliency")]
    columns = [Column(w.say("slices.of")), Column("n", number=True), Column(w.say("slices.centre_share"), number=True)]
    rows: list[list[Text]] = [
        [w.say(f"slices.galleries.{name}"), w.count(share["n"]), w.with_interval(share)]
        for name, share in saliency["centre_share"].items()
    ]
    method = w.say("slices.saliency", method=w.translate(saliency["method"]), chance=w.number(saliency["chance"]))
    return [*blocks, Paragraph(method), Table(columns, rows, source, w.say("slices.centre_share"))]


def _silent(found: dict[str, Any], id_: str, words: dict[str, str], source: Source, w: Language) -> list[Block]:
    mixes = [row for row in found["mixes"] if row["recall"]["worst"]["value"] is not None]
    blocks: list[Block] = [Paragraph(w.say("slices.silent_lead"))]
    if not mixes:
        return [*blocks, Paragraph(f"{w.say('not_measured')}.")]
    blocks.append(
        Drawing(
            f"{id_}-mixes",
            lambda: figures.mixes(found, words=words),
            w.say("slices.mixes", bound=w.number(mixes[0]["bound"], 0), n=w.count(found["n"])),
            w.say("slices.mixes_alt"),
            source,
        )
    )
    columns = [
        Column(w.say("slices.factor")),
        *(
            Column(w.say(f"slices.{n}"), number=True)
            for n in ("recall_now", "recall_worst", "unnoticed", "accuracy_worst")
        ),
    ]
    rows: list[list[Text]] = [
        [
            Code(row["factor"]),
            w.number(row["recall"]["now"]),
            w.with_interval(row["recall"]["worst"]),
            w.with_interval(row["unnoticed"]["worst"]),
            w.with_interval(row["accuracy"]["worst"]),
        ]
        for row in mixes[:_MIXES]
    ]
    blocks.append(Table(columns, rows, source, w.say("slices.silent")))
    if found["unseen"]:
        row = found["unseen"][0]
        lost = {"accuracy": w.number(row["accuracy_lost"]), "recall": w.number(row["recall_lost"])}
        blocks.append(
            Paragraph([w.say("slices.unseen", n=w.count(row["n"]), **lost), " ", Code(row["rule"])], source=source)
        )
    return blocks


def _drift(drift: DriftEvidence, id_: str, w: Language) -> list[Block]:
    found, source = drift.content, Source(drift.command, drift.files)
    words = {**drift_figures.ENGLISH, **w.get("figure.drift")}
    lead = w.say(
        "drift.lead",
        n=w.count(found["n"]),
        m=w.count(found["reference"]["n"]),
        effect=w.number(found["effect"], 2),
        alpha=w.number(found["alpha"], 2),
    )
    columns = [
        Column(w.say("drift.factor")),
        *(Column(w.say(f"drift.{n}"), number=True) for n in ("before", "now", "distance", "psi", "p")),
        Column(w.say("drift.moved")),
    ]
    rows: list[list[Text]] = []
    for row in [*found["factors"], *([found["score"]] if found["score"] else [])]:
        moved: Text = "–"
        if row["flagged"]:
            moved = Strong(w.say("drift.more" if row["more"] >= 0.5 else "drift.less"), alarm=True)
        rows.append(
            [
                Code(row["name"]),
                w.number(row["reference"]["median"]),
                w.number(row["new"]["median"]),
                w.number(row["ks"], 2),
                w.number(row["psi"], 2),
                w.p_value(row["p_corrected"]),
                moved,
            ]
        )
    return [
        Heading(w.say("drift.heading", name=drift.name), id_),
        *(Paragraph(f"{w.say('contradiction')} {w.translate(problem)}", warning=True) for problem in drift.problems),
        Paragraph(Strong(w.translate(found["verdict"]), alarm=found["drift"])),
        Paragraph(f"{lead} {w.translate(found['assumes'])}."),
        Table(columns, rows, source, w.say("drift.title")),
        Drawing(
            f"{id_}-shifts",
            lambda: drift_figures.shifts(found, words=words),
            w.say("drift.figure", n=w.count(found["n"]), m=w.count(found["reference"]["n"])),
            w.say("drift.alt"),
            source,
        ),
    ]
