"""Chapter 7: the group's repository, as git knows it, and the code each run was made with."""

from ..blocks import (
    Block,
    Bullets,
    Chapter,
    Code,
    Column,
    Heading,
    Listing,
    Paragraph,
    Source,
    Strong,
    Table,
    Text,
    nothing,
)
from ..evidence import Evidence
from ..evidence.repository import RepositoryEvidence
from ..language import Language

__all__ = ["chapter"]


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    blocks: list[Block] = []
    for number, repository in enumerate(found.repositories, start=1):
        blocks += _repository(repository, f"c7-g{number}", w)
    if not found.repositories:
        blocks += nothing(w.say("team.no_repository"), "histoproof journal REPOSITORY RUN --out DIR")
    if found.runs:
        blocks += [Heading(w.say("team.commits_of_runs"), "c7-runs"), _commits(found, w)]
    return Chapter("c7", w.say("team.title"), blocks)


def _repository(r: RepositoryEvidence, id_: str, w: Language) -> list[Block]:
    facts: list[list[Text]] = [
        [w.say("team.head"), [Code(r.head[:12]), f" ({r.branch})"]],
        [w.say("team.commits"), f"{w.count(r.commits)}, {w.say('team.from_to', first=r.first, last=r.last)}"],
        [w.say("team.merges"), w.count(r.merges)],
        [w.say("team.tags"), ", ".join(r.tags) or w.say("none")],
    ]
    log = f"git -C {r.path} log"
    columns = [
        Column(w.say("team.author")),
        Column(w.say("team.commits"), number=True),
        Column(w.say("team.merges"), number=True),
    ]
    rows: list[list[Text]] = [[name, w.count(n), w.count(m)] for name, n, m in r.authors]
    blocks: list[Block] = [
        Heading(r.name, id_),
        Table((), facts, Source(log), r.name),
        Table(columns, rows, Source(f"{log} --format=%aN"), w.say("team.author")),
        Listing(w.say("team.graph"), r.graph, Source(f"{log} --graph")),
    ]
    if r.checks:
        return [*blocks, Paragraph(w.say("team.checks")), Bullets([Code(name) for name in r.checks])]
    return [*blocks, Paragraph(Strong(w.say("team.no_checks")))]


def _commits(found: Evidence, w: Language) -> Table:
    rows: list[list[Text]] = []
    for run in found.runs:
        git = run.environment["git"]
        if git is None:
            rows.append([Code(run.name), w.say("reproducibility.no_git"), "–"])
        else:
            state = w.say("team.clean") if git["clean"] else Strong(w.say("team.dirty"), alarm=True)
            rows.append([Code(run.name), Code(git["commit"][:12]), state])
    files = tuple(path for run in found.runs for path in run.files if path.name == "environment.json")
    columns = [Column(w.say("team.run")), Column(w.say("team.head")), Column(w.say("team.state"))]
    return Table(columns, rows, Source(None, files), w.say("team.commits_of_runs"))
