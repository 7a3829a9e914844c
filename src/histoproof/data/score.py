"""How well an audit sees: its findings held against the truth of a poisoned copy.

Copies are compared as groups: if a is a copy of b, and b of c, then so is a of c, whichever pairs truth and audit name.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from .findings import Kind
from .truth import BLANK, EXACT, PAIRS, Copies, Groups, Pair, Truth, read_truth

__all__ = ["score"]

_BAD_VALUES = ("nan", "infinite", "out_of_range", "non_integer")
# What a planted fault may rightly be called besides its own name: then a finding is neither found nor false.
_ALSO: dict[str, tuple[str, ...]] = {
    "outlier": (*BLANK, *_BAD_VALUES),
    "label_suspect": (*BLANK, *_BAD_VALUES, "label_conflict", "bad_label", "outlier"),
}
_ALSO_SPLIT: dict[str, tuple[str, ...]] = {
    "dtype_bloat": _BAD_VALUES,
    "length_mismatch": ("truncated_file",),
    "checksum_mismatch": tuple(get_args(Kind)),
}
_SHOWN = 20


def score(
    truth: Path | Sequence[Truth], findings: Iterable[Mapping[str, Any]], *, known: Iterable[Mapping[str, Any]] = ()
) -> dict[str, dict[str, Any]]:
    """Precision and recall of each kind that was planted or found, in the order of the finding kinds.

    `truth` is a truth.csv; `findings` are the audit's, as JSON dicts (kind, split, index, other); `known` what the audit finds
    in the source before it is poisoned, which counts as neither found nor false. Returns {kind: {"n_planted", "found",
    "false", "precision", "recall", "missed", "wrong"}}: `found` of the planted ones, `false` findings that truth does not
    bear out, precision = right findings / all, recall = found / planted; None where that is 0 / 0. `missed` and `wrong`
    name the first 20 of each. Pair kinds count pairs, each patch against the first of its group.
    """
    planted = read_truth(truth) if isinstance(truth, Path) else list(truth)
    before = {_identity(finding) for finding in known}
    reported = [finding for finding in findings if _identity(finding) not in before]
    copies = Copies(planted)
    out = {}
    for kind in get_args(Kind):
        mine = [finding for finding in reported if finding["kind"] == kind]
        row = _score_pairs(kind, copies, mine, reported) if kind in PAIRS else _score_places(kind, planted, mine)
        if row["n_planted"] or row["found"] or row["false"]:
            out[kind] = row
    return out


def _score_pairs(
    kind: str, copies: Copies, mine: list[Mapping[str, Any]], reported: list[Mapping[str, Any]]
) -> dict[str, Any]:
    right, wrong = 0, []
    for finding in mine:
        pair = _pair(finding)
        verdict = copies.bears_out(kind, *pair) if pair else False
        right += verdict is True
        if verdict is False:
            wrong.append(_place(finding))
    # A planted pair is found if the findings join it: by this kind, or by this kind and those that say no less.
    joining = {"near_duplicate": PAIRS, "duplicate_dihedral": PAIRS[:4], "label_conflict": PAIRS[:4]}.get(kind, EXACT)
    seen, touched = Groups(), set()
    for finding in reported:
        if finding["kind"] in joining and (pair := _pair(finding)):
            seen.join(*pair)
    for finding in mine:
        if pair := _pair(finding):
            touched.add(seen.find(pair[0])[0])
    expected = copies.expected(kind)
    missed = [[list(a), list(b)] for a, b in expected if not (seen.same(a, b) and seen.find(a)[0] in touched)]
    return _row(len(expected), len(expected) - len(missed), right, wrong, missed)


def _score_places(kind: str, planted: Sequence[Truth], mine: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Faults of single patches by (split, index), of whole splits and files by split."""
    wanted = {(row.split, row.index) for row in planted if row.kind == kind}
    if kind == "group_overlap":  # either split may be named
        wanted = {(split, None) for split in sorted({row.split for row in planted if row.kind == kind})}
        others = {row.other_split: row.split for row in planted if row.kind == kind and row.other_split}
    else:
        others = {}
    open_patches = {(row.split, row.index) for row in planted if row.kind in _ALSO.get(kind, ())}
    open_splits = {row.split for row in planted if row.kind in _ALSO_SPLIT.get(kind, ())}
    found, right, wrong = set(), 0, []
    for finding in mine:
        index = None if kind == "group_overlap" else finding["index"]
        split = (
            finding["split"] if (finding["split"], index) in wanted else others.get(finding["split"], finding["split"])
        )
        place = (split, index)
        if place in wanted:
            found.add(place)
            right += 1
        elif place not in open_patches and not (index is None and split in open_splits):
            wrong.append(_place(finding))
    missed = [[split, index] for split, index in sorted(wanted - found, key=lambda p: (p[0], p[1] or 0))]
    return _row(len(wanted), len(found), right, wrong, missed)


def _row(planted: int, found: int, right: int, wrong: list[Any], missed: list[Any]) -> dict[str, Any]:
    return {
        "n_planted": planted,
        "found": found,
        "false": len(wrong),
        "precision": right / (right + len(wrong)) if right + len(wrong) else None,
        "recall": found / planted if planted else None,
        "missed": missed[:_SHOWN],
        "wrong": wrong[:_SHOWN],
    }


def _pair(finding: Mapping[str, Any]) -> Pair | None:
    other = finding.get("other")
    if finding["index"] is None or not other or other.get("index") is None:
        return None
    return (finding["split"], finding["index"]), (other["split"], other["index"])


def _place(finding: Mapping[str, Any]) -> list[Any]:
    other = finding.get("other")
    place = [finding["split"], finding["index"]]
    return [place, [other["split"], other["index"]]] if other else place


_Identity = tuple[str, frozenset[tuple[str, int | None]]]


def _identity(finding: Mapping[str, Any]) -> _Identity:
    other = finding.get("other")
    places = [finding, other] if other else [finding]
    return finding["kind"], frozenset((place["split"], place["index"]) for place in places)
