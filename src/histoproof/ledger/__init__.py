"""The ledger: who opened the test split, when, with what, why. One hash-chained JSON line an opening, beside the store.

    STORE.ledger.jsonl        the lines; each holds its `number` and `chain`, the link over itself and all lines before it
    STORE.ledger.head.json    the witness: how many lines there are, and the last link

The chain shows what was edited, removed or moved between lines; the witness, and the `ledger` entry of every
evaluations/test.json, show what was cut from the end. docs/champion.md says what none of them can show.
"""

import getpass
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, OutputError, RunError, SealedError
from ..files import JsonLines, sync_folder, write_json
from ..provenance import command_line, now
from ..runs import chained, locked
from .chain import (
    Problem,
    Witness,
    last_link,
    own_witness,
    parsed,
    path_of,
    problems_of,
    read,
    without_witness,
    witness_of,
    witnesses_in,
)

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


def openings(store: Path) -> list[dict[str, Any]]:
    """Every opening so far, oldest first. Raises RunError naming the first line that does not hold."""
    content = read(path_of(store))
    _refuse(problems_of(content, own_witness(store)[0]))
    return [json.loads(line) for line in content.lines]


def verify(store: Path, witnesses: Sequence[Witness] = ()) -> list[Problem]:
    """What is wrong with a store's ledger, by line; empty: it holds. `witnesses` are asked beside the ledger's own.

    Writes nothing, and may be called while an opening is being written down.
    """
    own, damaged = own_witness(store)  # before the ledger: it may grow meanwhile, and then is longer than its witness
    content = read(path_of(store))
    return problems_of(content, own, *witnesses) + without_witness(content, store, damaged)


def notes(store: Path) -> list[str]:
    """What is worth knowing of a ledger and no sign of tampering: a process was killed while it wrote."""
    own, _ = own_witness(store)
    content, found = read(path_of(store)), []
    known = own.number if own else 0
    if content.torn and known <= len(content.lines):
        found.append(
            f"{content.path} ends in {len(content.torn)} bytes of a line that was never finished: a process was killed, "
            "or the disk was full, before it could open the test split. Nothing was read then; the next opening clears it away"
        )
    last = parsed(content.lines[-1]) if content.lines else None
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
    known = [parsed(line) for line in read(path).lines]
    return {
        "store": str(store),
        "ledger": str(path),
        "count": len(known),
        "openings": [{**(line or {}), "number": at} for at, line in enumerate(known, start=1)],
        "ok": not problems,
        "problems": [{"line": p.line, "problem": str(p)} for p in problems],
        "notes": notes(store),
        "witnesses": len(witnesses) + (own_witness(store)[0] is not None),
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
        own, damaged = own_witness(store)
        content = read(path)
        _refuse(problems_of(content, own, *witnesses) + without_witness(content, store, damaged))
        number, link = len(content.lines) + 1, last_link(content)
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


def _refuse(problems: list[Problem]) -> None:
    if problems:
        more = "" if len(problems) == 1 else f" (and {len(problems) - 1} more: see `histoproof ledger STORE`)"
        raise RunError(f"{problems[0]}{more}", next=_RESTORE)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        return "unknown"
