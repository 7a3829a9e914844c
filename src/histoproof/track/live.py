"""Tracking while training: a process beside it reads metrics.jsonl and copies. The loop never waits for it, nor knows of it.

Whatever goes wrong with the tracker is a warning in events.jsonl: the run is whole on disk, and `histoproof track` completes the
copy.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from ..errors import HistoproofError
from ..files import JsonLines
from ..provenance import now
from ..runs import Run, locked
from . import To, check, destination
from .follow import schedule
from .mlflow import without_password

__all__ = ["Live"]

_WAIT_S, _WAIT_STOPPED_S = 60.0, 10.0


class Live:
    """Tracks each run that is trained within `watch`; `reports` says how that went.

    `wait_s`: how long the end of training waits for the last of the copying; a run that was stopped waits 10 s at most, since who
    stopped it may not wait longer. Raises, at once, what `check` raises.
    """

    def __init__(
        self, to: To, uri: str | None = None, experiment: str = "histoproof", *, wait_s: float = _WAIT_S
    ) -> None:
        check(to, uri)
        self.to, self.uri, self.experiment, self.wait_s = to, uri, experiment, wait_s
        self.reports: list[dict[str, Any]] = []
        """A dict for each run: "run", "uri", "ok", "id" (None if it is not known), "warning" (None if all went well)."""

    @contextmanager
    def watch(self, path: Path) -> Iterator[None]:
        """Copy what the run `path` writes, while this is entered and to its end. Raises nothing of its own."""
        run = Run(path)
        uri = destination(self.to, self.uri, [path])
        order = {"run": str(path.absolute()), "to": self.to, "uri": uri, "experiment": self.experiment}
        with TemporaryFile() as errors:
            process = self._start(order, errors)
            try:
                yield
            finally:
                said, problem = self._end(process, errors, self.wait_s if run.finished else _WAIT_STOPPED_S)
                self._report(run, uri, said, problem)

    def _start(self, order: dict[str, Any], errors: IO[bytes]) -> "subprocess.Popen[bytes] | OSError":
        command = [sys.executable, "-m", "histoproof.track.follow"]
        try:  # a session of its own: Ctrl-C asks training to stop, and this to copy what training then still writes
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
            schedule(process.pid, "SCHED_IDLE")  # the loop has the right of way, from the first import on
            assert process.stdin is not None
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except OSError as e:
            return e
        return process

    def _end(
        self, process: "subprocess.Popen[bytes] | OSError", errors: IO[bytes], wait_s: float
    ) -> tuple[dict[str, Any], str | None]:
        """Close its standard input, which says that training ended; (what it said, what went wrong)."""
        if isinstance(process, OSError):
            return {}, f"it could not be started: {process}"
        schedule(process.pid, "SCHED_OTHER")  # nobody is in its way any more
        try:
            out, _ = process.communicate(timeout=wait_s)
        except subprocess.TimeoutExpired:
            return {}, f"it was not done {wait_s:g} s after training"
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
        try:
            said = dict(json.loads(out))
        except ValueError:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:] or [
                f"exit code {process.returncode}"
            ]
            return {}, f"it ended before its time: {last[0]}"
        return said, said["problem"]

    def _report(self, run: Run, uri: str, said: dict[str, Any], problem: str | None) -> None:
        shown = without_password(uri)
        given = f" --uri {shown}" if self.uri else ""
        named = "" if self.experiment == "histoproof" else f" --experiment {self.experiment}"
        command = f"histoproof track {run.path} --to {self.to}{given}{named}"
        warning = (
            problem and f"tracking to {self.to}: {problem}. The run is whole on disk; complete its copy with: {command}"
        )
        self.reports.append(
            {"run": str(run.path), "uri": shown, "ok": problem is None, "id": said.get("id"), "warning": warning}
        )
        if warning:
            with suppress(HistoproofError, OSError), locked(run.path):
                events = JsonLines(run.events)
                events.append({"event": "warning", "time": now(), "text": warning})
                events.close()
