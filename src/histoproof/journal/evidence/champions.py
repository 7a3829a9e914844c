"""A frozen champion: what champion.json says, whether every digest in it holds, and its evaluations."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError, HistoproofError
from ...evaluate import Predictions, load_predictions
from ...files import read_json
from ...frozen import is_champion, open_champion
from ...runs import Run

__all__ = ["ChampionEvidence", "is_champion", "read_champion"]


@dataclass(frozen=True)
class ChampionEvidence:
    """A champion as its folder tells it."""

    path: Path
    content: dict[str, Any]
    """champion.json."""
    predictions: Predictions | None
    """Of the frozen run on valid, calibrated; None where they are gone."""
    test: dict[str, Any] | None
    """evaluations/test.json; None where the test split was not opened."""
    problems: list[str]

    @property
    def name(self) -> str:
        """Its folder's name, with that of the study it lies in."""
        return "/".join(self.path.absolute().parts[-2:])

    @property
    def run(self) -> Path:
        """The run that was frozen."""
        return self.path / str(self.content["run"])

    @property
    def store(self) -> Path:
        """Where its store is, or was."""
        return Path(self.content["store"])

    @property
    def command(self) -> str:
        """The command that froze it."""
        return shlex.join(self.content["environment"]["command"])

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that was read."""
        place = Run(self.path)
        paths = (self.path / "champion.json", place.predictions("valid"), place.evaluation("test"))
        return tuple(path for path in paths if path.is_file())


def read_champion(path: Path) -> ChampionEvidence:
    """Read a champion's folder, and hold it against its digests. Raises DataError where champion.json cannot be read."""
    content = read_json(path / "champion.json")
    if not isinstance(content, dict) or not {"run", "choice", "calibration", "comparison", "seeds"} <= set(content):
        raise DataError(f"{path / 'champion.json'} is damaged", next="freeze another with `histoproof champion`")
    problems = []
    try:
        open_champion(path)
    except HistoproofError as e:
        problems.append(e.problem)
    place = Run(path)
    valid = place.predictions("valid")
    predictions = load_predictions(valid) if valid.is_file() else None
    test = read_json(place.evaluation("test")) if place.evaluation("test").is_file() else None
    return ChampionEvidence(path, content, predictions, test, problems)
