"""A store as the journal needs it: its manifest, and who opened its test split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import ledger
from ...files import read_json

__all__ = ["StoreEvidence", "is_store", "read_store"]


@dataclass(frozen=True)
class StoreEvidence:
    """A store's manifest and ledger."""

    path: Path
    manifest: dict[str, Any] | None
    """None where the store is not on this machine."""
    openings: list[dict[str, Any]]
    """The ledger's lines."""
    problems: list[str]
    """What is wrong with the ledger, by line."""
    notes: list[str]
    """What is worth knowing of the ledger and no sign of tampering."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def ledger_path(self) -> Path:
        """Where the openings of the test split are written."""
        return ledger.path_of(self.path)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""
        paths = (
            self.path / "manifest.json",
            self.path / "findings.jsonl",
            self.ledger_path,
            ledger.witness_of(self.path),
        )
        return tuple(path for path in paths if path.is_file())

    @property
    def source_bytes(self) -> dict[str, int]:
        """Bytes of each split's official pixel file."""
        assert self.manifest is not None
        sizes = {file["name"]: file["bytes"] for file in self.manifest["source"]["files"]}
        return {s: sizes.get(f"camelyonpatch_level_2_split_{s}_x.h5", 0) for s in self.manifest["splits"]}


def is_store(path: Path) -> bool:
    """Whether a folder is a store."""
    return (path / "manifest.json").is_file()


def read_store(path: Path, evaluations: Sequence[Path] = ()) -> StoreEvidence:
    """Read a store's small files; none of its patches. Raises DataError where its manifest is damaged.

    `evaluations`: evaluations/test.json of runs and champions, which bear witness of the ledger.
    """
    if not is_store(path):
        return StoreEvidence(path, None, [], [], [])
    manifest = read_json(path / "manifest.json")
    problems = ledger.verify(path, ledger.witnesses_in(path, evaluations))
    notes = ledger.notes(path)
    if problems:
        return StoreEvidence(path, manifest, [], [str(problem) for problem in problems], notes)
    return StoreEvidence(path, manifest, ledger.openings(path), [], notes)
