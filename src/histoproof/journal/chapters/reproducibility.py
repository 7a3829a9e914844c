"""Chapter 1: what ran where, under which seed, with which digests; and whether twins are the same."""

import shlex
from typing import Any

from ...files import canonical
from ..blocks import Block, Chapter, Code, Column, Heading, Paragraph, Source, Strong, Table, Text, nothing
from ..evidence import Evidence
from ..evidence.runs import RunEvidence
from ..evidence.twins import TwinEvidence
from ..language import Language

__all__ = ["chapter"]


def chapter(found: Evidence, w: Language) -> Chapter:
    """The chapter."""
    title = w.say("reproducibility.title")
    if not found.runs:
        return Chapter(
            "c1", title, nothing(w.say("nothing"), "histoproof train CONFIG", "histoproof journal RUN --out DIR")
        )
    blocks: list[Block] = [
        Heading(w.say("reproducibility.runs"), "c1-runs"),
        *_alarms(found.runs, w),
        _runs(found.runs, w),
    ]
    blocks += [Paragraph(w.say("reproducibility.digest_note"))]
    blocks += [Heading(w.say("reproducibility.twins"), "c1-twins"), *_twins(found, w)]
    blocks += [Heading(w.say("reproducibility.where"), "c1-where"), *_environments(found.runs, w)]
    return Chapter("c1", title, blocks)


def _alarms(runs: list[RunEvidence], w: Language) -> list[Block]:
    blocks: list[Block] = []
    for run in runs:
        if run.summary is None:
            text: Text = [
                f"{run.name}: {w.say('unfinished')} ",
                Code(shlex.join(["histoproof", "train", "--resume", str(run.path)])),
            ]
            blocks.append(Paragraph(text, warning=True))
        blocks += [
            Paragraph(f"{run.name}: {w.say('contradiction')} {w.translate(p)}", warning=True) for p in run.problems
        ]
        blocks += [Paragraph(f"{run.name}: {w.translate(text)}", warning=True) for text in run.warnings]
    return blocks


def _runs(runs: list[RunEvidence], w: Language) -> Table:
    names = ("run", "model", "seed", "steps", "weights", "trail")
    columns = [Column(w.say(f"reproducibility.{n}"), number=n in ("seed", "steps")) for n in names]
    rows: list[list[Text]] = []
    for run in runs:
        done = (
            f"{w.count(len(run.steps['step']))} ({len(run.epochs)} / {run.config['train']['epochs']} {w.say('epochs')})"
        )
        row: list[Text] = [Code(run.name), run.config["model"]["name"], str(run.config["seed"]), done]
        if run.summary is None:
            row += [Strong(w.say("not_finished"), alarm=True), "–"]
        else:
            row += [Code(run.summary[f"{n}_sha256"], digest=True) for n in ("weights", "trail")]
        rows.append(row)
    files = tuple(path for run in runs for path in run.files if path.name in ("summary.json", "trail.jsonl"))
    command = runs[0].command if len(runs) == 1 else None
    return Table(columns, rows, Source(command, files), w.say("reproducibility.runs"))


def _twins(found: Evidence, w: Language) -> list[Block]:
    if not found.twins:
        run = next((run for run in found.runs if run.summary is not None), found.runs[0])
        return nothing(w.say("reproducibility.no_twins"), shlex.join(["histoproof", "twin", str(run.path)]))
    blocks: list[Block] = [
        Paragraph(f"{w.say('contradiction')} {w.translate(problem)}", warning=True)
        for twin in found.twins
        for problem in twin.problems
    ]
    columns = [Column(w.say(f"reproducibility.{n}")) for n in ("twin_a", "twin_b", "same")]
    for twin in found.twins:
        if twin.found is not None:
            row: list[Text] = [Code(twin.a.name), Code(twin.b.name), _verdict(twin, w)]
            blocks.append(Table(columns, [row], Source(twin.command), w.say("reproducibility.twins")))
    return blocks


def _verdict(twin: TwinEvidence, w: Language) -> Text:
    assert twin.found is not None
    parting, steps = twin.found["first_divergence"], twin.found["steps"]
    if twin.found["identical"]:
        return w.say("reproducibility.identical", steps=w.count(steps["a"]))
    if parting is None:
        return Strong(w.say("reproducibility.shorter", a=w.count(steps["a"]), b=w.count(steps["b"])), alarm=True)
    causes = [_cause(d, w) for d in twin.found["differences"] if d["weight"]][:3]
    what = w.say(f"reproducibility.what.{parting['what']}")
    text = w.say("reproducibility.parted", step=w.count(parting["step"]), what=what)
    because = (
        w.say("reproducibility.because", causes="; ".join(causes)) if causes else w.say("reproducibility.unexplained")
    )
    return [Strong(text, alarm=True), " ", because]


def _cause(difference: dict[str, Any], w: Language) -> str:
    values = (str(difference[run]) for run in ("a", "b"))
    told = [w.translate(value) if value == "absent" else value for value in values]
    return f"{w.translate(difference['key'])}: {' / '.join(told)}"


def _environments(runs: list[RunEvidence], w: Language) -> list[Block]:
    """One table for each environment, with the runs that were made in it."""
    alike: dict[str, list[RunEvidence]] = {}
    for run in runs:
        facts = {k: v for k, v in run.environment.items() if k not in ("started", "command", "slurm")}
        alike.setdefault(canonical({**facts, "precision": run.config["train"]["precision"]}), []).append(run)
    return [_environment(members, w) for members in alike.values()]


def _environment(members: list[RunEvidence], w: Language) -> Table:
    env, train = members[0].environment, members[0].config["train"]
    cpu, git = env["cpu"], env["git"]
    cores = f"{cpu['model'] or w.say('not_measured')}, {cpu['available']} {w.say('reproducibility.cores')}"
    versions = ", ".join(
        f"{n} {env['packages'][n]['version']}" for n in ("torch", "numpy", "h5py") if n in env["packages"]
    )
    seconds = [run.seconds for run in members if run.seconds is not None]
    shards = w.say("reproducibility.batch_detail", size=train["batch_size"], shards=train["shards"])
    facts: list[tuple[str, Text]] = [
        ("members", ", ".join(run.name for run in members)),
        ("software", f"histoproof {env['histoproof']}, Python {env['python']}, {versions}"),
        ("hardware", f"{cores}; {env['gpu']['name']}" if env["gpu"] else cores),
        ("device", env["device"]),
        ("precision", train["precision"]),
        ("batch", shards),
        ("started", ", ".join(run.environment["started"] for run in members)),
        (
            "time",
            ", ".join(w.say("reproducibility.minutes", n=w.number(s / 60, 1)) for s in seconds)
            or w.say("not_measured"),
        ),
        ("git", w.say("reproducibility.no_git") if git is None else [Code(git["commit"][:12]), f", {_state(git, w)}"]),
    ]
    rows = [[w.say(f"reproducibility.{name}"), value] for name, value in facts]
    files = tuple(path for run in members for path in run.files if path.name == "environment.json")
    return Table((), rows, Source(members[0].command, files), w.say("reproducibility.where"))


def _state(git: dict[str, object], w: Language) -> str:
    return w.say("reproducibility.clean") if git["clean"] else w.say("reproducibility.dirty")
