"""Fetching, against a real server on this machine that cuts, stalls, corrupts, refuses, and answers with something else."""

import email.utils
import gzip
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from histoproof import __version__
from histoproof.cli import app
from histoproof.data.fetch import fetch
from histoproof.data.fetch.arrival import DamageError, Unpacker
from histoproof.data.fetch.transfer import Patience
from histoproof.data.fetch.wanted import unpacked_at_most
from histoproof.data.officials import COUNTS, META_MD5, OFFICIAL, ZENODO, OfficialFile
from histoproof.data.pcam import SPLITS, SplitName, find_splits, official_name
from histoproof.errors import DataError, HistoproofError, OutputError, RunError
from histoproof.runs import locked

Y = official_name("test", "y.h5")
X = official_name("test", "x.h5")
META = official_name("test", "meta.csv")
Fault = Callable[["_Handler", bytes, int], None]
"""Answers one request: (handler, the whole file, first byte asked for)."""


@dataclass
class Mirror:
    """A web server of files; `faults[name]` says how the next requests for a file are answered, in turn."""

    files: dict[str, bytes]
    url: str = ""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """(name, Range, If-Range) of each request."""
    agents: set[str | None] = field(default_factory=set)
    targets: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def asked(self, name: str) -> list[str | None]:
        return [wished for asked, wished, _ in self.requests if asked == name]


class _Handler(BaseHTTPRequestHandler):
    mirror: Mirror

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rsplit("/", 1)[-1]
        wished = self.headers.get("Range")
        self.mirror.requests.append((name, wished, self.headers.get("If-Range")))
        self.mirror.agents.add(self.headers.get("User-Agent"))
        self.mirror.targets.append(self.path)
        content = self.mirror.files.get(name)
        start = int(wished.removeprefix("bytes=").removesuffix("-")) if wished else 0
        faults = self.mirror.faults.get(name)
        try:
            if faults:
                faults.pop(0)(self, content or b"", start)
            elif content is None:
                self.say(404, b"no such file")
            else:
                serve(self, content, start)
        except (ConnectionError, TimeoutError):
            pass

    def say(self, status: int, body: bytes, *, length: int | None = None, **headers: Any) -> None:
        """Headers, then body; `length` if the Content-Length is to differ from the body's; -1: none."""
        self.send_response(status)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"Content-Type": "application/octet-stream"} | given).items():
            self.send_header(name, value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def serve(handler: _Handler, content: bytes, start: int, *, stop: int | None = None, tag: str = '"one"') -> None:
    """A good answer; with `stop`, one that ends after that many bytes."""
    body = content[start:]
    head: dict[str, Any] = {"ETag": tag}
    if start >= len(content) > 0:
        handler.say(416, b"", Content_Range=f"bytes */{len(content)}")
        return
    if start:
        head["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.say(206 if start else 200, body[:stop], length=len(body), **head)


def cut(after: int) -> Fault:
    """The connection ends after so many bytes of the body."""
    return lambda handler, content, start: serve(handler, content, start, stop=after)


def reset(after: int) -> Fault:
    """The connection is reset."""

    def fault(handler: _Handler, content: bytes, start: int) -> None:
        serve(handler, content, start, stop=after)
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    return fault


def stall(after: int) -> Fault:
    """Nothing more comes after so many bytes, until the test ends."""

    def fault(handler: _Handler, content: bytes, start: int) -> None:
        serve(handler, content, start, stop=after)
        handler.wfile.flush()
        handler.mirror.released.wait(60)

    return fault


def status(code: int, **headers: Any) -> Fault:
    return lambda handler, content, start: handler.say(code, b"not now", **headers)


def page(content_type: str) -> Fault:
    body = b"<!DOCTYPE html><html><title>Log in</title></html>"
    return lambda handler, content, start: handler.say(200, body, Content_Type=content_type)


def ignoring_range(stop: int | None = None) -> Fault:
    return lambda handler, content, start: serve(handler, content, 0, stop=stop)


def corrupt(at: int) -> Fault:
    def fault(handler: _Handler, content: bytes, start: int) -> None:
        damaged = bytearray(content)
        damaged[at] ^= 0x55
        serve(handler, bytes(damaged), start)

    return fault


def instead(other: bytes) -> Fault:
    return lambda handler, content, start: serve(handler, other, start)


def chunked(stop: int | None = None) -> Fault:
    """Without a Content-Length; cut within a chunk after `stop` bytes."""

    def fault(handler: _Handler, content: bytes, start: int) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.close_connection = True
        handler.say(200, b"", length=-1, Transfer_Encoding="chunked")
        handler.wfile.write(f"{len(content):x}\r\n".encode() + content[:stop])
        if stop is None:
            handler.wfile.write(b"\r\n0\r\n\r\n")

    return fault


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def serving() -> Iterator[Callable[[dict[str, bytes]], Mirror]]:
    servers: list[ThreadingHTTPServer] = []
    mirrors: list[Mirror] = []

    def start(files: dict[str, bytes]) -> Mirror:
        mirror = Mirror(files)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"mirror": mirror}))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        mirror.url = f"http://127.0.0.1:{server.server_port}/files"
        servers.append(server)
        mirrors.append(mirror)
        return mirror

    yield start
    for mirror, server in zip(mirrors, servers, strict=True):
        mirror.released.set()
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class Published:
    """What a small "Zenodo" holds: bytes by remote name, the unpacked bytes by name, and the tables of checksums."""

    remote: dict[str, bytes]
    unpacked: dict[str, bytes]
    files: tuple[OfficialFile, ...]
    meta: dict[SplitName, str]

    def fetch(self, out: Path, mirror: Mirror, **others: Any) -> dict[str, Any]:
        options: dict[str, Any] = {
            "splits": ["test"],
            "patience": Patience(timeout_s=5, sleep=lambda seconds: None),
        } | others
        return fetch(out, source=mirror.url, files=self.files, meta=self.meta, **options)

    def assert_right(self, out: Path, *splits: SplitName) -> None:
        """All files of the splits are there, byte by byte; nothing else is left but the lock."""
        names = {n for n in self.unpacked if any(f"_{split}_" in n for split in splits)}
        assert {p.name for p in out.iterdir()} - {".lock"} == names
        for name in names:
            assert (out / name).read_bytes() == self.unpacked[name], name


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def published(unpacked: dict[str, bytes]) -> Published:
    remote, files, meta = {}, [], {}
    for split in SPLITS:
        for part in ("x.h5", "y.h5"):
            name = official_name(split, part)
            packed = gzip.compress(unpacked[name], 6, mtime=0)
            remote[f"{name}.gz"] = packed
            files.append(OfficialFile(split, part, len(packed), md5(packed), md5(unpacked[name])))
        name = official_name(split, "meta.csv")
        remote[name] = unpacked[name]
        meta[split] = md5(unpacked[name])
    return Published(remote, unpacked, tuple(files), meta)


@pytest.fixture(scope="module")
def real(official: Path) -> Published:
    """Genuine HDF5 files of synthetic patches."""
    return published({p.name: p.read_bytes() for p in official.iterdir() if p.name.startswith("camelyonpatch")})


@pytest.fixture(scope="module")
def small() -> Published:
    """Small files of bytes that hardly compress; x and y of each split differ in size from all others."""
    random = np.random.default_rng(3)
    sizes = {"x.h5": 300_000, "y.h5": 2_000, "meta.csv": 900}
    return published(
        {
            official_name(split, part): random.bytes(size + 1_000 * n).replace(b"<", b">")  # type: ignore[arg-type]
            for n, split in enumerate(SPLITS)
            for part, size in sizes.items()
        }
    )


Serving = Callable[[dict[str, bytes]], Mirror]


# What should happen.


def test_all_files_come_unpacked_and_are_usable(real: Published, serving: Serving, tmp_path: Path) -> None:
    mirror, out = serving(real.remote), tmp_path / "new" / "folder"
    seen: list[tuple[int, int]] = []
    result = real.fetch(out, mirror, splits=SPLITS, progress=lambda done, total, words: seen.append((done, total)))
    real.assert_right(out, *SPLITS)
    assert [split.n for split in find_splits(out)] == [256, 96, 64]
    assert {f["name"]: (f["bytes"], f["md5"], f["status"]) for f in result["files"]} == {
        name: (len(content), md5(content), "fetched") for name, content in real.unpacked.items()
    }
    assert (result["out"], result["source"], result["splits"]) == (str(out), mirror.url, list(SPLITS))
    total = sum(f.gz_bytes for f in real.files)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert mirror.agents == {f"histoproof/{__version__}"}


def test_only_the_splits_wished_for_are_asked_for(small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror = serving(small.remote)
    result = small.fetch(tmp_path, mirror, splits=["test", "valid", "test"])
    small.assert_right(tmp_path, "test", "valid")
    assert result["splits"] == ["valid", "test"]
    assert len(mirror.requests) == 6


def test_what_is_there_and_right_is_left_alone(small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror = serving(small.remote)
    small.fetch(tmp_path, mirror)
    (tmp_path / X).unlink()
    before = (tmp_path / Y).stat()
    again = small.fetch(tmp_path, mirror)
    assert {f["name"]: f["status"] for f in again["files"]} == {META: "present", Y: "present", X: "fetched"}
    assert (tmp_path / Y).stat() == before
    mirror.requests.clear()
    mirror.files = {}
    assert {f["status"] for f in small.fetch(tmp_path, mirror)["files"]} == {"present"}
    assert mirror.requests == []


def test_what_is_there_and_wrong_is_named_and_never_overwritten(
    small: Published, serving: Serving, tmp_path: Path
) -> None:
    mirror = serving(small.remote)
    (tmp_path / X).write_bytes(b"mine")
    with pytest.raises(DataError, match=f"{X} is there, but it is not the official test_x: md5"):
        small.fetch(tmp_path, mirror)
    assert (tmp_path / X).read_bytes() == b"mine"
    (tmp_path / X).write_bytes(small.unpacked[official_name("valid", "x.h5")])
    with pytest.raises(DataError, match="this is the official valid_x, under the name of test_x"):
        small.fetch(tmp_path, mirror)
    (tmp_path / X).unlink()
    (tmp_path / X).symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no regular file"):
        small.fetch(tmp_path, mirror)
    assert mirror.requests == []
    assert {p.name for p in tmp_path.iterdir()} == {X}


def test_what_comes_into_being_meanwhile_is_not_overwritten(small: Published, serving: Serving, tmp_path: Path) -> None:
    def another_program(done: int, total: int, words: str) -> None:
        (tmp_path / X).write_bytes(b"mine")

    with pytest.raises(OutputError, match="has come into being meanwhile"):
        small.fetch(tmp_path, serving(small.remote), progress=another_program)
    assert (tmp_path / X).read_bytes() == b"mine"


# Cuts.


@pytest.mark.parametrize("fault", [cut, reset, stall, chunked], ids=lambda f: str(f.__name__))
def test_after_a_cut_it_goes_on_from_there(
    fault: Callable[[int], Fault], small: Published, serving: Serving, tmp_path: Path
) -> None:
    mirror = serving(small.remote)
    mirror.faults[f"{X}.gz"] = [fault(100_000)]
    result = small.fetch(tmp_path, mirror, patience=Patience(timeout_s=0.3, sleep=lambda seconds: None))
    small.assert_right(tmp_path, "test")
    first, *more = mirror.asked(f"{X}.gz")
    assert (first, len(more)) == (None, 1)
    assert 0 < int(str(more[0]).removeprefix("bytes=").removesuffix("-")) <= 100_000
    if fault is cut:
        assert more == ["bytes=100000-"]
    assert {f["name"]: f["status"] for f in result["files"]}[X] == "resumed"


def test_a_cut_file_whose_server_changed_it_meanwhile_comes_anew(
    small: Published, serving: Serving, tmp_path: Path
) -> None:
    """If-Range: a server whose file is another by now sends all of it."""
    mirror = serving(small.remote)
    mirror.faults[f"{X}.gz"] = [cut(100_000), ignoring_range()]
    small.fetch(tmp_path, mirror)
    assert mirror.requests[-1] == (f"{X}.gz", "bytes=100000-", '"one"')
    small.assert_right(tmp_path, "test")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.tuples(st.sampled_from([cut, ignoring_range, chunked]), st.integers(0, 320_000)), max_size=7),
    kept=st.none() | st.integers(0, 302_500),
)
def test_wherever_it_is_cut_the_bytes_are_right(
    cuts: list[tuple[Callable[[int], Fault], int]],
    kept: int | None,
    small: Published,
    serving: Serving,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    out = tmp_path_factory.mktemp("cuts")
    mirror = serving(small.remote)
    mirror.faults[f"{X}.gz"] = [fault(after) for fault, after in cuts]
    if kept is not None:
        (out / f"{X}.gz.part").write_bytes(small.remote[f"{X}.gz"][:kept])
    small.fetch(out, mirror)
    small.assert_right(out, "test")
    shutil.rmtree(out)


def test_a_server_that_cannot_do_ranges_and_always_cuts_is_given_up(
    small: Published, serving: Serving, tmp_path: Path
) -> None:
    mirror = serving(small.remote)
    mirror.faults[f"{X}.gz"] = [ignoring_range(100_000) for _ in range(100)]
    with pytest.raises(DataError, match="given up after 8 tries without progress, 100000 bytes are kept"):
        small.fetch(tmp_path, mirror)
    assert len(mirror.asked(f"{X}.gz")) == 8


def test_progress_resets_the_count(small: Published, serving: Serving, tmp_path: Path) -> None:
    """Thirty cuts, each after some new bytes, are fewer than eight in a row without."""
    mirror = serving(small.remote)
    mirror.faults[f"{X}.gz"] = [cut(5_000) for _ in range(30)]
    small.fetch(tmp_path, mirror)
    small.assert_right(tmp_path, "test")


def test_given_up_says_what_is_kept_and_the_next_start_goes_on(
    small: Published, serving: Serving, tmp_path: Path
) -> None:
    mirror = serving(small.remote)
    mirror.faults[f"{X}.gz"] = [cut(70_000)] + [status(503)] * 50
    with pytest.raises(DataError) as caught:
        small.fetch(tmp_path, mirror)
    assert f"70000 bytes are kept in {X}.gz.part" in caught.value.problem
    assert "the same command goes on" in str(caught.value.next)
    assert {p.name for p in tmp_path.iterdir()} == {META, Y, f"{X}.gz.part", ".lock"}
    mirror.faults.clear()
    mirror.requests.clear()
    result = small.fetch(tmp_path, mirror)
    assert mirror.requests == [(f"{X}.gz", "bytes=70000-", None)]
    assert {f["name"]: f["status"] for f in result["files"]} == {META: "present", Y: "present", X: "resumed"}
    small.assert_right(tmp_path, "test")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_is_gone_on_with(
    number: signal.Signals, small: Published, serving: Serving, tmp_path: Path
) -> None:
    mirror, out = serving(small.remote), tmp_path / "out"
    mirror.faults[f"{X}.gz"] = [stall(200_000)]
    table = [(f.split, f.part, f.gz_bytes, f.gz_md5, f.md5) for f in small.files]
    code = (
        "from pathlib import Path\n"
        "from histoproof.data.fetch import fetch\n"
        "from histoproof.data.officials import OfficialFile\n"
        f"files = [OfficialFile(*row) for row in {table!r}]\n"
        f"fetch(Path({str(out)!r}), source={mirror.url!r}, splits=['test'], files=files, meta={small.meta!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    part = out / f"{X}.gz.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 100_000):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(timeout=180)
    assert not (out / X).exists()
    kept = part.stat().st_size
    assert small.remote[f"{X}.gz"].startswith(part.read_bytes())
    mirror.requests.clear()
    result = small.fetch(out, mirror)
    assert mirror.requests == [(f"{X}.gz", f"bytes={kept}-", None)]
    assert {f["name"]: f["status"] for f in result["files"]}[X] == "resumed"
    small.assert_right(out, "test")


def test_a_complete_gz_under_the_name_of_the_part_needs_no_server(
    small: Published, serving: Serving, tmp_path: Path
) -> None:
    mirror = serving({})
    for name, content in small.remote.items():
        if "_test_" in name:
            (tmp_path / f"{name}.part").write_bytes(content)
    small.fetch(tmp_path, mirror)
    small.assert_right(tmp_path, "test")
    assert mirror.requests == []


def test_a_part_that_cannot_be_right_is_thrown_away(small: Published, serving: Serving, tmp_path: Path) -> None:
    """Of another file, too long, or with zeros where a power cut was."""
    good = small.remote[f"{X}.gz"]
    for part in (b"rubbish", good + b"more", good[:5_000] + bytes(90_000), small.remote[f"{Y}.gz"]):
        out = tmp_path / md5(part)
        out.mkdir()
        (out / f"{X}.gz.part").write_bytes(part)
        small.fetch(out, serving(small.remote))
        small.assert_right(out, "test")


def test_416_starts_over(small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror = serving(small.remote)
    mirror.faults[f"{X}.gz"] = [cut(100_000), status(416)]
    small.fetch(tmp_path, mirror)
    assert mirror.asked(f"{X}.gz") == [None, "bytes=100000-", None]
    small.assert_right(tmp_path, "test")


def test_a_range_other_than_the_one_asked_for_starts_over(small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror = serving(small.remote)
    wrong: Fault = lambda handler, content, start: serve(handler, content, start - 500)  # noqa: E731
    mirror.faults[f"{X}.gz"] = [cut(100_000), wrong]
    small.fetch(tmp_path, mirror)
    assert mirror.asked(f"{X}.gz") == [None, "bytes=100000-", None]
    small.assert_right(tmp_path, "test")


# Refusals.


def test_a_busy_server_is_waited_for_as_long_as_it_asks(small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror, waits = serving(small.remote), list[float]()
    date = email.utils.formatdate(time.time() + 90, usegmt=True)
    mirror.faults[f"{Y}.gz"] = [
        status(429, Retry_After="7"),
        status(503, Retry_After=date),
        status(503, Retry_After="86400"),
        status(500),
        status(502, Retry_After="soon"),
        status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    ]
    small.fetch(tmp_path, mirror, patience=Patience(sleep=waits.append))
    small.assert_right(tmp_path, "test")
    assert waits[0] == 7
    assert 60 < waits[1] <= 90
    assert waits[2:] == [300, 8, 16, 32]


def test_the_waits_double_up_to_a_minute_and_end(small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror, waits = serving(small.remote), list[float]()
    mirror.faults[META] = [status(503)] * 50
    with pytest.raises(DataError, match="answered 503 .*given up after 8 tries without progress, nothing had come"):
        small.fetch(tmp_path, mirror, patience=Patience(sleep=waits.append))
    assert waits == [1, 2, 4, 8, 16, 32, 60]


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_plain_refusal_is_final_at_once(code: int, small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror = serving(small.remote)
    mirror.faults[f"{X}.gz"] = [cut(100_000), status(code)]
    with pytest.raises(DataError, match=f"{X}.gz: the server answered {code}"):
        small.fetch(tmp_path, mirror)
    assert len(mirror.asked(f"{X}.gz")) == 2
    assert (tmp_path / f"{X}.gz.part").stat().st_size == 100_000


def test_nobody_there_is_given_up_soon(small: Published, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        nobody = Mirror({}, url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        waits: list[float] = []
        with pytest.raises(DataError, match="connection refused; given up after 3 tries"):
            small.fetch(tmp_path, nobody, patience=Patience(sleep=waits.append))
    assert waits == [1, 2]
    assert {p.name for p in tmp_path.iterdir()} == {".lock"}


@pytest.mark.parametrize(
    "source",
    [
        "",
        "zenodo.org/records/1",
        "file:///etc",
        "ftp://host/path",
        "http://",
        "http://host:port/",
        "http://a..b/",
        "http://h\u00f6st/",
        "http://host/a b",
        "http://host/?a=b",
        "http://host/?",
        "http://host/#part",
        "http://me:secret@host/",
        "http://[::1/",
    ],
)
def test_a_source_that_is_none_is_named(source: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--source") as caught:
        fetch(tmp_path / "out", source=source)
    assert caught.value.valid
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("splits", [[], ["training"], ["train", ""], "train"])
def test_splits_that_are_none_are_named(splits: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split") as caught:
        fetch(tmp_path / "out", splits=splits)
    assert caught.value.valid == "one or more of train, valid, test"
    assert not (tmp_path / "out").exists()


def test_an_unknown_host_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.invalid"):
        fetch(tmp_path, source="http://nowhere.invalid/", patience=Patience(sleep=lambda seconds: None))


@pytest.mark.parametrize("where", ["ftp://127.0.0.1/x", "file:///etc/hostname", "data:,x", "/round"])
def test_redirects_stay_on_the_web_and_end(where: str, small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror = serving(small.remote)
    mirror.faults |= {name: [status(302, Location=where)] * 20 for name in (META, "round")}
    with pytest.raises(DataError, match="redirect"):
        small.fetch(tmp_path, mirror)


def test_redirects_on_the_web_are_followed_with_their_range(small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror, other = serving(small.remote), serving(small.remote)
    there = f"{other.url}/{X}.gz"
    mirror.faults[f"{X}.gz"] = [status(302, Location=there), status(307, Location=there)]
    other.faults[f"{X}.gz"] = [cut(100_000)]
    small.fetch(tmp_path, mirror)
    assert other.asked(f"{X}.gz") == [None, "bytes=100000-"]
    small.assert_right(tmp_path, "test")


def test_a_proxy_is_used(small: Published, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serving(small.remote)
    monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/files"))
    small.fetch(tmp_path, Mirror({}, url="http://mirror.invalid/pcam"))
    assert proxy.targets[0] == f"http://mirror.invalid/pcam/{META}"
    small.assert_right(tmp_path, "test")


# Something else instead of the file.


@pytest.mark.parametrize("name", [META, f"{X}.gz"])
@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_is_recognised_and_costs_nothing_that_was_kept(
    name: str, content_type: str, small: Published, serving: Serving, tmp_path: Path
) -> None:
    mirror = serving(small.remote)
    mirror.faults[name] = [cut(500), page(content_type)]
    with pytest.raises(DataError, match=f"{name} answered with a web page instead of the file"):
        small.fetch(tmp_path, mirror)
    assert (tmp_path / f"{name}.part").read_bytes() == small.remote[name][:500]
    small.fetch(tmp_path, mirror)
    small.assert_right(tmp_path, "test")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, unpacked already"), (b"sorry", "not gzip: b'sorry'")],
)
def test_what_is_not_gzip_is_said(
    content: bytes, words: str, small: Published, serving: Serving, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        small.fetch(tmp_path, serving(small.remote | {f"{X}.gz": content}))
    assert not (tmp_path / f"{X}.gz.part").exists()


def test_a_file_of_another_size_is_refused_before_it_comes(small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror = serving(small.remote | {f"{X}.gz": small.remote[f"{X}.gz"][:-1]})
    size = len(small.remote[f"{X}.gz"])
    with pytest.raises(DataError, match=f"has {size - 1} bytes, the official test_x has {size}"):
        small.fetch(tmp_path, mirror)


def test_damaged_bytes_are_thrown_away_and_fetched_once_more(
    small: Published, serving: Serving, tmp_path: Path
) -> None:
    """At the head, amid, in gzip's own checksum, in its length; in a CSV."""
    size = len(small.remote[f"{X}.gz"])
    for name, at in [(f"{X}.gz", 5), (f"{X}.gz", size // 2), (f"{X}.gz", size - 6), (f"{X}.gz", size - 1), (META, 4)]:
        mirror, out = serving(small.remote), tmp_path / f"{name}-{at}"
        mirror.faults[name] = [corrupt(at)]
        small.fetch(out, mirror)
        assert mirror.asked(name) == [None, None]
        small.assert_right(out, "test")
        mirror.faults[name], out = [corrupt(at), corrupt(at)], tmp_path / f"{name}-{at}-twice"
        with pytest.raises(DataError, match=f"{name} came damaged twice"):
            small.fetch(out, mirror)
        assert not (out / f"{name}.part").exists()
        assert not (out / name.removesuffix(".gz")).exists()


def test_a_gz_that_is_right_packed_and_wrong_unpacked_is_refused(
    small: Published, serving: Serving, tmp_path: Path
) -> None:
    files = tuple(
        OfficialFile(f.split, f.part, f.gz_bytes, f.gz_md5, "0" * 32) if f.name == X else f for f in small.files
    )
    wrong = Published(small.remote, small.unpacked, files, small.meta)
    with pytest.raises(DataError, match=f"unpacked, its md5 is {md5(small.unpacked[X])} instead of {'0' * 32}"):
        wrong.fetch(tmp_path, serving(small.remote))
    assert {p.name for p in tmp_path.iterdir()} == {META, Y, ".lock"}


@pytest.mark.parametrize("part", ["x.h5.gz", "y.h5.gz", "meta.csv"])
@pytest.mark.parametrize("how", ["plain", "chunked", "cut"])
def test_valid_and_test_are_never_swapped(
    part: str, how: str, small: Published, serving: Serving, tmp_path: Path
) -> None:
    valid, test = (f"camelyonpatch_level_2_split_{split}_{part}" for split in ("valid", "test"))
    mirror = serving(small.remote | {valid: small.remote[test], test: small.remote[valid]})
    for name in (valid, test):
        mirror.faults[name] = {"plain": [], "chunked": [chunked()], "cut": [cut(400)]}[how]
    for split, other in (("valid", "test"), ("test", "valid")):
        what = part.partition(".")[0]
        with pytest.raises(DataError, match=f"this is the official {other}_{what}, under the name of {split}_{what}"):
            small.fetch(tmp_path / split, mirror, splits=[split])
        left = {p.name for p in (tmp_path / split).iterdir()}
        assert not [name for name in left if part.removesuffix(".gz") in name]
    if how != "cut":  # to ask again for what is known to be another file would be of no use
        assert (mirror.asked(valid), mirror.asked(test)) == ([None], [None])


# The machine's side.


def test_two_fetches_at_once_are_refused(small: Published, serving: Serving, tmp_path: Path) -> None:
    mirror = serving(small.remote)
    with locked(tmp_path), pytest.raises(RunError, match="another process is writing"):
        small.fetch(tmp_path, mirror)
    assert mirror.requests == []
    small.fetch(tmp_path, mirror)
    small.assert_right(tmp_path, "test")


def test_room_is_checked_before_anything_is_asked_for(
    small: Published, serving: Serving, mounted: Callable[[str], Path]
) -> None:
    mirror, out = serving(small.remote), mounted("size=1m")
    with pytest.raises(OutputError, match="needs 0.00[0-9]+ GB"):
        fetch(out, source=mirror.url, files=small.files, meta={}, splits=["test"])
    assert mirror.requests == []


def test_a_disk_that_fills_up_all_the_same_keeps_the_part(
    small: Published, serving: Serving, mounted: Callable[[str], Path]
) -> None:
    """x that unpacks to more than any x of pixels would."""
    swelling = published(small.unpacked | {X: np.random.default_rng(4).bytes(1_000_000) + bytes(30_000_000)})
    out = mounted("size=12m")
    with pytest.raises(OutputError, match=f"cannot write .*{X}: No space left"):
        fetch(out, source=serving(swelling.remote).url, files=swelling.files, meta={}, splits=["test"])
    assert {p.name for p in out.iterdir()} == {Y, f"{X}.gz.part", ".lock"}
    part = (out / f"{X}.gz.part").read_bytes()
    assert len(part) > 100_000
    assert swelling.remote[f"{X}.gz"].startswith(part)


def test_the_bound_on_room_holds_for_the_official_files() -> None:
    """Pixels stored as they are, and 5 % for whatever else HDF5 keeps; labels of 8 bytes each."""
    for file in OFFICIAL:
        patch = 96 * 96 * 3 * 1.05 if file.part == "x.h5" else 8
        assert COUNTS[file.split] * patch < unpacked_at_most(file)
    assert sum(unpacked_at_most(file) for file in OFFICIAL) < 10e9


def test_out_that_is_a_file_is_named(small: Published, serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        small.fetch(tmp_path / "file", serving(small.remote))


def test_what_killed_processes_left_is_swept_away(small: Published, serving: Serving, tmp_path: Path) -> None:
    (tmp_path / f".{X}.123.tmp").write_bytes(b"half")
    small.fetch(tmp_path, serving(small.remote))
    small.assert_right(tmp_path, "test")


# gzip.


@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(st.binary(max_size=2_000), min_size=1, max_size=4),
    padding=st.integers(0, 20),
    size=st.integers(1, 3_000),
)
def test_any_gzip_stream_is_unpacked_as_gzip_does_it(members: list[bytes], padding: int, size: int) -> None:
    stream = b"".join(gzip.compress(m, mtime=0) for m in members) + bytes(padding)
    assert unpack(stream, size) == gzip.decompress(stream)


def test_much_from_little_comes_in_pieces() -> None:
    packed = gzip.compress(bytes(5 << 20))
    for last in range(1, 12):
        unpacker = Unpacker()
        pieces = [*unpacker.feed(packed[:-last]), *unpacker.feed(packed[-last:])]
        assert (b"".join(pieces), max(map(len, pieces)), unpacker.finished) == (bytes(5 << 20), 1 << 20, True)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_is_no_whole_gzip_stream_is_told(size: int) -> None:
    whole = gzip.compress(bytes(range(256)) * 20, mtime=0)
    with pytest.raises(DamageError, match="after the end of the gzip stream"):
        unpack(whole + b"garbage", size)
    with pytest.raises(DamageError, match="not gzip"):
        unpack(zlib.compress(b"zlib, not gzip"), size)
    for left in range(len(whole)):
        with pytest.raises(AssertionError, match="unfinished"):
            unpack(whole[:left], size)


def unpack(stream: bytes, size: int) -> bytes:
    """Unpack a stream that comes in pieces of `size`."""
    unpacker = Unpacker()
    unpacked = b"".join(b for i in range(0, len(stream), size) for b in unpacker.feed(stream[i : i + size]))
    assert unpacker.finished, "unfinished"
    return unpacked


# The command.


def test_the_command_prints_what_it_did(
    small: Published, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histoproof.data.fetch.fetch", partial(fetch, files=small.files, meta=small.meta))
    arguments = ["data", "fetch", str(tmp_path), "--source", serving(small.remote).url, "--splits", "valid, test"]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout.count(": fetched")) == (0, 6)
    again = CliRunner().invoke(app, [*arguments, "--json"])
    assert again.exit_code == 0
    assert [f["status"] for f in json.loads(again.stdout)["files"]] == ["present"] * 6


@pytest.mark.parametrize(
    "arguments",
    [
        ["--source", "zenodo.org"],
        ["--source", "file:///etc"],
        ["--splits", "train,validation"],
        ["--splits", ","],
    ],
)
def test_mistakes_of_the_command_line_exit_with_2(arguments: list[str], tmp_path: Path) -> None:
    done = command(tmp_path, *arguments)
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (2, "")
    assert err.startswith("error: ")
    assert "valid: " in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_the_command_enforces_the_official_checksums_on_any_source(serving: Serving, tmp_path: Path) -> None:
    mirror = serving({META: b"coord_y,coord_x\n1,2\n"})
    done = command(tmp_path, "--source", mirror.url, "--splits", "test")
    _, err = done.communicate(timeout=60)
    assert done.returncode == 2
    assert META_MD5["test"] in err
    assert f"{META} came damaged twice" in err


def test_ctrl_c_keeps_what_came_and_exits_with_130(serving: Serving, tmp_path: Path) -> None:
    mirror = serving({META: bytes(range(48, 58)) * 30_000})
    mirror.faults[META] = [stall(200_000)]
    done = command(tmp_path, "--source", mirror.url, "--splits", "test", "--json")
    part = tmp_path / "out" / f"{META}.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 100_000):
        assert time.monotonic() < deadline
        assert done.poll() is None
        time.sleep(0.01)
    done.send_signal(signal.SIGINT)
    out, err = done.communicate(timeout=180)
    assert (done.returncode, out) == (130, "")
    assert "the same command goes on" in err
    assert "Traceback" not in err
    assert part.stat().st_size > 100_000


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "histoproof", "data", "fetch", "out", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={k: v for k, v in os.environ.items() if k.lower() != "http_proxy"},
    )


def test_zenodo_is_asked_for_a_download(
    small: Published, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a proxy that stands for Zenodo: nobody leaves this machine."""
    assert ZENODO.startswith("https://")
    zenodo = serving(small.remote)
    monkeypatch.setenv("http_proxy", zenodo.url.removesuffix("/files"))
    plain = ZENODO.replace("https", "http", 1)
    monkeypatch.setattr("histoproof.data.fetch.ZENODO", plain)
    small.fetch(tmp_path, Mirror({}, url=plain))
    assert zenodo.targets == [f"{plain}/{name}?download=1" for name in (META, f"{Y}.gz", f"{X}.gz")]


def test_every_error_is_one_for_people(tmp_path: Path) -> None:
    with pytest.raises(HistoproofError) as caught:
        fetch(tmp_path, source="nonsense")
    assert caught.value.next
