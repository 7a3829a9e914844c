"""What audit.json holds, as the journal needs it: typed, so that a damaged file is refused before a page is begun."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ...data.findings import Kind, Severity
from ...errors import DataError
from ...files import read_json

__all__ = ["Audited", "Check", "Found", "Place", "read_audited"]

_Count = Annotated[int, Field(ge=0)]
_Some = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class Place:
    """The other patch of a pair, or another split."""

    split: str
    index: int | None


@dataclass(frozen=True)
class Found:
    """A finding."""

    kind: Kind
    severity: Severity
    split: str
    index: int | None
    detail: str
    other: Place | None


@dataclass(frozen=True)
class SplitFacts:
    """A split's counts and layout."""

    n: _Some
    positive: _Count | None
    dtype: str
    bytes: _Count
    chunks: list[int] | None
    filters: list[str]
    quarantined: _Count | None
    groups: dict[str, _Count]


@dataclass(frozen=True)
class FileFacts:
    """One of the audited files."""

    name: str
    bytes: _Count
    md5: str | None
    words: Annotated[str, Field(alias="is")]


@dataclass(frozen=True)
class Cause:
    """Bytes and where they come from; negative where something saves them."""

    cause: str
    bytes: int


@dataclass(frozen=True)
class Gzip:
    """What gzip would leave; None where the patches could not be read."""

    level: int
    n: _Count
    ratio: float | None
    bytes: _Count | None
    missing: int | None


@dataclass(frozen=True)
class SplitSize:
    """A split's bytes, cause by cause."""

    bytes: _Count
    as_uint8: _Some
    factor: float
    rows: list[Cause]
    gzip: Gzip


@dataclass(frozen=True)
class Size:
    """All bytes, cause by cause."""

    bytes: _Count
    as_uint8: _Some
    factor: float
    rows: list[Cause]
    splits: dict[str, SplitSize]


@dataclass(frozen=True)
class Check:
    """One thing that was looked for, or was not; `rule` says how, or why not."""

    what: str
    done: bool
    rule: str


@dataclass(frozen=True)
class Options:
    """What the audit was asked."""

    groups: str | None
    near: bool
    labels: bool
    checksums: bool | None


@dataclass(frozen=True)
class Audited:
    """audit.json."""

    folder: str
    kind: Literal["official files", "store"]
    options: Options
    splits: dict[str, SplitFacts]
    findings: list[Found]
    files: list[FileFacts]
    size: Size
    checks: list[Check]
    errors: bool

    def contradictions(self) -> Iterable[str]:
        """Where it contradicts itself, in words."""
        if self.errors != any(finding.severity == "error" for finding in self.findings):
            yield "`errors` is not what its findings say"
        for name, size in self.size.splits.items():
            if sum(row.bytes for row in size.rows) != size.bytes:
                yield f"the causes of the size of {name} do not add up to its bytes"
        if sum(row.bytes for row in self.size.rows) != self.size.bytes:
            yield "the causes of the size do not add up to the bytes"
        if sum(size.bytes for size in self.size.splits.values()) != self.size.bytes:
            yield "the sizes of the splits do not add up to the bytes"
        if abs(self.size.factor - self.size.bytes / self.size.as_uint8) > 1e-9:
            yield "the factor is not what the bytes give"


def read_audited(path: Path) -> Audited:
    """Read an audit.json. Raises DataError, with the first places that are wrong, for one that is damaged."""
    read_json(path)  # says it better where it is no JSON at all
    try:
        return TypeAdapter(Audited).validate_json(path.read_bytes(), strict=True)
    except ValidationError as e:
        places = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in e.errors()[:3])
        raise DataError(f"{path} is damaged: {places}", next="audit again, with `histoproof data audit`") from None
