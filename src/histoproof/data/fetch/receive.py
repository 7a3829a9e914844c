"""Receive one official file from a server, whatever comes between."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from ...errors import DataError, OutputError
from ...files import atomic_path
from .arrival import Arrival, DamageError, arriving
from .transfer import Reply, Server, TransferError
from .wanted import Wanted, not_it

__all__ = ["Say", "receive"]

_GZIP_MAGIC = b"\x1f\x8b"
_PAGES = {"text/html", "application/xhtml+xml"}
Say = Callable[..., None]
"""Called with (bytes of this file) or (bytes of this file, a few words)."""


def receive(out: Path, w: Wanted, server: Server, known: Mapping[str, str], report: Say) -> str:
    """One file, from its first byte to its name. Bytes that turn out wrong are thrown away, and fetched once more."""
    target, part = out / w.name, w.part(out)
    for last in (False, True):
        try:
            with atomic_path(target) as temporary:
                with arriving(part, temporary, gz=w.gz, limit=w.limit) as arrival:
                    arrival.replay(lambda have: report(have, "checking what is there"))
                    resumed = _ask_until_whole(arrival, w, server, report)
                    _verify(arrival, w, known)
                if target.exists() or target.is_symlink():
                    raise OutputError(f"{target} has come into being meanwhile: it is not overwritten")
        except DamageError as e:
            part.unlink(missing_ok=True)
            if last or e.final:
                raise DataError(
                    f"{server.url(w.remote)}: {e}" if e.final else f"{server.url(w.remote)} came damaged twice: {e}",
                    next="nothing of it was kept; use another --source"
                    if e.final
                    else "nothing of it was kept; try another network, or another --source",
                ) from None
        else:
            part.unlink(missing_ok=True)
            return "resumed" if resumed else "fetched"
    raise AssertionError


def _ask_until_whole(arrival: Arrival, w: Wanted, server: Server, report: Say) -> bool:
    """Ask until everything has come; True if it went on from bytes that were there."""
    if _whole(arrival, w):
        return True
    failures, furthest, resumed, tag = 0, arrival.have, False, None
    while True:
        try:
            with server.ask(w.remote, arrival.have, tag) as reply:
                chunks = _believable(reply, w, server)
                if reply.start != arrival.have:
                    arrival.restart()
                resumed, tag = reply.start > 0, reply.tag
                for chunk in chunks:
                    arrival.feed(chunk)
                    report(arrival.have)
                end = reply.total or w.size
                if end is not None and arrival.have < end and not reply.self_ending:
                    raise TransferError(f"the connection was cut after {arrival.have} of {end} bytes")
                return resumed
        except TransferError as e:
            failures = 1 if arrival.have > furthest else failures + 1
            furthest = max(furthest, arrival.have)
            if e.start_over:
                arrival.restart()
            if failures >= server.tries:
                raise _given_up(e, arrival, w, server) from None
            wait = server.patience.wait_s(failures, e.retry_after_s)
            report(arrival.have, f"{e.why}; trying again in {wait:.0f} s")
            server.patience.sleep(wait)


def _whole(arrival: Arrival, w: Wanted) -> bool:
    """Whether what is there already needs no server."""
    return arrival.have == w.size or (w.size is None and arrival.packed_md5 == w.packed_md5)


def _believable(reply: Reply, w: Wanted, server: Server) -> Iterator[bytes]:
    """The reply's chunks, once its headers and first bytes look like the file: a login page must not cost what was kept."""
    url = server.url(w.remote)
    first = next(reply.chunks, b"") if reply.start == 0 else b""
    page = first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    is_gzip = first[:2] == _GZIP_MAGIC[: len(first)]
    if page or (reply.content_type in _PAGES and not (first and w.gz and is_gzip)):
        raise DataError(
            f"{url} answered with a web page instead of the file",
            next="a login page or a proxy may stand in between: open the address in a browser, then fetch again",
        )
    if w.gz and not is_gzip:
        what = "an HDF5 file, unpacked already" if first.startswith(b"\x89HDF") else f"{first[:16]!r}"
        raise DataError(f"{url} answered with something that is not gzip: {what}", next="use another --source")
    if w.size is not None and reply.total is not None and reply.total not in {w.size, *w.sizes}:
        raise DataError(
            f"{url} has {reply.total} bytes, the official {w.what} has {w.size}",
            next="this source holds another file under that name: use another --source",
        )
    return chain([first] if first else [], reply.chunks)


def _verify(arrival: Arrival, w: Wanted, known: Mapping[str, str]) -> None:
    """Raises DamageError unless both checksums are the official ones."""
    packed = arrival.packed_md5
    if packed != w.packed_md5:
        raise DamageError(not_it(w, packed, known, w.packed_md5), final=packed in known)
    if (md5 := arrival.md5()) != w.md5:
        raise DamageError(f"unpacked, its md5 is {md5} instead of {w.md5}")


def _given_up(e: TransferError, arrival: Arrival, w: Wanted, server: Server) -> DataError:
    kept = f"{arrival.have} bytes are kept in {w.remote}.part" if arrival.have else "nothing had come"
    return DataError(
        f"{server.url(w.remote)}: {e.why}; given up after {server.tries} tries without progress, {kept}",
        next="the same command goes on from there"
        if arrival.have
        else "check --source and the network, then try again",
    )
