"""Chapter 4: the gradient norm and the learning rate, step by step, and what stands behind spikes."""

from ...data.partition import open_part
from ...data.store import open_store
from ...errors import HistoproofError
from .. import figures
from ..blocks import Block, Chapter, Drawing, Heading, Paragraph, Source, Strong, nothing
from ..evidence import Evidence
from ..evidence.runs import RunEvidence
from ..language import Language

__all__ = ["chapter"]


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    blocks: list[Block] = []
    for run in found.runs:
        blocks += [Heading(run.name, f"c4-{run.id}"), *(_same(run, found, w) or _run(run, w))]
    if not found.runs:
        blocks = nothing(w.say("nothing"), "histoproof train CONFIG", "histoproof spikes RUN")
    return Chapter("c4", w.say("gradients.title"), blocks)


def _same(run: RunEvidence, found: Evidence, w: Language) -> list[Block]:
    other = found.same_as(run)
    return [] if other is None else [Paragraph(w.say("same_as", run=other.name))]


def _run(run: RunEvidence, w: Language) -> list[Block]:
    if not len(run.steps["step"]):
        return [Paragraph(f"{w.say('not_measured').capitalize()}.")]
    most, step = run.largest_norm
    caption = w.say("gradients.figure", most=w.number(most, 2), step=w.count(step), n=w.count(len(run.steps["step"])))
    files = tuple(path for path in run.files if path.name == "metrics.jsonl")
    blocks: list[Block] = [
        Drawing(
            f"{run.id}-gradients",
            lambda: figures.gradients(run, w.get("figure")),
            caption,
            w.say("gradients.alt", run=run.name),
            Source(run.command, files),
        )
    ]
    return [*blocks, *_spikes(run, w)]


def _spikes(run: RunEvidence, w: Language) -> list[Block]:
    if run.spikes is None:
        return (
            [Paragraph(w.say("gradients.spikes_unknown", problem=w.translate(run.spikes_problem)))]
            if run.spikes_problem
            else []
        )
    marked, e = run.spikes["spikes"], run.spikes["enrichment"]
    seen = w.say("gradients.spikes_some", n=w.count(len(marked))) if marked else w.say("gradients.spikes_none")
    if e["p_value"] is None:
        cause = w.say("gradients.cause_none", why=w.get("gradients.cause_why")[e["why"]])
    else:
        means = {"spike": w.number(e["per_spike"], 2), "other": w.number(e["per_other"], 2)}
        cause = w.say("gradients.cause_test", **means, p=w.p_value(e["p_value"]))
    source = Source(run.spikes_command)
    blocks: list[Block] = [
        Paragraph(seen),
        Paragraph([Strong(w.say("gradients.cause")), " ", cause], source=source),
    ]
    if marked:
        blocks.append(_gallery(run, source, w))
    return blocks


def _gallery(run: RunEvidence, source: Source, w: Language) -> Block:
    data = run.config["data"]
    try:
        images = open_part(open_store(run.store), "train", data["partition"], data["fold"]).images
    except HistoproofError as e:
        return Paragraph(w.say("gradients.spikes_unknown", problem=w.translate(e.problem)))
    name = f"{run.id}-spikes"
    alt = w.say("gradients.gallery_alt", run=run.name)
    return Drawing(name, lambda: figures.gallery(run, images, w.get("figure")), w.say("gradients.gallery"), alt, source)
