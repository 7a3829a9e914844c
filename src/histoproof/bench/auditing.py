"""`bench audit`: the audit of a folder, beside reading the same files from one end to the other."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..data.audit import audit as run_audit
from ..data.pcam import PATCH_SHAPE
from ..data.sources import DAMAGE, Source, open_sources
from ..data.stream import threads
from ..errors import DataError
from ..files import canonical, sha256_file
from .drive import Plan, Scratch, carry_out
from .measure import Effort, Stage, Stopped
from .options import checked_samples
from .rounds import Case, Outcome
from .rows import nearest, rate_ratio

__all__ = ["audit"]

_PIECE = 8 << 20
_ROWS = 256


def audit(
    folder: Path,
    *,
    checksums: bool | None = None,
    quick: bool = False,
    samples: int | None = None,
    out: Path | None = None,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """How fast `histoproof data audit FOLDER` is, in patches and bytes of files a second, beside a plain read of the same files
    ("read") and, for official files, one through HDF5 ("hdf5"), which unpacks them; each on its own, from the page cache where
    they fit. 6 samples (3 with `quick`), as an audit may take minutes.

    Writes a folder (`out`, or the first free bench/NAME-001, ...) and returns the content of its bench.json (docs/bench.md); its
    `costs` hold the audit's seconds over those of each read. Raises DataError, ConfigError, OutputError.
    """

    def make() -> Plan:
        checked_samples(samples)
        sources, _, store = open_sources(folder)
        patches = sum(source.n for source in sources)
        if not patches:
            raise DataError(f"{folder} holds no patches: nothing to measure")
        files = _files(folder, sources)
        size, scratch = sum(path.stat().st_size for path in files), Scratch()
        stages: dict[str | None, Callable[[int], float]] = {
            None: partial(_audited, folder, checksums, patches, scratch),
            "read": partial(_read, files, patches),
        }
        if store is None:
            stages["hdf5"] = partial(_unpacked, [source.x for source in sources], patches)
        digests = [
            {"name": str(path.relative_to(folder)), "bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for path in files
        ]
        return Plan(
            kind="audit",
            stem=folder.absolute().name,
            subject={
                "folder": str(folder),
                "kind": "official files" if store is None else "store",
                "files": digests,
                "files_sha256": hashlib.sha256(canonical(digests).encode()).hexdigest(),
                "bytes": size,
                "n": patches,
                "settings": {"checksums": checksums},
            },
            rows=[_case(variant, run) for variant, run in stages.items()],
            ceilings=[_ceiling(partial(_read, files, size))],
            ceiling_of=lambda one, ceilings: _bound(one, ceilings, size / patches),
            costs=_costs,
            more=lambda one: {"bytes_per_s": _bytes(one, size / patches)},
            scratch=scratch,
        )

    effort = Effort(3 if quick else 6, 0.0, 1).with_samples(samples)
    return carry_out(make, effort, out, progress)


def _files(folder: Path, sources: Sequence[Source]) -> list[Path]:
    paths = {
        path for source in sources for path in (source.x, source.y, source.meta) if path is not None and path.is_file()
    }
    return sorted(paths)


def _case(variant: str | None, run: Callable[[int], float]) -> Case:
    name = {"what": "audit", "model": None, "device": "cpu", "batch_size": None, "precision": None, "variant": variant}

    @contextmanager
    def opened() -> Iterator[dict[str, Stage]]:
        yield {"end_to_end": Stage(run, settle=0)}

    return Case(name, opened, threads={"workers": threads() if variant is None else 1})


def _ceiling(run: Callable[[int], float]) -> Case:
    how = "all files from one end to the other, 8 MiB at a time, one thread"

    @contextmanager
    def opened() -> Iterator[dict[str, Stage]]:
        yield {"rate": Stage(run, settle=0)}

    return Case({"what": "ceiling", "ceiling": "file_read", "how": how}, opened, facts={"unit": "bytes/s", "how": how})


def _bound(outcome: Outcome, ceilings: dict[str, Any], each: float) -> dict[str, Any] | None:
    if outcome.case.name["variant"] == "read" or "file_read" not in ceilings:
        return None
    return nearest(outcome.estimate("end_to_end"), {"file_read": ceilings["file_read"]["median"] / each})


def _audited(folder: Path, checksums: bool | None, patches: int, scratch: Scratch, n: int) -> float:
    def look(*_: object) -> None:
        if scratch.stopped():
            raise Stopped

    for _ in range(n):
        run_audit(folder, checksums=checksums, progress=look)
    return float(n * patches)


def _read(files: Sequence[Path], work: float, n: int) -> float:
    room = bytearray(_PIECE)
    for _ in range(n):
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(room):
                    pass
    return n * work


def _unpacked(files: Sequence[Path], patches: int, n: int) -> float:
    """Every patch through h5py, some 256 at a time (whole chunks), into kept memory."""
    for _ in range(n):
        for path in files:
            try:
                with h5py.File(path, "r") as file:
                    x = file["x"]
                    chunk = x.chunks[0] if x.chunks else 1
                    step = max(chunk, _ROWS // chunk * chunk)
                    room = np.empty((min(step, len(x)), *PATCH_SHAPE), x.dtype)
                    for start in range(0, len(x), step):
                        stop = min(start + step, len(x))
                        x.read_direct(room, np.s_[start:stop], np.s_[: stop - start])
            except DAMAGE as e:
                raise DataError(f"{path} cannot be read through HDF5: {' '.join(str(e).split())}") from None
    return float(n * patches)


def _bytes(outcome: Outcome, each: float) -> dict[str, Any] | None:
    found = outcome.estimate("end_to_end")
    if found is None:
        return None
    scaled = found.as_json()
    return {
        key: [v * each for v in value] if key == "samples" else value and value * each for key, value in scaled.items()
    }


def _costs(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    rates = {one.case.name["variant"]: one.samples.get("end_to_end", []) for one in outcomes}
    told = {
        "read": "the audit takes as many times as long as a plain read",
        "hdf5": "and as many as a read through HDF5",
    }
    found = []
    for variant, words in told.items():
        ratio = rate_ratio(rates.get(variant, []), rates[None])
        if ratio is not None:
            found.append({"what": "audit", "variant": variant, "words": words, "ratio": ratio})
    return found
