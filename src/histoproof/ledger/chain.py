"""The chain and its witnesses: what a ledger says on disk, and every way in which it does not hold."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, HistoproofError
from ..files import canonical, read_json
from ..runs import GENESIS, chained

__all__ = [
    "Content",
    "Problem",
    "Witness",
    "last_link",
    "own_witness",
    "parsed",
    "path_of",
    "problems_of",
    "read",
    "without_witness",
    "witness_of",
    "witnesses_in",
]


@dataclass(frozen=True)
class Problem:
    """Where a ledger does not hold."""

    path: Path
    line: int | None
    """From 1; None: the file as a whole."""
    text: str

    def __str__(self) -> str:
        return f"{self.path}{'' if self.line is None else f':{self.line}'}: {self.text}"


@dataclass(frozen=True)
class Witness:
    """A record made outside the ledger of how it stood: it had a line `number` (or more), which ended in `chain`."""

    path: Path
    """Where the record lies."""
    number: int
    chain: str


@dataclass(frozen=True)
class Content:
    """A ledger as it lies on disk."""

    path: Path
    lines: list[bytes]
    """Whole lines, without the newline."""
    torn: bytes
    """What follows the last newline: an opening was being written when its process was killed, or the end was cut."""


def path_of(store: Path) -> Path:
    """Where a store's ledger is: beside it, STORE.ledger.jsonl, so that packing again does not lose it.

    Beside the store itself, if `store` is a link to it: one store has one ledger, however many links lead there.
    """
    whole = store.resolve()
    return whole.with_name(f"{whole.name}.ledger.jsonl")


def witness_of(store: Path) -> Path:
    """Where the ledger's witness is: STORE.ledger.head.json."""
    return path_of(store).with_name(f"{store.resolve().name}.ledger.head.json")


def witnesses_in(store: Path, evaluations: Sequence[Path]) -> list[Witness]:
    """What evaluations/test.json files say of this store's ledger; those of other patches, and without a word of it, are left
    out, and those of a copy of the store whose own ledger is still there. Where that is gone, its openings are missing here."""
    try:
        content = read_json(store / "manifest.json")["content_sha256"]
    except (HistoproofError, KeyError, TypeError):
        content = None
    found = []
    for file in evaluations:
        try:
            said = read_json(file)
            same = said["store_sha256"] == content if content else said["ledger"]["path"] == str(path_of(store))
            elsewhere = Path(said["ledger"]["path"]) if said.get("ledger") else None
            if same and elsewhere is not None and (elsewhere.resolve() == path_of(store) or not elsewhere.is_file()):
                found.append(Witness(file, int(said["ledger"]["line"]), str(said["ledger"]["chain"])))
        except (HistoproofError, AttributeError, KeyError, TypeError, ValueError):
            continue
    return found


def own_witness(store: Path) -> tuple[Witness | None, Problem | None]:
    """The witness beside the ledger, and what is wrong where it is there and cannot be read."""
    path = witness_of(store)
    if not path.exists():
        return None, None
    try:
        said = read_json(path)
        return Witness(path, int(said["lines"]), str(said["chain"])), None
    except (HistoproofError, KeyError, TypeError, ValueError):
        return None, Problem(path, None, "the ledger's witness is damaged: it says no number of lines and no link")


def read(path: Path) -> Content:
    """A ledger's lines; none where there is no file. Raises DataError where it cannot be read."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raw = b""
    except OSError as e:
        raise DataError(f"the ledger {path} cannot be read: {e.strerror or e}") from None
    *lines, torn = raw.split(b"\n")
    return Content(path, lines, torn)


def parsed(line: bytes) -> dict[str, Any] | None:
    """A line as JSON; None if it is none, or not written as we write it."""
    try:
        found = json.loads(line)
        return found if isinstance(found, dict) and canonical(found).encode() == line else None
    except (UnicodeError, ValueError):
        return None


def problems_of(content: Content, *witnesses: Witness | None) -> list[Problem]:
    """Every line that does not fit what stands before it, and what witnesses know that is no longer there."""
    problems: list[Problem] = []
    links = [GENESIS]
    """After line k: its own link as it stands there, by which the next line is judged."""
    for at, raw in enumerate(content.lines, start=1):
        line = parsed(raw)
        if line is None:
            problems.append(Problem(content.path, at, "the line was changed: it is not as it was written"))
            links.append("")
            continue
        given, number = line.pop("chain", None), line.get("number", at)
        expected = chained(links[-1], line)
        if number != at:
            text = f"the line does not fit the chain: it is number {number}, so lines were removed, inserted or moved"
            problems.append(Problem(content.path, at, text))
        elif given != expected and links[-1] and not _link_alone_changed(content, at, expected):
            text = "the line does not fit the chain: it was changed, or the one before it written anew"
            if "number" not in line:  # of an older version: what was removed cannot be told from what was changed
                text = "the line does not fit the chain: it was changed, or one before it removed, inserted or moved"
            problems.append(Problem(content.path, at, text))
        elif given != expected and links[-1]:
            problems.append(Problem(content.path, at, "the line does not fit the chain: its link was changed"))
            given = expected
        links.append(str(given))
    for witness in witnesses:
        problems += _missing(content, links, witness)
    return list(dict.fromkeys(problems))


def _link_alone_changed(content: Content, at: int, expected: str) -> bool:
    """Whether the line after `at` follows the link that this line should have: then all but its link is as it was."""
    following = parsed(content.lines[at]) if at < len(content.lines) else None
    if following is None:
        return False
    given = following.pop("chain", None)
    return bool(given == chained(expected, following))


def _missing(content: Content, links: list[str], witness: Witness | None) -> list[Problem]:
    """What a witness knows and the ledger lacks."""
    if witness is None or witness.number < 1:
        return []
    have = len(content.lines)
    if have < witness.number:
        gone = (
            f"line {witness.number} is" if have == witness.number - 1 else f"lines {have + 1} to {witness.number} are"
        )
        text = f"{gone} missing: {witness.path} knows of {witness.number}, and there are {have}"
        return [Problem(content.path, have + 1, text)]
    if links[witness.number] not in ("", witness.chain):  # "": no line at all, which was told already
        text = f"the line is not the one that {witness.path} bears witness of: it, or one before it, was written anew"
        return [Problem(content.path, witness.number, text)]
    return []


def without_witness(content: Content, store: Path, damaged: Problem | None) -> list[Problem]:
    """A witness that is damaged, or gone: from its second line on, a ledger always has one (older ones have no numbers)."""
    if damaged is not None:
        return [damaged]
    last, path = parsed(content.lines[-1]) if content.lines else None, witness_of(store)
    number = last.get("number", 0) if last else 0
    if isinstance(number, int) and number > 1 and not path.exists():
        return [Problem(path, None, "the ledger's witness was removed: lines cut from the ledger's end would not show")]
    return []


def last_link(content: Content) -> str:
    """The link that the next line follows, of a ledger that holds."""
    last = parsed(content.lines[-1]) if content.lines else None
    return str(last["chain"]) if last else GENESIS
