"""Chapter 9: the commands that made all of this, how to use what was made, and the evidence with its digests."""

import shlex
from pathlib import Path

from ...files import sha256_file
from ..blocks import Block, Chapter, Code, Column, Heading, Listing, Paragraph, Source, Table, Text
from ..evidence import Evidence
from ..language import Language

__all__ = ["chapter"]


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    blocks: list[Block] = [Heading(w.say("handover.again"), "c9-again"), Paragraph(w.say("handover.again_note"))]
    blocks.append(Listing(w.say("handover.commands"), "\n".join(_commands(found)) or w.say("none"), Source()))
    usable = [run for run in found.runs if run.summary is not None]
    if usable:
        blocks += [Heading(w.say("handover.models"), "c9-models"), _models(found, w)]
    blocks += [Heading(w.say("handover.evidence"), "c9-evidence"), Paragraph(w.say("handover.evidence_note"))]
    if found.files:
        blocks.append(_evidence(found.files, w))
    return Chapter("c9", w.say("handover.title"), blocks)


def _commands(found: Evidence) -> list[str]:
    """Each command once, in the order in which they can be run."""
    commands = []
    for store in found.stores:
        if store.manifest is not None:
            folder = store.manifest["source"]["folder"]
            commands.append(shlex.join(["histoproof", "data", "pack", folder, "--out", str(store.path)]))
    commands += [audit.command for audit in found.audits]
    commands += [run.command for run in found.runs if run.command]
    commands += [twin.command for twin in found.twins]
    commands += [
        shlex.join(["histoproof", "evaluate", str(run.path)]) for run in found.runs if "valid" in run.evaluations
    ]
    commands += [study.command for study in found.doses]
    commands += [study.command for study in found.studies]
    commands += [champion.command for champion in found.champions]
    looked = [champion.path for champion in found.champions if champion.test is not None]
    commands += [shlex.join(["histoproof", "evaluate", str(path), "--split", "test"]) for path in looked]
    commands += [one.command for one in found.slices]
    commands += [drift.command for drift in found.drifts]
    return list(dict.fromkeys(commands))


def _models(found: Evidence, w: Language) -> Table:
    rows: list[list[Text]] = []
    for run in found.runs:
        if run.summary is None:
            continue
        command = shlex.join(["histoproof", "predict", str(run.path), "IMAGES"])
        size = run.path / "checkpoints" / "best.safetensors"
        megabytes = w.number(size.stat().st_size / 1e6, 2) if size.is_file() else "–"
        parameters, digest = w.count(run.summary["parameters"]), Code(run.summary["best_weights_sha256"], digest=True)
        rows.append([Code(run.name), parameters, megabytes, digest, Code(command)])
    columns = [
        Column(w.say("handover.run")),
        Column(w.say("handover.parameters"), number=True),
        Column(w.say("handover.megabytes"), number=True),
        Column(w.say("handover.digest")),
        Column(w.say("handover.use")),
    ]
    files = tuple(path for run in found.runs for path in run.files if path.name == "summary.json")
    return Table(columns, rows, Source(None, files), w.say("handover.models"))


def _evidence(files: list[Path], w: Language) -> Table:
    columns = [Column(w.say("handover.file")), Column("SHA-256")]
    rows: list[list[Text]] = [[Code(str(path), digest=True), Code(sha256_file(path)[:16])] for path in files]
    return Table(columns, rows, Source(None, ()), w.say("handover.evidence"))
