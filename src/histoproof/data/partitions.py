"""What the splits are made of: class balance, slides, and groups that lie in more than one split."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .findings import Finding, Kind
from .officials import COUNTS, COURSE_COUNTS, SLIDE_PREFIX
from .pcam import META_COLUMNS, meta_columns
from .sources import Source, read_column

__all__ = [
    "BALANCE_RULE",
    "balance_findings",
    "count_findings",
    "label_findings",
    "named_groups",
    "overlap_findings",
    "slide_findings",
    "slides_of",
]

_SMALLEST, _APART, _ERRORS = 0.40, 0.05, 4.0
BALANCE_RULE = (
    f"class_imbalance: less than {_SMALLEST:.0%} of a split's labels are of the smaller class (PatchCamelyon is made 50/50), or "
    f"its share of positives is {100 * _APART:g} points away from that of the other splits; and more than {_ERRORS:g} standard "
    "errors"
)


def balance_findings(sources: list[Source]) -> list[Finding]:
    """Findings class_imbalance, one a split at most, after BALANCE_RULE."""
    counts: dict[str, tuple[int, int]] = {}
    for source in sources:
        if source.labels is not None:
            counts[source.name] = (int((source.labels == 1).sum()), int((source.labels >= 0).sum()))
    found = []
    for name, (positive, n) in counts.items():
        if not n:
            continue
        share = positive / n
        words = f"{positive:,} of {n:,} labels are positive ({share:.1%})"
        others = [pair for other, pair in counts.items() if other != name and pair[1]]
        k, m = sum(pair[0] for pair in others), sum(pair[1] for pair in others)
        if min(share, 1 - share) < _SMALLEST and abs(share - 0.5) > _ERRORS * math.sqrt(0.25 / n):
            words += (
                f"; PatchCamelyon is 50/50. Always saying {int(share > 0.5)} is right in {max(share, 1 - share):.1%}"
            )
            found.append(Finding("class_imbalance", "warning", name, None, words))
        elif m and abs(share - k / m) > _APART:
            pooled = (positive + k) / (n + m)
            if abs(share - k / m) > _ERRORS * math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)):
                found.append(
                    Finding("class_imbalance", "warning", name, None, f"{words}; {k / m:.1%} in the other splits")
                )
    return found


def slide_findings(source: Source, slides: NDArray[np.str_]) -> list[Finding]:
    """Finding split_swapped where slides are named as those of another split."""
    prefix = SLIDE_PREFIX[source.name]
    foreign = np.char.startswith(slides, "camelyon16_") & ~np.char.startswith(slides, prefix)
    if not foreign.any():
        return []
    row = int(np.flatnonzero(foreign)[0])
    words = (
        f"{int(foreign.sum()):,} of {source.n:,} patches are of slides that do not begin with {prefix} (first: row {row}, "
        f"{slides[row]}): splits are swapped or mixed; the data's README prints the md5 of valid and test in each other's place"
    )
    return [Finding("split_swapped", "error", source.name, None, words)]


def count_findings(sources: list[Source]) -> list[Finding]:
    """Finding split_swapped where a split has as many patches as another official split, and not its own number."""
    n = {source.name: source.n for source in sources}
    known = {COUNTS["train"]: "the official train split", COURSE_COUNTS["train"]: "the course's subset of train"}
    large = [name for name in n if name != "train" and n[name] in known]
    found = []
    for name in large:
        words = f"{n[name]:,} patches: as many as {known[n[name]]}; the official {name} split has {COUNTS[name]:,}"
        found.append(Finding("split_swapped", "error", name, None, words))
    if n.get("train") in (COUNTS["valid"], COUNTS["test"]):
        words = f"{n['train']:,} patches: as many as the official valid and test splits; official train has {COUNTS['train']:,}"
        found.append(Finding("split_swapped", "error" if large else "warning", "train", None, words))
    return found


def named_groups(sources: list[Source], groups: str) -> tuple[str, dict[str, NDArray[np.str_]]]:
    """(column, {split: (N,) group of each patch}) as `groups` "CSV:COLUMN" says; "{split}" in CSV stands for the split's name.

    Raises DataError for a CSV that cannot be used.
    """
    csv, colon, column = groups.rpartition(":")
    if not colon or not csv or not column:
        raise DataError(f"--groups {groups} names no column", valid="CSV:COLUMN, e.g. {split}_provenance.csv:slide")
    found: dict[str, NDArray[np.str_]] = {}
    for source in sources:
        path = Path(csv.replace("{split}", source.name))
        if not path.is_file():
            raise DataError(f"no such groups file: {path}", next="{split} in its name stands for train, valid, test")
        found[source.name] = read_column(path, column, source.n, source.name)
        blank = np.flatnonzero(found[source.name] == "")
        if len(blank):
            few = f"{len(blank):,} of the {source.n:,} patches of {source.name}"
            words = f"{path}: {few} have no {column} (first: patch {blank[0]})"
            raise DataError(words, valid="a group for every patch")
    return column, found


def slides_of(sources: list[Source], findings: list[Finding]) -> dict[str, NDArray[np.str_]]:
    """{split: (N,) slide of each patch} where meta has the column wsi; what is wrong with meta goes to `findings`."""
    found: dict[str, NDArray[np.str_]] = {}
    for source in sources:
        slides = _meta(source, "wsi", findings)
        if slides is not None and (slides != "").any():
            found[source.name] = slides
    return found


def label_findings(source: Source) -> list[Finding]:
    """Finding bad_label (warning) where labels and meta's center_tumor_patch contradict each other."""
    stated = _meta(source, "center_tumor_patch", [])
    if stated is None or source.labels is None:
        return []
    says = np.where(
        np.isin(stated, ("True", "1", "true")), 1, np.where(np.isin(stated, ("False", "0", "false")), 0, -1)
    )
    rows = np.flatnonzero((says >= 0) & (source.labels >= 0) & (says != source.labels))
    if not len(rows):
        return []
    first = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
    words = f"{len(rows):,} labels are not what the metadata's center_tumor_patch says: rows {first}"
    return [Finding("bad_label", "warning", source.name, None, words)]


def _meta(source: Source, column: str, findings: list[Finding]) -> NDArray[np.str_] | None:
    """(N,) a column of a split's metadata; None where there is none, or it cannot be used, which goes to `findings`."""
    if source.meta is None:
        return None
    try:
        if column not in meta_columns(source.meta):
            if not source.meta.stat().st_size:
                raise DataError(f"{source.meta.name} is empty")
            if source.store is None and not set(META_COLUMNS) & set(meta_columns(source.meta)):
                raise DataError(
                    f"{source.meta.name} has none of the columns {', '.join(META_COLUMNS)}: damaged, something else, or not "
                    "separated by commas"
                )
            return None
        return read_column(source.meta, column, source.n, source.name)
    except DataError as e:
        kind: Kind = "length_mismatch" if " rows" in e.problem else "truncated_file"
        findings.append(Finding(kind, "error", source.name, None, e.problem))
        return None


def overlap_findings(column: str, groups: dict[str, NDArray[np.str_]]) -> list[Finding]:
    """Finding group_overlap, one for each group with patches in several splits, most patches first. Empty names are no group."""
    counts: dict[str, dict[str, int]] = {}
    for split, values in groups.items():
        for group, n in Counter(values.tolist()).items():
            if group:
                counts.setdefault(group, {})[split] = n
    crossing = [(group, per) for group, per in counts.items() if len(per) > 1]
    found = []
    for group, per in sorted(crossing, key=lambda item: (-sum(item[1].values()), item[0])):
        split, other = list(per)[:2]
        words = ", ".join(f"{n:,} in {name}" for name, n in per.items())
        detail = f"{column} {group}: {words} patches"
        found.append(Finding("group_overlap", "error", split, None, detail, {"split": other, "index": None}))
    return found
