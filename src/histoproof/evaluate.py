"""Evaluation: predictions of a checkpoint on a split into a file, and scores with intervals from that file."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import ledger, metrics
from .checkpoint import read
from .compute import Workers, deterministic
from .config import Config
from .data.batches import Pixels
from .data.groups import group_labels_of
from .data.partition import Part, Patches, open_part
from .data.store import Store, open_store
from .errors import DataError
from .files import sha256_file, write_bytes, write_json
from .inference import TrainedModel, load_model, logits, predict_workers, probabilities
from .runs import Run, locked, open_run

__all__ = ["Predictions", "evaluate", "load_predictions", "predict_split", "save_evaluation", "score_predictions"]


@dataclass(frozen=True)
class Predictions:
    """Predictions on rows of a split: what metrics, slices and the journal read; they never see a model."""

    index: NDArray[np.int64]
    """(N,) rows of the split; of a partition's part, pooled indices (docs/store.md)."""
    logit: NDArray[np.float64]
    """(N,)"""
    label: NDArray[np.uint8]
    """(N,) 0 or 1."""

    @property
    def probability(self) -> NDArray[np.float64]:
        """(N,) probability of tumour, 0-1."""
        return probabilities(self.logit)

    def loss(self) -> float:
        """Mean binary cross-entropy from the logits, in nats; inf or NaN if a logit is."""
        signed = np.where(self.label == 1, -self.logit, self.logit)
        return float(np.logaddexp(0.0, signed).mean())

    def save(self, path: Path) -> None:
        """Write as NPZ (plain arrays index, logit, label, probability), whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, index=self.index, logit=self.logit, label=self.label, probability=self.probability)
        write_bytes(path, buffer.getvalue())


def load_predictions(path: Path) -> Predictions:
    """Read a predictions file. Raises DataError if it is missing or damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return Predictions(file["index"], file["logit"], file["label"])
    except FileNotFoundError:
        raise DataError(f"no predictions: {path}", next="make them with `histoproof evaluate RUN`") from None
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as e:
        raise DataError(f"{path} is no readable predictions file: {e}") from None


def evaluate(
    run: Path,
    *,
    split: Literal["valid", "test"] = "valid",
    store: Path | None = None,
    tta: bool | None = None,
    open_test: str | None = None,
) -> dict[str, Any]:
    """Predict a split with a run's best checkpoint and score it; both are written into the run folder.

    `store` replaces the config's (the run came from another machine); `tta` the config's evaluate.tta. The test split is
    sealed: it needs `open_test`, a reason, which goes into the ledger. Returns {"split", "n", "threshold", "metrics",
    "confusion", "groups", ...}. Raises SealedError, DataError, RunError.
    """
    folder = open_run(run)
    model = load_model(run)
    config = model.config
    opened = open_store(store or Path(config.data.store))
    part = open_part(opened, split, config.data.partition, config.data.fold)
    rows = part.rows(config.data.quarantine)
    _check_store(folder, opened, part)
    if split == "test":
        which = {"partition": part.partition} if isinstance(part, Part) else {}
        ledger.open_test(opened.path, open_test, run=str(run), weights_sha256=model.weights_sha256, **which)
    part.verify()
    workers = predict_workers(model)
    try:
        with deterministic(model.device, 1):
            use_tta = config.evaluate.tta == "d4" if tta is None else tta
            found = predict_split(model, part, rows, workers, tta=use_tta)
    finally:
        workers.close()
    result = score_predictions(found, config, opened, part, model=model, tta=use_tta)
    result["reason"] = open_test
    result["warnings"] = (
        [] if folder.finished else ["the run is not finished: these are the scores of its best epoch so far"]
    )
    with locked(folder.path):
        save_evaluation(folder, found, result)
    return {"run": str(run), **result}


def _check_store(run: Run, store: Store, part: Patches) -> None:
    """A run's scores are of the store and the partition it was trained on; another data set is for `predict`."""
    state = read(run.best).state
    trained_on = state["store_sha256"]
    if isinstance(part, Part) and part.sha256 != state["partition_sha256"]:
        raise DataError(
            f"the partition {part.partition} of {store.path} is not the one that {run.path} was trained on",
            next="give the run its own store back, or train on this one",
        )
    if trained_on != store.content_sha256:
        raise DataError(
            f"{store.path} is not the store that {run.path} was trained on ({store.content_sha256[:12]}, {trained_on[:12]})",
            valid="the same patches, labels and quarantine, wherever they lie",
            next="for other patches: `histoproof predict`",
        )


def save_evaluation(run: Run, found: Predictions, result: dict[str, Any]) -> None:
    """Write predictions and their scores; the scores name the digest of the predictions they were made from."""
    split = result["split"]
    found.save(run.predictions(split))
    write_json(run.evaluation(split), {**result, "predictions_sha256": sha256_file(run.predictions(split))})


def predict_split(
    model: TrainedModel,
    split: Patches,
    rows: NDArray[np.int64],
    workers: Workers,
    *,
    tta: bool = False,
    between: Callable[[], None] = lambda: None,
) -> Predictions:
    """Logits of a model on `rows` of a split that has labels. `between`: see `inference.logits`."""
    assert split.labels is not None
    pixels = Pixels(split, "disk", model.device)
    found = logits(
        model, lambda start, stop: pixels.take(rows[start:stop]), len(rows), workers, tta=tta, between=between
    )
    return Predictions(rows, found, split.labels[rows])


def score_predictions(
    found: Predictions,
    config: Config,
    store: Store,
    patches: Patches,
    *,
    model: TrainedModel,
    tta: bool = False,
) -> dict[str, Any]:
    """Scores of `patches` with intervals, over groups where the store or the config knows them, as the JSON of `evaluate`."""
    groups = group_labels_of(store, patches, config.evaluate.groups)
    chosen = None if groups is None else groups[found.index]
    threshold = config.evaluate.threshold
    scores = metrics.score_with_intervals(
        found.label,
        found.probability,
        threshold=threshold,
        groups=chosen,
        replicates=config.evaluate.bootstrap,
        seed=config.seed,
    )
    return {
        "split": patches.name,
        "n": len(found.label),
        "positive": int(found.label.sum()),
        "threshold": threshold,
        "tta": "d4" if tta else "none",
        "metrics": {name: interval.as_json() for name, interval in scores.items()},
        "confusion": metrics.confusion(found.label, found.probability, threshold),
        "groups": None
        if chosen is None
        else {"column": config.evaluate.groups.column, "count": len(np.unique(chosen))},
        "weights_sha256": model.weights_sha256,
        "store": str(store.path),
        "store_sha256": store.content_sha256,
        "partition": patches.as_json() if isinstance(patches, Part) else None,
    }
