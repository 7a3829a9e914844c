"""Ask a server for the rest of a file, and tell what is worth another try from what is not.

HTTP only, by the standard library: proxies as urllib takes them from the environment. What the bytes are worth is for the caller.
"""

import email.utils
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO, Any

from ... import __version__
from ...errors import DataError

__all__ = ["PATIENCE", "Patience", "Reply", "Server", "TransferError"]

_CHUNK = 1 << 18
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
"""Refusals of the 4xx kind that pass by themselves; so do all of 5xx."""
_FIRST_TRIES = 3
"""Tries before a server has answered for the first time: a wrong address should not cost minutes."""


@dataclass(frozen=True)
class Patience:
    """How long to wait, and how often to try. Every try that brings new bytes starts the count again."""

    timeout_s: float = 30.0
    """Silence after which a connection counts as stalled."""
    tries: int = 8
    first_wait_s: float = 1.0
    """The wait after a first failure; doubled after each further one."""
    longest_wait_s: float = 60.0
    longest_retry_after_s: float = 300.0
    """What a server's Retry-After is cut to."""
    sleep: Callable[[float], None] = time.sleep

    def wait_s(self, failures: int, asked: float | None) -> float:
        """Seconds to wait after `failures` (>= 1) failures in a row; at least what the server `asked` for, within reason."""
        wait = min(self.first_wait_s * 2.0 ** min(failures - 1, 30), self.longest_wait_s)
        return max(wait, min(asked or 0.0, self.longest_retry_after_s))


PATIENCE = Patience()
"""Eight tries without progress, two minutes of waiting in all."""


class TransferError(Exception):
    """A failure that may pass: why, how long the server asks to wait, and whether what was kept is of no use to this server."""

    def __init__(self, why: str, *, retry_after_s: float | None = None, start_over: bool = False) -> None:
        self.why = why
        self.retry_after_s = retry_after_s
        self.start_over = start_over
        super().__init__(why)


@dataclass(frozen=True)
class Reply:
    """A server's answer: bytes of the file from `start` on."""

    start: int
    """0, or what was asked for."""
    total: int | None
    """Bytes of the whole file, where the server says so."""
    self_ending: bool
    """Whether the body's end can be told from a cut, without knowing `total` (chunked encoding)."""
    tag: str | None
    """A strong ETag."""
    content_type: str
    chunks: Iterator[bytes]
    """The body, each chunk as it comes, up to 256 KiB. Raises TransferError."""


class Server:
    """A base URL, and whether anybody answered there yet."""

    def __init__(self, base: str, patience: Patience, *, query: str = "") -> None:
        """Raises DataError unless `base` is an http(s) URL of a host and a path."""
        self.base = _checked(base)
        self.patience = patience
        self._query = query
        self._answered = False
        self._opener = urllib.request.build_opener(_HttpRedirects)

    @property
    def tries(self) -> int:
        """Failures in a row to put up with."""
        return self.patience.tries if self._answered else min(self.patience.tries, _FIRST_TRIES)

    def url(self, name: str) -> str:
        """Where the file `name` is."""
        return f"{self.base}/{name}{self._query}"

    @contextmanager
    def ask(self, name: str, have: int, tag: str | None = None) -> Iterator[Reply]:
        """Ask for `name` from byte `have` on; with `tag`, only if the file is still the one of that tag, else the whole.

        Raises TransferError where another try may help, DataError where it cannot.
        """
        url = self.url(name)
        request = urllib.request.Request(url, headers={"User-Agent": f"histoproof/{__version__}"})
        if have:
            request.add_header("Range", f"bytes={have}-")
            if tag:
                request.add_header("If-Range", tag)
        try:
            response = self._opener.open(request, timeout=self.patience.timeout_s)
        except urllib.error.HTTPError as e:
            with e:
                self._answered = True
                raise _refusal(e, url, asked_for_a_range=have > 0) from None
        except (OSError, http.client.HTTPException) as e:
            raise self._failure(e, url) from None
        with response:
            self._answered = True
            yield _reply(response, have)

    def _failure(self, error: Exception, url: str) -> Exception:
        """No answer at all."""
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return DataError(
                f"{url}: the server's certificate cannot be trusted: {reason.verify_message}",
                next="a proxy may stand in between: set SSL_CERT_FILE to your site's certificates, or use a mirror",
            )
        host = urllib.parse.urlsplit(url).hostname
        if isinstance(reason, socket.gaierror) and reason.errno != socket.EAI_AGAIN and not self._answered:
            return DataError(
                f"no such host: {host} ({reason.strerror})",
                next="check --source; on a machine without network, fetch on another and copy the folder",
            )
        return TransferError(_words(reason))


class _HttpRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects lead to http and https only; urllib alone would follow one to ftp."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme not in {"http", "https"}:
            fp.close()
            raise DataError(f"{req.full_url} redirects to {newurl}", valid="a redirect to http:// or https://")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _checked(base: str) -> str:
    """The URL without a slash at its end, or a DataError."""
    valid = "http://HOST/PATH or https://HOST/PATH, without user, query or fragment"
    advice = "give the address of the folder that holds the official files"
    try:
        parts = urllib.parse.urlsplit(base)
        host, _ = parts.hostname, parts.port
        base.encode("ascii")
        (host or "").encode("idna")  # labels that are empty or too long
    except ValueError as e:
        raise DataError(f"--source {base!r} is no usable address: {e}", valid=valid, next=advice) from None
    if "@" in parts.netloc:
        raise DataError("--source holds a user name or password", valid=valid, next=advice)
    if parts.scheme not in {"http", "https"} or not host or set(base) & set("?#"):
        raise DataError(f"--source {base!r} is no address of a web server", valid=valid, next=advice)
    if re.search(r"[\x00-\x20\x7f]", base):
        raise DataError(f"--source {base!r} holds blanks or control characters", valid=valid, next=advice)
    return base.rstrip("/")


def _refusal(error: urllib.error.HTTPError, url: str, *, asked_for_a_range: bool) -> Exception:
    """What a status of 3xx (not followed), 4xx or 5xx means."""
    words = f"{error.code} {error.reason}".strip()
    if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and asked_for_a_range:
        return TransferError("the server's file has no bytes after those kept", start_over=True)
    if error.code in _PASSING or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return TransferError(
            f"the server answered {words}", retry_after_s=_retry_after(error.headers.get("Retry-After"))
        )
    if error.code < HTTPStatus.BAD_REQUEST:
        where = error.headers.get("Location", "nowhere")
        return DataError(f"{url} redirects to {where}, which is not followed ({words})", next="check --source")
    absent = error.code in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
    return DataError(
        f"{url}: the server answered {words}",
        next="check that --source is the folder of the official files" if absent else "use another --source",
    )


def _reply(response: http.client.HTTPResponse, have: int) -> Reply:
    """What a status of 2xx brings."""
    tag = response.headers.get("ETag")
    start = 0
    total: int | None = None
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        given = re.fullmatch(r"\s*bytes\s+(\d+)-\d*/(\d+|\*)\s*", response.headers.get("Content-Range", ""), re.I)
        if given is None or int(given[1]) != have:
            raise TransferError("the server sent other bytes than those asked for", start_over=True)
        start, total = have, None if given[2] == "*" else int(given[2])
    elif response.status == HTTPStatus.OK:
        total = response.length
    else:
        raise TransferError(f"the server answered {response.status} {response.reason}")
    return Reply(
        start=start,
        total=total,
        self_ending=response.chunked,
        tag=tag if tag and not tag.startswith("W/") else None,
        content_type=response.headers.get_content_type(),
        chunks=_chunks(response),
    )


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """read1, because a read that waits for a full chunk loses what it had when the connection stalls."""
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as e:
            raise TransferError(_words(e)) from None
        if not chunk:
            return
        yield chunk


def _words(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "nothing came for too long"
    if isinstance(reason, http.client.IncompleteRead):
        return "the connection was cut"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror[0].lower() + reason.strerror[1:]
    return str(reason) or type(reason).__name__


def _retry_after(value: str | None) -> float | None:
    """Seconds, given as such or as a date; None where it is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError, OverflowError):
        return None
