"""A frozen champion as it lies on disk: champion.json and the run it vouches for, opened only if every digest holds.

`champion` writes it; `evaluate` and `predict` open it here. Its model predicts calibrated probabilities and calls a patch
tumour at the frozen threshold.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import files
from .errors import HistoproofError, RunError
from .experiment import config_digest
from .files import readable, sha256_file
from .inference import TrainedModel, load_model
from .runs import Run, open_run

__all__ = ["FORMAT", "VERSION", "Frozen", "champion_json", "digest_of", "is_champion", "open_champion", "open_model"]

FORMAT = "histoproof-champion"
VERSION = 1
_NEXT = "put the champion's own files back; a champion that was changed is no champion: freeze another with `histoproof champion`"


@dataclass(frozen=True)
class Frozen:
    """A champion whose every digest was checked."""

    path: Path
    """Its folder."""
    content: dict[str, Any]
    """champion.json."""
    run: Run
    """The run whose weights it is."""
    model: TrainedModel
    """With the frozen temperature; `model.config.evaluate` holds the frozen threshold and tta."""

    @property
    def sha256(self) -> str:
        """Its own digest, `champion_sha256`."""
        return str(self.content["champion_sha256"])

    @property
    def place(self) -> Run:
        """The champion's folder, with the names of a run folder for its predictions, evaluations and figures."""
        return Run(self.path)


def champion_json(path: Path) -> Path:
    """Where a champion's folder keeps what was frozen."""
    return path / "champion.json"


def is_champion(path: Path) -> bool:
    """Whether a folder holds a frozen champion."""
    return champion_json(path).is_file()


def digest_of(content: dict[str, Any]) -> str:
    """The digest that a champion's content keeps of itself, `champion_sha256`: see `files.digest_of`."""
    return files.digest_of(content, "champion_sha256")


def open_model(path: Path) -> TrainedModel:
    """The model of a run (its best checkpoint) or of a frozen champion (calibrated). Raises RunError."""
    return open_champion(path).model if is_champion(path) else load_model(path)


def open_champion(path: Path) -> Frozen:
    """A frozen champion. Raises RunError where champion.json, the weights, the config or the frozen predictions were changed."""
    content = _content(champion_json(path))
    try:
        run = open_run(path / content["run"])
        if not run.best.is_file():
            raise RunError(f"the champion's weights are missing: {run.best}", next=_NEXT)
        if sha256_file(run.best) != content["checkpoint_sha256"]:
            raise RunError(
                f"{run.best} was changed after the champion was frozen: its weights are other ones", next=_NEXT
            )
        if config_digest(run.load_config()) != content["config_sha256"]:
            raise RunError(
                f"{run.config} was changed after the champion was frozen: it is another experiment", next=_NEXT
            )
        predictions = Run(path).predictions("valid")
        if predictions.is_file() and sha256_file(predictions) != content["predictions_sha256"]:
            raise RunError(f"{predictions} was changed after the champion was frozen", next=_NEXT)
        model = load_model(run.path)
        if model.weights_sha256 != content["weights_sha256"]:
            raise RunError(f"{run.best} does not hold the champion's weights", next=_NEXT)
        frozen = {"threshold": content["threshold"], "tta": content["tta"]}
        scored = model.config.evaluate.model_copy(update=frozen)
        config = model.config.model_copy(update={"evaluate": scored})
        return Frozen(path, content, run, replace(model, config=config, temperature=content["temperature"]))
    except (KeyError, TypeError) as e:
        raise RunError(f"{champion_json(path)} holds no {e}: it is of another version", next=_NEXT) from None
    except HistoproofError as e:
        raise RunError(e.problem, valid=e.valid, next=e.next or _NEXT) from None


def _content(path: Path) -> dict[str, Any]:
    """champion.json, byte for byte as it was frozen."""
    try:
        text = path.read_bytes().decode()
        content = json.loads(text)
    except (OSError, UnicodeDecodeError, ValueError) as e:
        raise RunError(f"{path} cannot be read: {e}", next=_NEXT) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        raise RunError(
            f"{path} is not of a champion this version reads",
            valid=f'"format": "{FORMAT}", "version": {VERSION}',
            next=_NEXT,
        )
    if content.get("champion_sha256") != digest_of(content) or text != readable(content) + "\n":
        raise RunError(f"{path} was changed after the champion was frozen: its digest does not hold", next=_NEXT)
    return content
