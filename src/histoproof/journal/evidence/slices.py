"""Slices and drift reports as their folders tell them."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...files import digest_of, read_json, sha256_file
from ...runs import Run
from ...slices.gallery import Gallery, from_npz

__all__ = ["DriftEvidence", "SlicesEvidence", "is_drift", "is_slices", "read_drift", "read_slices"]


@dataclass(frozen=True)
class SlicesEvidence:
    """What `slices` found."""

    path: Path
    content: dict[str, Any]
    """slices.json."""
    galleries: list[tuple[Gallery, NDArray[np.float64] | None]]
    """Each with its saliency, where that was measured."""
    problems: list[str]

    @property
    def name(self) -> str:
        """The run's name."""
        return Path(self.content["run"]).name

    @property
    def command(self) -> str:
        """The command that made it."""
        return shlex.join(self.content["command"])

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""
        return (self.path / "slices.json", self.path / "galleries.npz")


@dataclass(frozen=True)
class DriftEvidence:
    """What `drift` found."""

    path: Path
    content: dict[str, Any]
    """drift.json."""
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
        return (self.path / "drift.json",)


def is_slices(path: Path) -> bool:
    """Whether a folder holds what `slices` wrote."""
    return (path / "slices.json").is_file()


def is_drift(path: Path) -> bool:
    """Whether a folder holds what `drift` wrote."""
    return (path / "drift.json").is_file()


def read_slices(path: Path) -> SlicesEvidence:
    """Read a folder of `slices`. Raises DataError if it is damaged."""
    keys = {"run", "split", "n", "whole", "family", "slices", "mixes", "galleries", "galleries_sha256", "command"}
    content = _read(path / "slices.json", {*keys, "slices_sha256"}, "slices_sha256")
    problems = []
    predictions = Run(Path(content["run"])).predictions(content["split"])
    if predictions.is_file() and sha256_file(predictions) != content["predictions_sha256"]:
        problems.append(f"{path / 'slices.json'} was made from other predictions than {predictions}")
    return SlicesEvidence(
        path, content, from_npz(path / "galleries.npz", content["galleries"], content["galleries_sha256"]), problems
    )


def read_drift(path: Path) -> DriftEvidence:
    """Read a folder of `drift`. Raises DataError if it is damaged."""
    keys = {"drift", "n", "reference", "factors", "verdict", "command", "drift_sha256"}
    return DriftEvidence(path, _read(path / "drift.json", keys, "drift_sha256"), [])


def _read(path: Path, keys: set[str], own: str) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not keys <= set(content):
        missing = sorted(keys - set(content)) if isinstance(content, dict) else sorted(keys)
        raise DataError(f"{path} is damaged: it has no {', '.join(missing)}", next="make it again")
    if content[own] != digest_of(content, own):
        raise DataError(f"{path} was changed after it was written: its digest does not hold", next="make it again")
    return content
