"""The patches that a run used: its partition, sampling, standardisation, quarantine."""

import shlex
from collections.abc import Sequence
from typing import Any

from ..blocks import Block, Heading, Paragraph, Source
from ..evidence.runs import RunEvidence
from ..language import Language

__all__ = ["partition_blocks"]

_KEYS = ("partition", "fold", "sampling", "standardize", "quarantine")


def partition_blocks(runs: Sequence[RunEvidence], w: Language) -> list[Block]:
    """How runs used their stores, each way once."""
    ways: dict[tuple[str, ...], list[RunEvidence]] = {}
    for run in runs:
        ways.setdefault((str(run.store), *(str(run.config["data"][key]) for key in _KEYS)), []).append(run)
    return [block for members in ways.values() for block in _way(members, w)]


def _way(members: list[RunEvidence], w: Language) -> list[Block]:
    run = members[0]
    data = run.config["data"]
    how = [
        f"{w.say('data.sampling')}: {w.say('data.sampling_words.' + data['sampling'])}.",
        f"{w.say('data.standardize')}: {w.say('data.standardize_words.' + data['standardize'])}.",
        w.say(f"data.quarantine_words.{data['quarantine']}"),
    ]
    files = tuple(path for member in members for path in member.files if path.name == "config.yaml")
    blocks: list[Block] = [
        Heading(w.say("data.used", runs=", ".join(member.name for member in members)), f"c2-{run.id}-used", 4),
        Paragraph(" ".join(how), source=Source(None, files)),
    ]
    found = None if run.manifest is None else _partition(run, run.manifest)
    if found is None:
        return blocks
    parts = {
        role: w.say("data.partition_part", **{k: w.count(found[role][k]) for k in ("n", "positive", "groups")})
        for role in ("train", "valid")
    }
    name = found["name"]
    if found["fold"] is not None:
        name = w.say("data.partition_fold", name=name, fold=found["fold"])
    groups = found["groups"] or w.say("data.partition_patches")
    text = w.say("data.partition", name=name, pool=found["pool"], groups=groups, **parts)
    return [*blocks, Paragraph(text, source=Source(found["command"]))]


def _partition(run: RunEvidence, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The partition that the run used, with the counts of its train and valid and the command that made it."""
    name, fold = run.config["data"]["partition"], run.config["data"]["fold"]
    made = manifest.get("partitions", {}).get(name)
    if made is None:
        return None
    parts, by = made["parts"], made["groups"]
    roles = parts
    if made["kind"] == "folds":
        rest = [count for part, count in parts.items() if part != str(fold)]
        train = {key: sum(count[key] for count in rest) for key in ("n", "positive", "groups")}
        roles = {"train": train, "valid": parts[str(fold)]}
    asked = ",".join(f"{part}={fraction!r}" for part, fraction in made["asked"].items())
    how = ["--folds", str(len(parts))] if made["kind"] == "folds" else ["--fractions", asked]
    column = by["column"] if by["csv"] is None else f"{by['csv']}:{by['column']}"
    which = ["--groups", column] if by["column"] else []
    command = ["histoproof", "data", "split", str(run.store), *which, *how, "--from", ",".join(made["from"])]
    return {
        "name": name,
        "fold": fold,
        "pool": " + ".join(made["from"]),
        "groups": by["column"],
        "train": roles["train"],
        "valid": roles["valid"],
        "command": shlex.join([*command, "--name", name, "--seed", str(made["seed"])]),
    }
