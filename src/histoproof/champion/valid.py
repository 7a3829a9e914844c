"""The valid patches that a champion is chosen, calibrated and compared on: one store, one partition, for every model the same."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import Config
from ..data.groups import group_labels_of
from ..data.partition import Part, Patches, open_part
from ..data.store import Store, open_store
from ..errors import DataError, HistoproofError, RunError
from ..evaluate import Predictions, load_predictions, predict_part
from ..files import read_json, sha256_file
from ..inference import load_model
from ..runs import Run

__all__ = ["Valid", "open_valid", "predictions_of"]


@dataclass(frozen=True)
class Valid:
    """The patches, and which belong together."""

    store: Store
    train: Patches
    part: Patches
    rows: NDArray[np.int64]
    """(N,) rows of `part` that are scored."""
    labels: NDArray[np.uint8]
    """(N,) 0 or 1."""
    groups: NDArray[np.str_] | None
    """(N,) what intervals and tests are clustered by; None: patches stand alone."""
    column: str | None
    """The name of the groups."""

    def check(self, found: Predictions, what: str) -> None:
        """Raise DataError unless predictions are of these patches, in this order, with these labels."""
        if not np.array_equal(found.index, self.rows) or not np.array_equal(found.label, self.labels):
            raise DataError(
                f"{what} was scored on other valid patches than the others, or on other labels",
                valid="runs of one store, one partition and one data.quarantine",
            )


def open_valid(config: Config, store: Path | None = None) -> Valid:
    """The valid patches that `config` names, in `store` if its own lies elsewhere now.

    Raises DataError where they are not there, or hold one class only.
    """
    opened = open_store((store or Path(config.data.store)).absolute())
    train, part = (open_part(opened, role, config.data.partition, config.data.fold) for role in ("train", "valid"))
    rows = part.rows(config.data.quarantine)
    assert part.labels is not None  # rows() has seen to it
    labels = np.asarray(part.labels[rows])
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"every valid patch of {opened.path} has label {labels[0]}: no threshold can be chosen, no model is better",
            valid="both classes in valid",
            next="deal the patches anew with `histoproof data split`",
        )
    groups = group_labels_of(opened, part, config.evaluate.groups)
    chosen = None if groups is None else groups[rows]
    return Valid(opened, train, part, rows, labels, chosen, None if groups is None else config.evaluate.groups.column)


def predictions_of(path: Path, valid: Valid, *, tta: bool) -> Predictions:
    """A run's predictions on valid: those in its folder where they are what its evaluation says, else predicted again.

    Raises RunError or DataError where neither can be had, or they are of other patches.
    """
    run = Run(path)
    found = _kept(run, valid, tta)
    if found is None:
        model = load_model(path)
        found = predict_part(model, valid.part, tta=tta)
    valid.check(found, str(path))
    if not np.isfinite(found.logit).all():
        raise RunError(f"{path} predicts something that is no number", next="leave it out, or train it again")
    return found


def _kept(run: Run, valid: Valid, tta: bool) -> Predictions | None:
    file = run.predictions("valid")
    try:
        said = read_json(run.evaluation("valid"))
        same = said["tta"] == ("d4" if tta else "none") and said["store_sha256"] == valid.store.content_sha256
        part = valid.part.as_json() if isinstance(valid.part, Part) else None
        if same and said["partition"] == part and said["predictions_sha256"] == sha256_file(file):
            return load_predictions(file)
    except (HistoproofError, OSError, KeyError, TypeError):
        return None
    return None
