"""A finding: one fault seen in the data, with where it is and what it means in words."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

__all__ = ["Finding", "Kind", "Severity", "has_errors", "is_finding", "quarantine_reasons"]

Kind = Literal[
    "nan",
    "infinite",
    "out_of_range",
    "non_integer",
    "blackout",
    "washout",
    "duplicate",
    "duplicate_dihedral",
    "near_duplicate",
    "label_conflict",
    "cross_split_duplicate",
    "group_overlap",
    "class_imbalance",
    "dtype_bloat",
    "wrong_shape",
    "length_mismatch",
    "bad_label",
    "outlier",
    "truncated_file",
    "checksum_mismatch",
    "split_swapped",
    "label_suspect",
]
Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One audited fault. `index` is the patch's row in its split; None where the finding is about the whole split."""

    kind: Kind
    severity: Severity
    split: str
    index: int | None
    detail: str
    other: dict[str, Any] | None = None
    """The other patch of a pair: {"split": ..., "index": ...}."""

    def as_json(self) -> dict[str, Any]:
        """The finding as the JSON object of DESIGN's `data audit`."""
        return asdict(self)


_FIELDS = frozenset(Finding.__dataclass_fields__)


def is_finding(value: Any, sizes: Mapping[str, int]) -> bool:
    """Whether a JSON value is a finding about splits of these sizes, fit for `Finding(**value)`."""
    if not isinstance(value, dict) or not {"kind", "severity", "split", "index", "detail"} <= set(value) <= _FIELDS:
        return False
    other = value.get("other")
    places = [(value["split"], value["index"])]
    if other is not None:
        if not isinstance(other, dict) or set(other) != {"split", "index"}:
            return False
        places.append((other["split"], other["index"]))
    for split, index in places:
        if not isinstance(split, str):
            return False
        if index is not None and (type(index) is not int or not 0 <= index < sizes.get(split, 0)):
            return False
    return (
        value["kind"] in get_args(Kind) and value["severity"] in get_args(Severity) and isinstance(value["detail"], str)
    )


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether any finding is of severity error: then a command that made them exits with 1."""
    return any(finding.severity == "error" for finding in findings)


def quarantine_reasons(findings: Iterable[Finding]) -> dict[tuple[str, int], list[str]]:
    """{(split, index): kinds} of every patch with a finding of severity error, in the findings' order.

    Of a label_conflict both patches: nothing says which of the two labels is wrong.
    """
    reasons: dict[tuple[str, int], list[str]] = {}
    for finding in findings:
        if finding.severity != "error" or finding.index is None:
            continue
        places = [(finding.split, finding.index)]
        if finding.kind == "label_conflict" and finding.other:
            places.append((finding.other["split"], finding.other["index"]))
        for place in places:
            kinds = reasons.setdefault(place, [])
            if finding.kind not in kinds:
                kinds.append(finding.kind)
    return reasons
