"""Chapter 2: the patches. Audits (files, partitions, size, findings, leakage), stores, and what poison does."""

import shlex
from typing import Any

from ...errors import DataError
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
from ..evidence.audit import AuditEvidence, audit_gallery, audit_patches
from ..evidence.dose import DoseEvidence, dose_figure
from ..evidence.stores import StoreEvidence
from ..language import Language
from .partition import partition_blocks

__all__ = ["chapter"]

_PATCH_BYTES = 96 * 96 * 3


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    blocks: list[Block] = []
    for number, audit in enumerate(found.audits, start=1):
        blocks += _audit(audit, f"c2-a{number}", w)
    if not found.audits:
        blocks += nothing(w.say("audit.no_audit"), "histoproof data audit DIR --out AUDIT")
    for number, store in enumerate(found.stores, start=1):
        blocks += _store(store, f"c2-s{number}", w)
    blocks += partition_blocks(found.runs, w)
    for number, study in enumerate(found.doses, start=1):
        blocks += _dose(study, number, w)
    return Chapter("c2", w.say("data.title"), blocks)


def _audit(audit: AuditEvidence, id_: str, w: Language) -> list[Block]:
    found, source = audit.content, Source(audit.command, audit.files)
    counts = {f"{level}s": w.count(n) for level, n in audit.severities.items()}
    lead = w.say("audit.lead", folder=found.folder, kind=w.get("audit.kind")[found.kind], **counts)
    parts = {name: Heading(w.say(f"audit.parts.{name}"), f"{id_}-{name}", 4) for name in w.get("audit.parts")}
    return [
        Heading(w.say("audit.heading", name=audit.name), id_),
        *(Paragraph(f"{w.say('contradiction')} {w.translate(problem)}", warning=True) for problem in audit.problems),
        Paragraph(lead, source=source),
        parts["files"],
        _files(audit, source, w),
        parts["splits"],
        _splits(audit, source, w),
        parts["size"],
        *_size(audit, source, w),
        parts["findings"],
        *_findings(audit, source, w),
        parts["leaks"],
        Paragraph(w.say("audit.leaks_lead")),
        _leaks(audit, source, w),
        parts["gallery"],
        _gallery(audit, id_, source, w),
        parts["checks"],
        _checks(audit, source, w),
    ]


def _files(audit: AuditEvidence, source: Source, w: Language) -> Block:
    if not audit.content.files:
        return Paragraph(w.say("audit.files_store"), source=source)
    columns = [
        Column(w.say("audit.file")),
        Column(w.say("audit.bytes"), number=True),
        Column("MD5"),
        Column(w.say("audit.is")),
    ]
    rows: list[list[Text]] = [
        [
            Code(file.name),
            w.count(file.bytes),
            w.say("audit.md5_none") if file.md5 is None else Code(file.md5, digest=True),
            w.translate(file.words),
        ]
        for file in audit.content.files
    ]
    return Table(columns, rows, source, w.say("audit.parts.files"))


def _splits(audit: AuditEvidence, source: Source, w: Language) -> Table:
    store = audit.content.kind == "store"
    numbers = ("patches", "positive", "bytes", "quarantined")
    names = ["split", "patches", "positive", "dtype", "bytes", "layout", "groups", *(["quarantined"] if store else [])]
    rows: list[list[Text]] = []
    for name, split in audit.content.splits.items():
        groups = [w.say("audit.groups_count", n=w.count(n), column=column) for column, n in split.groups.items()]
        layout = (
            w.say("audit.chunks", shape=" × ".join(map(str, split.chunks)))
            if split.chunks
            else w.say("audit.contiguous")
        )
        row: list[Text] = [
            name,
            w.count(split.n),
            w.say("audit.no_labels") if split.positive is None else _share(split.positive, split.n, w),
            split.dtype,
            w.count(split.bytes),
            ", ".join([layout, *split.filters]),
            ", ".join(groups) or "–",
        ]
        rows.append([*row, w.count(split.quarantined or 0)] if store else row)
    columns = [Column(w.say(f"audit.{name}"), number=name in numbers) for name in names]
    return Table(columns, rows, source, w.say("audit.parts.splits"))


def _size(audit: AuditEvidence, source: Source, w: Language) -> list[Block]:
    size = audit.content.size
    lead = w.say(
        "audit.size_lead", bytes=w.count(size.bytes), factor=w.number(size.factor, 2), as_uint8=w.count(size.as_uint8)
    )
    titles = [*size.splits, w.say("audit.size_together"), w.say("audit.size_times")]
    columns = [Column(w.say("audit.size_cause")), *(Column(title, number=True) for title in titles)]
    rows: list[list[Text]] = [
        [
            w.get("audit.causes").get(cause) or w.translate(cause),
            *map(w.count, each),
            w.count(together),
            w.number(together / size.as_uint8),
        ]
        for cause, each, together in audit.causes
    ]
    sums = [w.count(split.bytes) for split in size.splits.values()]
    rows.append([w.say("audit.size_total"), *sums, w.count(size.bytes), w.number(size.factor)])
    notes = []
    for name, split in size.splits.items():
        gzip = split.gzip
        if gzip.ratio is None:
            notes.append(w.say("audit.gzip_unknown", split=name))
            continue
        key = "audit.gzip_missing" if gzip.missing else "audit.gzip_there"
        share = w.number(100 * gzip.ratio, 1)
        values = {"split": name, "level": gzip.level, "ratio": share, "n": w.count(gzip.n)}
        notes.append(w.say(key, **values, missing=w.count(gzip.missing or 0)))
    table = Table(columns, rows, source, w.say("audit.parts.size"), total=True)
    return [Paragraph(lead), table, Paragraph(w.say("audit.size_note")), Bullets(notes)]


def _findings(audit: AuditEvidence, source: Source, w: Language) -> list[Block]:
    store = audit.content.kind == "store"
    key = "condemned_store" if store else "condemned" if audit.condemned else "condemned_none"
    counts = {"n": w.count(audit.condemned), "quarantined": w.count(audit.quarantined)}
    after = Paragraph(w.say(f"audit.{key}", **counts), source=source)
    if not audit.groups:
        return [Paragraph(w.say("audit.nothing")), after]
    names = ("severity_column", "kind_column", "count", "meaning_column", "where", "outcome_column")
    columns = [Column(w.say(f"audit.{n}"), number=n == "count", wide=n in ("meaning_column", "where")) for n in names]
    rows: list[list[Text]] = []
    for group in audit.groups:
        severity = w.say(f"audit.severity.{group.severity}")
        places = []
        for split, (rows_, more) in group.where.items():
            rest = f" {w.say('audit.more', n=w.count(more))}" if more else ""
            places.append(f"{split} {', '.join(map(str, rows_))}{rest}. ")
        rows.append(
            [
                Strong(severity, alarm=True) if group.severity == "error" else severity,
                Code(group.kind),
                w.count(len(group.findings)),
                w.say(f"audit.meaning.{group.kind}"),
                "".join(places) + w.say("audit.example", detail=f"{group.place}: {w.translate(group.detail)}"),
                w.say(f"audit.outcome.{group.outcome}"),
            ]
        )
    return [Table(columns, rows, source, w.say("audit.parts.findings")), after]


def _leaks(audit: AuditEvidence, source: Source, w: Language) -> Table:
    def seen(found: int | str) -> Text:
        if isinstance(found, str):
            return w.say("audit.unchecked", why=w.translate(found)) if found else "–"
        return Strong(w.count(found)) if found else w.say("audit.found_none")

    rows: list[list[Text]] = []
    for what, within, across in audit.leaks:
        name = w.say(f"audit.leak.{what}")
        rows.append([f"{name} {audit.columns}".strip() if what == "group" else name, seen(within), seen(across)])
    columns = [Column(w.say(f"audit.{n}")) for n in ("leak_column", "within", "across")]
    return Table(columns, rows, source, w.say("audit.parts.leaks"))


def _gallery(audit: AuditEvidence, id_: str, source: Source, w: Language) -> Block:
    try:
        rows = audit_patches(audit)
    except DataError:
        return Paragraph(w.say("audit.gallery_gone", path=audit.content.folder), source=source)
    if not rows:
        return Paragraph(w.say("audit.gallery_none"), source=source)
    caption = w.say("audit.gallery")
    return Drawing(
        f"{id_}-gallery", lambda: audit_gallery(rows, w.get("figure")), caption, w.say("audit.parts.gallery"), source
    )


def _checks(audit: AuditEvidence, source: Source, w: Language) -> Table:
    columns = [Column(w.say(f"audit.{n}")) for n in ("check", "checked", "rule")]
    rows: list[list[Text]] = [
        [w.translate(check.what), w.say("yes") if check.done else Strong(w.say("no")), w.translate(check.rule)]
        for check in audit.content.checks
    ]
    return Table(columns, rows, source, w.say("audit.parts.checks"))


def _store(store: StoreEvidence, id_: str, w: Language) -> list[Block]:
    blocks: list[Block] = [Heading(w.say("data.store", name=store.name), id_)]
    if store.manifest is None:
        return [*blocks, Paragraph(w.say("data.gone", path=str(store.path)))]
    names = ("split", "patches", "positive", "on_disk", "bytes", "as_uint8", "quarantined", "digest")
    columns = [Column(w.say(f"data.{n}"), number=n not in ("split", "on_disk", "digest")) for n in names]
    rows: list[list[Text]] = []
    for name, split in store.manifest["splits"].items():
        rows.append(
            [
                name,
                w.count(split["n"]),
                w.say("data.no_labels") if split["positive"] is None else _share(split["positive"], split["n"], w),
                split["source_dtype"],
                w.number(store.source_bytes[name] / 1e6, 1),
                w.number(split["n"] * _PATCH_BYTES / 1e6, 1),
                w.count(split["quarantined"]),
                Code(split["images"]["sha256"][:16]),
            ]
        )
    folder = store.manifest["source"]["folder"]
    command = shlex.join(["histoproof", "data", "pack", folder, "--out", str(store.path)])
    return [*blocks, Table(columns, rows, Source(command, store.files[:1]), w.say("data.store", name=store.name))]


def _dose(study: DoseEvidence, number: int, w: Language) -> list[Block]:
    found, source = study.content, Source(study.command, study.files[:1])
    numbers = ("rate", "planted", "difference")
    columns = [
        Column(w.say(f"dose.{n}"), number=n in numbers)
        for n in ("model", "poison", "rate", "planted", "difference", "interval", "answer")
    ]
    return [
        Heading(w.say("dose.heading"), f"c2-d{number}"),
        *(Paragraph(f"{w.say('contradiction')} {w.translate(problem)}", warning=True) for problem in study.problems),
        Paragraph(w.say("dose.lead", cells=w.count(len(found["rows"])))),
        Drawing(
            f"c2-d{number}-dose",
            lambda: dose_figure(found, w.get("figure")),
            w.say("dose.figure"),
            w.say("dose.heading"),
            source,
        ),
        Table(columns, [_difference(row, w) for row in found["differences"]], source, w.say("dose.heading")),
        Paragraph(w.say("dose.note")),
    ]


def _difference(row: dict[str, Any], w: Language) -> list[Text]:
    return [
        row["model"],
        f"{row['poison']} ({row['kind']})",
        w.percent(row["rate"]),
        f"{w.count(row['n_planted'])} / {w.count(row['n_quarantined'])}",
        w.number(row["value"], 4),
        f"{w.number(row['low'], 4)} – {w.number(row['high'], 4)}",
        w.say(f"dose.verdict.{row['verdict']}"),
    ]


def _share(part: int, whole: int, w: Language) -> str:
    return f"{w.count(part)} ({w.percent(part / whole)})"
