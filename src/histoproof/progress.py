"""Progress bars: on stderr, and only on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Report", "bar"]

Report = Callable[..., None]
"""Called with (done, total) or (done, total, a few words)."""


@contextmanager
def bar(what: str, *, in_bytes: bool = False) -> Iterator[Report | None]:
    """A bar to hand to a long function as `progress`; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)

        def report(done: int, total: int, words: str = "") -> None:
            progress.update(task, completed=done, total=total, description=f"{what}  {words}" if words else what)

        yield report
