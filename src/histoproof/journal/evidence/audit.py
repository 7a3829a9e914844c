"""The audit in the journal: an audit's evidence, what its tables need, and its gallery."""

import shlex
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ...data.findings import Finding, quarantine_reasons
from ...data.pixels import as_uint8
from ...data.sources import DAMAGE, Source, open_sources
from ...data.stream import restored
from ...errors import HistoproofError
from ...files import read_lines
from .audited import Audited, Found, read_audited

__all__ = ["AuditEvidence", "Group", "audit_gallery", "audit_patches", "is_audit", "read_audit"]

_ACROSS, _SHOWN = 6, 6
_LEFT, _STEP, _SIDE = 1.5, 1.25, 1.02
"""Inches of the gallery: for the names, from patch to patch, and a patch's side."""
_INK, _RED, _GREY = "#20242c", "#b3261e", "#8a8f98"
_LEAKS = ("same", "turned", "near", "conflict", "group")


@dataclass(frozen=True)
class Group:
    """All findings of one kind and severity."""

    kind: str
    severity: str
    findings: list[Found]

    @property
    def where(self) -> dict[str, tuple[list[int], int]]:
        """{split: (its first rows, how many more rows)}; only findings with a row."""
        rows: dict[str, list[int]] = {}
        for finding in self.findings:
            if finding.index is not None:
                rows.setdefault(finding.split, []).append(finding.index)
        return {split: (found[:_SHOWN], max(len(found) - _SHOWN, 0)) for split, found in rows.items()}

    @property
    def place(self) -> str:
        """Where the first finding is: its split, and its row there."""
        first = self.findings[0]
        return first.split if first.index is None else f"{first.split} {first.index}"

    @property
    def detail(self) -> str:
        """The first finding in words."""
        return self.findings[0].detail

    @property
    def whole(self) -> bool:
        """Whether the findings are about whole splits or files, not about patches."""
        return all(finding.index is None for finding in self.findings)

    @property
    def outcome(self) -> str:
        """What became of the patches: a word of the words file's `outcome`."""
        if self.severity != "error":
            return "kept"
        return "whole" if self.whole else "quarantine"


@dataclass(frozen=True)
class AuditEvidence:
    """An audit as its folder tells it."""

    path: Path
    content: Audited
    """audit.json."""
    problems: list[str]
    """Where audit.json, findings.jsonl and the audited folder contradict each other."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def folder(self) -> Path:
        """What was audited."""
        return Path(self.content.folder)

    @property
    def command(self) -> str:
        """The command that made it."""
        asked = self.content.options
        words = ["histoproof", "data", "audit", self.content.folder]
        words += ["--groups", asked.groups] if asked.groups is not None else []
        words += [option for option, wanted in (("--near", asked.near), ("--labels", asked.labels)) if wanted]
        if asked.checksums is not None:
            words.append("--checksums" if asked.checksums else "--no-checksums")
        return shlex.join([*words, "--out", str(self.path)])

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read, but for the audited patches."""
        return tuple(path for name in ("audit.json", "findings.jsonl") if (path := self.path / name).is_file())

    @property
    def groups(self) -> list[Group]:
        """Findings by severity and kind, errors first."""
        by: dict[tuple[str, str], list[Found]] = {}
        for finding in self.content.findings:
            by.setdefault((finding.severity, finding.kind), []).append(finding)
        order = ("error", "warning", "info")
        return [Group(kind, level, by[level, kind]) for level, kind in sorted(by, key=lambda k: order.index(k[0]))]

    @property
    def severities(self) -> dict[str, int]:
        """{severity: findings}, all three."""
        counts = Counter(finding.severity for finding in self.content.findings)
        return {level: counts[level] for level in ("error", "warning", "info")}

    @property
    def condemned(self) -> int:
        """Patches that the errors put into quarantine when they are packed."""
        findings = [Finding(**asdict(finding)) for finding in self.content.findings]
        return len(quarantine_reasons(findings))

    @property
    def quarantined(self) -> int:
        """Patches in the quarantine of an audited store."""
        return sum(split.quarantined or 0 for split in self.content.splits.values())

    @property
    def columns(self) -> str:
        """The groups that must not cross splits, in brackets; empty without any."""
        names = list(dict.fromkeys(name for split in self.content.splits.values() for name in split.groups))
        return f"({', '.join(names)})" if names else ""

    @property
    def causes(self) -> list[tuple[str, list[int], int]]:
        """[(cause, bytes of each split, together)] in the order of audit.json."""
        size = self.content.size
        split = {name: Counter[str]() for name in size.splits}
        for name, part in size.splits.items():
            for row in part.rows:
                split[name][row.cause] += row.bytes
        return [(row.cause, [split[name][row.cause] for name in split], row.bytes) for row in size.rows]

    @property
    def leaks(self) -> list[tuple[str, int | str, int | str]]:
        """[(what, within a split, across splits)]: counts, or why it was not looked for."""
        counts: Counter[tuple[str, bool]] = Counter()
        for finding in self.content.findings:
            what = _LEAK_OF.get(finding.kind)
            if what:
                counts[what, finding.other is not None and finding.other.split != finding.split] += 1
        table: list[tuple[str, int | str, int | str]] = []
        for what in _LEAKS:
            missing = self._unseen(what)
            within: int | str = "" if what == "group" else missing or counts[what, False]
            across = missing or ("only one split" if len(self.content.splits) < 2 else counts[what, True])
            table.append((what, within, across))
        return table

    def _unseen(self, what: str) -> str | None:
        """Why a leak could not be seen; None where it was looked for."""
        names = {"same": "copies", "turned": "copies", "near": "near-duplicates", "conflict": "copies"}
        prefix = names.get(what, "groups across splits")
        for check in self.content.checks:
            if check.what.startswith(prefix) and not check.done:
                return check.rule
        if what == "conflict" and all(split.positive is None for split in self.content.splits.values()):
            return "there are none that can be used"
        return None


Row = tuple[Group, list[tuple[str, NDArray[np.uint8] | None]]]
"""A kind of finding with its patches (96, 96, 3): (name under it, pixels); None for a patch that cannot be read."""

_LEAK_OF = {
    "duplicate": "same",
    "cross_split_duplicate": "same",
    "duplicate_dihedral": "turned",
    "near_duplicate": "near",
    "label_conflict": "conflict",
    "group_overlap": "group",
}


def is_audit(path: Path) -> bool:
    """Whether a folder holds an audit."""
    return (path / "audit.json").is_file()


def read_audit(path: Path) -> AuditEvidence:
    """Read an audit's folder. Raises DataError if its audit.json is damaged."""
    content = read_audited(path / "audit.json")
    return AuditEvidence(path, content, _contradictions(path, content))


def _contradictions(path: Path, content: Audited) -> list[str]:
    problems = [f"{path / 'audit.json'}: {problem}" for problem in content.contradictions()]
    lines = path / "findings.jsonl"
    try:
        if not lines.is_file():
            problems.append(f"{lines} is missing")
        elif read_lines(lines) != [asdict(finding) for finding in content.findings]:
            problems.append(f"{lines} is not what audit.json says")
    except HistoproofError as e:
        problems.append(e.problem)
    for file in content.files:
        there = Path(content.folder) / file.name
        if there.is_file() and there.stat().st_size != file.bytes:
            problems.append(f"{there} was changed after the audit: its size is another one")
    return problems


def audit_patches(evidence: AuditEvidence) -> list[Row]:
    """The first patches of each kind of finding that has a row in its split, read from the audited folder.

    Values that uint8 cannot hold become the nearest that it can. Raises DataError where the folder is gone.
    """
    groups = [group for group in evidence.groups if not group.whole]
    if not groups:
        return []
    sources: dict[str, Source] = {
        source.name: restored(source) or source for source in open_sources(evidence.folder)[0]
    }
    return [
        (group, [(name, _patch(sources.get(split), index)) for split, index, name in _places(group)])
        for group in groups
    ]


def audit_gallery(rows: list[Row], words: dict[str, Any]) -> Figure:
    """A row of patches for each kind of finding, pairs side by side."""
    width, height = _LEFT + _STEP * _ACROSS, _STEP * len(rows)
    figure = Figure(figsize=(width, height))
    # One pair of axes, in inches: a layout engine, or axes for each patch, take seconds for a gallery of many rows.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for down, (group, patches) in enumerate(rows):
        top = _STEP * down + 0.03
        label = f"{group.kind}\n{words['severity'][group.severity]}"
        colour = _RED if group.severity == "error" else _INK
        axes.text(0.05, top + _SIDE / 2, label, va="center", fontsize=8, color=colour)
        for across, (name, pixels) in enumerate(patches):
            left = _LEFT + _STEP * across
            axes.text(left + _SIDE / 2, top + _SIDE + 0.04, name, ha="center", va="top", fontsize=7.5)
            if pixels is not None:
                axes.imshow(pixels, extent=(left, left + _SIDE, top + _SIDE, top), aspect="auto")
            else:
                place = (left + _SIDE / 2, top + _SIDE / 2)
                axes.text(*place, words["audit_unreadable"], ha="center", va="center", fontsize=7, color=_GREY)
            axes.add_patch(Rectangle((left, top), _SIDE, _SIDE, fill=False, edgecolor=_GREY, linewidth=0.8))
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _places(group: Group) -> list[tuple[str, int, str]]:
    """[(split, row, name under it)] of the first patches, each followed by the other one of its pair; whole pairs only."""
    places: list[tuple[str, int, str]] = []
    for finding in group.findings:
        if finding.index is None:
            continue
        mine = [(finding.split, finding.index, f"{finding.split} {finding.index}")]
        other = finding.other
        if other is not None and other.index is not None:
            mine.append((other.split, other.index, f"\N{LEFT RIGHT ARROW} {other.split} {other.index}"))
        if len(places) + len(mine) > _ACROSS:
            break
        places += mine
    return places


def _patch(source: Source | None, index: int) -> NDArray[np.uint8] | None:
    if source is None or not 0 <= index < source.n:
        return None
    try:
        pixels, _ = as_uint8(source.read(index, index + 1))
    except DAMAGE:
        return None
    return np.asarray(pixels[0])
