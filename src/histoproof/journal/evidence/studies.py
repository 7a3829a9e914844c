"""A search: what search.json says, held against the runs of its trials."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError, HistoproofError
from ...files import read_json
from ...runs import open_run

__all__ = ["StudyEvidence", "is_study", "read_study"]


@dataclass(frozen=True)
class StudyEvidence:
    """A search as its folder tells it."""

    path: Path
    content: dict[str, Any]
    """search.json."""
    problems: list[str]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.absolute().name

    @property
    def command(self) -> str:
        """The command that goes on with it, or does nothing when it is finished."""
        space, config = self.path / "space.yaml", self.path / "config.yaml"
        wanted = str(self.content["trials_wanted"])
        return shlex.join(
            ["histoproof", "search", str(config), "--space", str(space), "--trials", wanted, "--out", str(self.path)]
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read, but for the trials' summaries."""
        return tuple(path for name in ("search.json", "study.json") if (path := self.path / name).is_file())


def is_study(path: Path) -> bool:
    """Whether a folder holds a search."""
    return (path / "journal.log").is_file() or (path / "search.json").is_file()


def read_study(path: Path) -> StudyEvidence:
    """Read a search's folder. Raises DataError if no process of it has ended yet, or it is damaged."""
    if not (path / "search.json").is_file():
        raise DataError(
            f"the study {path} has no search.json: no process of it has ended yet",
            next="end it with Ctrl-C, or run `histoproof search` to its end",
        )
    content = read_json(path / "search.json")
    try:
        return StudyEvidence(path, content, _contradictions(path, content))
    except (KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{path / 'search.json'} is damaged: {type(e).__name__} {e}", next="search again") from e


def _contradictions(path: Path, content: dict[str, Any]) -> list[str]:
    """Complete trials whose value is not what their run's summary says."""
    problems = []
    for row in content["trials"]:
        if row["state"] != "complete" or row["run"] is None:
            continue
        try:
            summary = open_run(path / row["run"]).load_summary()
        except HistoproofError as e:
            problems.append(e.problem)
            continue
        if summary["best"]["valid"][content["metric"]] != row["value"]:
            told = summary["best"]["valid"][content["metric"]]
            problems.append(
                f"{path / 'search.json'}: trial {row['number']} has {row['value']}, its summary.json {told}"
            )
    return problems
