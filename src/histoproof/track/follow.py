"""The process beside training (see `live`): an order on the first line of standard input, and its end when training has ended.

Prints one JSON document at the end: {"id", "problem"}.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import HistoproofError
from ..runs import Run, is_locked
from . import sync

__all__ = ["follow", "schedule"]

_EVERY_S, _LONGEST_S = 5.0, 60.0


def follow(order: dict[str, Any], ended: threading.Event, *, every_s: float = _EVERY_S) -> dict[str, Any]:
    """Copy what the run writes until `ended` is set, then once more, whole.

    A tracker that does not answer is asked again, less and less often; what it missed comes later. Returns {"id", "problem"}:
    what was wrong with the last copying, None if it went well.
    """
    run = Run(Path(order["run"]))
    pause = every_s
    said: dict[str, Any] = {"id": None, "problem": None}
    while True:
        last = ended.wait(pause)
        if last:
            schedule(os.getpid(), "SCHED_OTHER")  # nobody is in the way any more
            _until_unlocked(run)
        try:
            report = sync(run, order["to"], order["uri"], order["experiment"], whole=last)
            said, pause = {"id": report["id"], "problem": None}, every_s
        except HistoproofError as e:
            said, pause = {"id": said["id"], "problem": e.problem}, min(2 * pause, _LONGEST_S)
        if last:
            return said


def schedule(pid: int, policy: str) -> None:
    """Put every thread of a process under a scheduling policy, where the system has such a thing."""
    with suppress(OSError, AttributeError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(thread.name), getattr(os, policy), os.sched_param(0))


def _until_unlocked(run: Run) -> None:
    """A killed training's pipe may close a moment before its lock does; a lock that stays is that of another training."""
    give_up = time.monotonic() + 2
    while is_locked(run.path) and time.monotonic() < give_up:
        time.sleep(0.05)


def _main() -> None:
    order = json.loads(sys.stdin.readline())
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    print(json.dumps(follow(order, ended)))  # noqa: T201


if __name__ == "__main__":
    _main()
