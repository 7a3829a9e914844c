"""Benchmarks as their folders tell them."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bench import read_bench as read_result

__all__ = ["BenchEvidence", "is_bench", "read_bench"]


@dataclass(frozen=True)
class BenchEvidence:
    """What `bench loader`, `train`, `infer` or `audit` measured."""

    path: Path
    content: dict[str, Any]
    """bench.json."""
    problems: list[str]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.absolute().name

    @property
    def command(self) -> str:
        """The command that made it."""
        return shlex.join(self.content["command"])

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""
        return (self.path / "bench.json",)


def is_bench(path: Path) -> bool:
    """Whether a folder holds what `bench` wrote."""
    return (path / "bench.json").is_file()


def read_bench(path: Path) -> BenchEvidence:
    """Read a folder of `bench`. Raises DataError if it is damaged or was changed."""
    return BenchEvidence(path, read_result(path), [])
