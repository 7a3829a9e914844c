"""bench.json: put together, written whole or not at all, and read back only if it is what was written."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DataError
from ..files import new_folder, read_json, write_bytes, write_json, write_text
from ..provenance import environment
from ..runs import free_name
from .measure import METHOD
from .rows import bench_sha256
from .words import markdown

__all__ = ["FORMAT", "VERSION", "described", "folder_for", "read_bench", "write_bench"]

FORMAT, VERSION = "histoproof-bench", 1
_SLURM = {"partition": "SLURM_JOB_PARTITION", "node": "SLURMD_NODENAME", "job_id": "SLURM_JOB_ID"}


def described(device: str) -> dict[str, Any]:
    """The environment; of Slurm also partition, node and job, from its own variables alone."""
    found = environment(device)
    slurm = {name: os.environ.get(variable) for name, variable in _SLURM.items()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {**found, "memory_bytes": memory, "slurm": {**found["slurm"], **slurm}}


@contextmanager
def folder_for(out: Path | None, stem: str) -> Iterator[tuple[Path, Path]]:
    """(where the result will lie, the folder to write it into, which becomes the former at the block's end).

    Without `out`, the first free bench/STEM-001, ... Raises OutputError before anything is measured.
    """
    taken = free_name(Path("bench"), stem) if out is None else None
    path = out if taken is None else taken
    assert path is not None
    try:
        with new_folder(path, what="bench result") as folder:
            yield path, folder
    finally:
        if taken is not None and taken.is_dir() and not any(taken.iterdir()):
            taken.rmdir()


def write_bench(
    folder: Path,
    *,
    kind: str,
    out: Path,
    subject: dict[str, Any],
    environment: dict[str, Any],
    ceilings: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    costs: Sequence[dict[str, Any]],
    effort: dict[str, Any],
    stopped: str | None,
) -> dict[str, Any]:
    """Write bench.json, bench.md and the figure into `folder`; returns the content of bench.json."""
    from ..drawing import render
    from .figures import throughput

    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "out": str(out),
        "subject": subject,
        "command": environment["command"],
        "method": METHOD,
        "effort": effort,
        "stopped": stopped,
        "environment": environment,
        "ceilings": ceilings,
        "rows": list(rows),
        "costs": list(costs),
    }
    content["bench_sha256"] = bench_sha256(content)
    svg, png = render(lambda: throughput(content), "bench")
    write_text(folder / "bench.md", markdown(content))
    write_text(folder / "throughput.svg", svg)
    write_bytes(folder / "throughput.png", png)
    write_json(folder / "bench.json", content)
    return content


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")


_Positive = Annotated[float, Field(gt=1e-9, lt=1e18)]
_Name = Annotated[str, Field(max_length=200)]


class _Rate(_Part):
    median: _Positive
    low: _Positive | None
    high: _Positive | None
    samples: list[_Positive] = Field(min_length=1, max_length=20_000)


class _Ceiling(_Rate):
    unit: str


_Whole = Annotated[int, Field(ge=0, lt=2**63)]


class _Top(_Part):
    name: _Name
    fraction: Annotated[float, Field(ge=0, lt=1e9)]
    images_per_s: _Positive


class _Row(_Part):
    what: _Name
    model: _Name | None
    device: _Name
    batch_size: _Whole | None
    precision: _Name | None
    variant: _Name | None
    status: _Name
    reason: str | None
    ceiling: _Top | None = None
    bottleneck: dict[str, Any] | None = None
    peak_ram_bytes: _Whole | None = None
    peak_vram_bytes: _Whole | None = None
    images_per_s: _Rate | None
    stages: dict[str, _Rate | None]
    threads: dict[str, int] | None
    conditions: dict[str, Any]


class _Cpu(_Part):
    available: _Whole


class _Environment(_Part):
    cpu: _Cpu
    gpu: dict[str, Any] | None = None
    slurm: dict[str, Any] = {}
    packages: dict[str, Any] = {}


class _Bench(_Part):
    kind: str
    stopped: _Name | None = None
    command: list[str] = []
    effort: dict[str, Any] = {}
    subject: dict[str, Any]
    environment: _Environment
    ceilings: dict[str, _Ceiling]
    rows: list[_Row]
    costs: list[dict[str, Any]]


def read_bench(path: Path) -> dict[str, Any]:
    """A bench result: bench.json, or the folder it lies in. Raises DataError for any other file, and for one that was changed."""
    file = path / "bench.json" if path.is_dir() else path
    if file.exists() and not file.is_file():
        raise DataError(f"{file} is no file", next="give a folder that `histoproof bench` made, or its bench.json")
    try:
        content = read_json(file)
    except RecursionError:
        raise DataError(f"{file} is no bench result: it is nested too deep") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        raise DataError(
            f"{file} is no bench result that this version reads",
            valid=f'"format": "{FORMAT}", "version": {VERSION}',
            next="give a folder that `histoproof bench` made, or its bench.json",
        )
    try:
        _Bench.model_validate(content)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise DataError(f"{file} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    try:
        own = bench_sha256(content)
    except UnicodeEncodeError:
        raise DataError(f"{file} is damaged: it holds a text that is no Unicode") from None
    if content.get("bench_sha256") != own:
        raise DataError(
            f"{file} was changed after it was measured: its digest does not hold", next="measure again, or put it back"
        )
    return content
