"""The ledger: who opened the test split, when, with what, why. One hash-chained JSON line an opening, beside the store.

    STORE.ledger.jsonl        the lines; each holds its `number` and `chain`, the link over itself and all lines before it
    STORE.ledger.head.json    the witness: how many lines there are, and the last link

The chain shows what was edited, removed or moved between lines; the witness, and the `ledger` entry of every
evaluations/test.json, show what was cut from the end. docs/champion.md says what none of them can show.
"""

import getpass
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError, HistoproofError, OutputError, RunError, SealedError
from .files import JsonLines, canonical, read_json, sync_folder, write_json
from .provenance import command_line, now
from .runs import GENESIS, chained, locked

__all__ = [
    "Problem",
    "Witness",
    "in_words",
    "ledger",
    "notes",
    "open_test",
    "openings",
    "path_of",
    "verify",
    "witness_of",
    "witnesses_in",
]

_WAIT_S = 60.0
"""How long an opening waits for another to be written down."""
_RESTORE = (
    "put its own copy back (a backup); if there is none, keep what is left for the record: "
    "no score of the test split can be shown to be the first look any more"
)


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
class _Content:
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


def openings(store: Path) -> list[dict[str, Any]]:
    """Every opening so far, oldest first. Raises RunError naming the first line that does not hold."""
    content = _read(path_of(store))
    _refuse(_problems(content, _own_witness(store)[0]))
    return [json.loads(line) for line in content.lines]


def verify(store: Path, witnesses: Sequence[Witness] = ()) -> list[Problem]:
    """What is wrong with a store's ledger, by line; empty: it holds. `witnesses` are asked beside the ledger's own.

    Writes nothing, and may be called while an opening is being written down.
    """
    own, damaged = _own_witness(store)  # before the ledger: it may grow meanwhile, and then is longer than its witness
    content = _read(path_of(store))
    return _problems(content, own, *witnesses) + _without_witness(content, store, damaged)


def notes(store: Path) -> list[str]:
    """What is worth knowing of a ledger and no sign of tampering: a process was killed while it wrote."""
    own, _ = _own_witness(store)
    content, found = _read(path_of(store)), []
    known = own.number if own else 0
    if content.torn and known <= len(content.lines):
        found.append(
            f"{content.path} ends in {len(content.torn)} bytes of a line that was never finished: a process was killed, "
            "or the disk was full, before it could open the test split. Nothing was read then; the next opening clears it away"
        )
    last = _parsed(content.lines[-1]) if content.lines else None
    if last and "number" in last and known < len(content.lines):
        found.append(
            f"{witness_of(store)} knows of {known} lines, and there are {len(content.lines)}: a process was killed between "
            "writing the two, or one is being written now. The next opening puts it right"
        )
    return found


def ledger(store: Path, paths: Sequence[Path] = ()) -> dict[str, Any]:
    """Every opening of a store's test split, and whether the ledger holds.

    `paths` are folders of runs or champions, or folders of those at any depth: each evaluations/test.json in them bears
    witness. Returns {"store", "ledger", "count", "openings": [{"number", "opened", "by", "reason", "command", "run",
    "weights_sha256", "champion_sha256" where it was a frozen champion, ...}...], "ok", "problems": [{"line", "problem"}...],
    "notes", "witnesses" (how many were asked)}. Raises DataError where there is neither a store nor a ledger.
    """
    path = path_of(store)
    if not any(place.is_file() for place in (store / "manifest.json", path, witness_of(store))):
        raise DataError(
            f"{store} is no store, and has no ledger beside it",
            valid="a folder made by `histoproof data pack`",
            next=f"its ledger would be {path}",
        )
    for folder in paths:
        if not folder.is_dir():
            raise DataError(f"no such folder: {folder}", valid="folders of runs and champions")
    files = sorted(file for folder in paths for file in folder.rglob("evaluations/test.json"))
    witnesses = witnesses_in(store, files)
    problems = verify(store, witnesses)
    known = [_parsed(line) for line in _read(path).lines]
    return {
        "store": str(store),
        "ledger": str(path),
        "count": len(known),
        "openings": [{**(line or {}), "number": at} for at, line in enumerate(known, start=1)],
        "ok": not problems,
        "problems": [{"line": p.line, "problem": str(p)} for p in problems],
        "notes": notes(store),
        "witnesses": len(witnesses) + (_own_witness(store)[0] is not None),
    }


def in_words(result: dict[str, Any]) -> list[str]:
    """What `ledger` returned, as lines."""
    count = result["count"]
    times = "once" if count == 1 else f"{count} times"
    lines = [f"the test split of {result['store']} was opened {times} ({result['ledger']})"]
    for line in result["openings"]:
        who = f"champion {line['champion_sha256'][:12]}" if "champion_sha256" in line else "no champion"
        part = f", partition {line['partition']}" if "partition" in line else ""
        lines.append(
            f"  {line['number']}. {line.get('opened')} by {line.get('by')}: {line.get('reason')!r}, {line.get('run')} "
            f"({who}, weights {str(line.get('weights_sha256'))[:12]}{part})"
        )
    lines += [f"note: {note}" for note in result["notes"]]
    if result["ok"]:
        asked = result["witnesses"]
        return [*lines, f"the chain holds; {asked} witness{'' if asked == 1 else 'es'} asked"]
    return [*lines, *(f"does not hold: {problem['problem']}" for problem in result["problems"])]


def open_test(store: Path, reason: str | None, *, witnesses: Sequence[Witness] = (), **what: str) -> dict[str, Any]:
    """Write down that the test split is opened now; returns the line, once it is safe on the disk.

    Openings at the same time wait for one another. Raises SealedError without a reason, RunError where the ledger does not
    hold (then nothing is opened), OutputError where it cannot be written.
    """
    if reason is None or not reason.strip():
        raise SealedError(
            "the test split is sealed: looking at it while choosing a model makes its score worthless",
            valid="--split valid while you choose",
            next="once you have chosen: freeze it with `histoproof champion STUDY`, and evaluate that with --split test; "
            'or open it for this run with --open-test "why it may be opened now". Either is written into the ledger',
        )
    path = path_of(store)
    try:
        return _opened(store, path, reason.strip(), witnesses, what)
    except OutputError as e:
        raise OutputError(
            e.problem,
            next=f"what cannot be written down is not opened: make {path.parent} writable, or copy the store and its ledger",
        ) from e


def _opened(store: Path, path: Path, reason: str, witnesses: Sequence[Witness], what: dict[str, str]) -> dict[str, Any]:
    with locked(path, wait_s=_WAIT_S):
        own, damaged = _own_witness(store)
        content = _read(path)
        _refuse(_problems(content, own, *witnesses) + _without_witness(content, store, damaged))
        number, link = len(content.lines) + 1, _last_link(content)
        if content.lines and (own is None or own.number < len(content.lines)):
            write_json(witness_of(store), {"lines": len(content.lines), "chain": link})
        line = {"number": number, "opened": now(), "by": _user(), "reason": reason, "command": command_line()}
        line |= what | ({"after_torn_bytes": len(content.torn)} if content.torn else {})
        line["chain"] = chained(link, line)
        file = JsonLines(path)  # cuts a torn line
        try:
            file.append(line)
            file.sync()
        finally:
            file.close()
        sync_folder(path.parent)
        write_json(witness_of(store), {"lines": number, "chain": line["chain"]})
    return line


def witnesses_in(store: Path, evaluations: Sequence[Path]) -> list[Witness]:
    """What evaluations/test.json files say of this store's ledger; those of other patches, and without a word of it, are left
    out. A copy of the store elsewhere has a ledger of its own, and what was opened there is missing here: it is asked too."""
    try:
        content = read_json(store / "manifest.json")["content_sha256"]
    except (HistoproofError, KeyError, TypeError):
        content = None
    found = []
    for file in evaluations:
        try:
            said = read_json(file)
            same = said["store_sha256"] == content if content else said["ledger"]["path"] == str(path_of(store))
            if same and said.get("ledger"):
                found.append(Witness(file, int(said["ledger"]["line"]), str(said["ledger"]["chain"])))
        except (HistoproofError, AttributeError, KeyError, TypeError, ValueError):
            continue
    return found


def _own_witness(store: Path) -> tuple[Witness | None, Problem | None]:
    """The witness beside the ledger, and what is wrong where it is there and cannot be read."""
    path = witness_of(store)
    if not path.exists():
        return None, None
    try:
        said = read_json(path)
        return Witness(path, int(said["lines"]), str(said["chain"])), None
    except (HistoproofError, KeyError, TypeError, ValueError):
        return None, Problem(path, None, "the ledger's witness is damaged: it says no number of lines and no link")


def _read(path: Path) -> _Content:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raw = b""
    except OSError as e:
        raise DataError(f"the ledger {path} cannot be read: {e.strerror or e}") from None
    *lines, torn = raw.split(b"\n")
    return _Content(path, lines, torn)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line as JSON; None if it is none, or not written as we write it."""
    try:
        found = json.loads(line)
        return found if isinstance(found, dict) and canonical(found).encode() == line else None
    except (UnicodeError, ValueError):
        return None


def _problems(content: _Content, *witnesses: Witness | None) -> list[Problem]:
    """Every line that does not fit what stands before it, and what witnesses know that is no longer there."""
    problems: list[Problem] = []
    links = [GENESIS]
    """After line k: its own link as it stands there, by which the next line is judged."""
    for at, raw in enumerate(content.lines, start=1):
        line = _parsed(raw)
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


def _link_alone_changed(content: _Content, at: int, expected: str) -> bool:
    """Whether the line after `at` follows the link that this line should have: then all but its link is as it was."""
    following = _parsed(content.lines[at]) if at < len(content.lines) else None
    if following is None:
        return False
    given = following.pop("chain", None)
    return bool(given == chained(expected, following))


def _missing(content: _Content, links: list[str], witness: Witness | None) -> list[Problem]:
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


def _without_witness(content: _Content, store: Path, damaged: Problem | None) -> list[Problem]:
    """A witness that is damaged, or gone: from its second line on, a ledger always has one (older ones have no numbers)."""
    if damaged is not None:
        return [damaged]
    last, path = _parsed(content.lines[-1]) if content.lines else None, witness_of(store)
    number = last.get("number", 0) if last else 0
    if isinstance(number, int) and number > 1 and not path.exists():
        return [Problem(path, None, "the ledger's witness was removed: lines cut from the ledger's end would not show")]
    return []


def _last_link(content: _Content) -> str:
    last = _parsed(content.lines[-1]) if content.lines else None
    return str(last["chain"]) if last else GENESIS


def _refuse(problems: list[Problem]) -> None:
    if problems:
        more = "" if len(problems) == 1 else f" (and {len(problems) - 1} more: see `histoproof ledger STORE`)"
        raise RunError(f"{problems[0]}{more}", next=_RESTORE)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        return "unknown"
