"""Evaluation: predictions of a checkpoint on a split into a file, and scores with intervals from that file."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
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
from .errors import ConfigError, DataError
from .files import read_json, write_bytes, write_json
from .frozen import Frozen, is_champion, open_champion
from .inference import TrainedModel, load_model, logits, predict_workers, probabilities
from .runs import Run, locked, open_run

__all__ = [
    "Predictions",
    "evaluate",
    "load_predictions",
    "look_at_test",
    "predict_part",
    "predict_split",
    "save_evaluation",
    "score_predictions",
]


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

    def as_bytes(self) -> bytes:
        """As NPZ: plain arrays index, logit, label, probability. Equal predictions give equal bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, index=self.index, logit=self.logit, label=self.label, probability=self.probability)
        return buffer.getvalue()

    def save(self, path: Path) -> None:
        """Write `as_bytes`, whole or not at all."""
        write_bytes(path, self.as_bytes())


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
    """Predict a split with a run's best checkpoint, or with a frozen champion, and score it; both are written into its folder.

    `store` replaces the config's (the run came from another machine); `tta` the config's evaluate.tta. The test split is
    sealed: a frozen champion opens it, a run needs `open_test`, a reason; either goes into the ledger before a label is read.
    A champion's probabilities are calibrated, its threshold is the frozen one. Returns {"split", "n", "threshold",
    "temperature", "metrics", "confusion", "groups", "champion_sha256" (None for a run), "ledger": {"path", "line", "chain"} for
    the test split, ...}. Raises SealedError, DataError, RunError, ConfigError.
    """
    frozen = open_champion(run) if is_champion(run) else None
    folder = open_run(run) if frozen is None else frozen.place
    model = load_model(run) if frozen is None else frozen.model
    config = model.config
    use_tta = config.evaluate.tta == "d4" if tta is None else tta
    if frozen is not None and use_tta != (config.evaluate.tta == "d4"):
        raise ConfigError(
            f"the champion {run} was frozen with tta: {config.evaluate.tta}", next="leave out --tta and --no-tta"
        )
    opened = open_store(store or Path(config.data.store))
    part = open_part(opened, split, config.data.partition, config.data.fold)
    if part.labels is None:
        part.rows(config.data.quarantine)  # says what is missing, before anything is written down
    _check_store(folder if frozen is None else frozen.run, opened, part)
    held = locked(folder.path) if split == "test" else nullcontext()  # no look whose scores could not be kept
    with held:
        line = None
        if split == "test":
            champion = frozen.sha256 if frozen else None
            weights = model.weights_sha256
            line = look_at_test(
                opened, part, folder, open_test, path=run, weights_sha256=weights, champion_sha256=champion
            )
        found = predict_part(model, part, tta=use_tta)
        result = score_predictions(found, config, opened, part, model=model, tta=use_tta)
        result["reason"] = line["reason"] if line else None
        result["champion_sha256"] = frozen.sha256 if frozen else None
        result["warnings"] = _warnings(folder, frozen, found, split)
        if line is not None:
            at = {"path": str(ledger.path_of(opened.path)), "line": line["number"], "chain": line["chain"]}
            result |= {"ledger": at, "warnings": [*result["warnings"], *_looks_before(opened, line)]}
        with locked(folder.path) if split == "valid" else nullcontext():
            frozen_bytes = frozen.content["predictions_sha256"] if frozen and split == "valid" else None
            save_evaluation(folder, found, result, only=frozen_bytes)
    return {"run": str(run), **result}


def predict_part(model: TrainedModel, part: Patches, *, tta: bool) -> Predictions:
    """Predictions of a model on every patch of a split that its config lets be scored. Raises DataError if it was changed."""
    rows = part.rows(model.config.data.quarantine)
    part.verify()
    workers = predict_workers(model)
    try:
        with deterministic(model.device, 1):
            return predict_split(model, part, rows, workers, tta=tta)
    finally:
        workers.close()


def look_at_test(
    store: Store,
    part: Patches,
    folder: Run,
    reason: str | None,
    *,
    path: Path,
    weights_sha256: str,
    champion_sha256: str | None = None,
    **more: str,
) -> dict[str, Any]:
    """Write into the ledger that a run or a champion looks at a test part, of which its earlier look bears witness; the line.

    `path`: as it was named; `more`: what else the line is to say. Raises what `ledger.open_test` raises.
    """
    what = {"run": str(path), "weights_sha256": weights_sha256, **more}
    if isinstance(part, Part):
        what["partition"] = part.partition
    if champion_sha256 is not None:
        what["champion_sha256"] = champion_sha256
        reason = reason if reason and reason.strip() else "frozen champion"
    witnesses = ledger.witnesses_in(store.path, [folder.evaluation("test")])
    return ledger.open_test(store.path, reason, witnesses=witnesses, **what)


def _looks_before(store: Store, line: dict[str, Any]) -> list[str]:
    """What an opening must be told of those before it: whoever saw a score of these patches may have chosen by it."""
    before = ledger.openings(store.path)[: line["number"] - 1]
    others = [one for one in before if one.get("partition") == line.get("partition") and _who(one) != _who(line)]
    if not others:
        return []
    last, times = others[-1], "once" if len(others) == 1 else f"{len(others)} times"
    return [
        f"no longer a blind look: these test patches were opened {times} before with another model, last on "
        f"{last['opened']} by {last['by']} ({last['reason']}). If anything was chosen after that, this score flatters"
    ]


def _who(line: dict[str, Any]) -> tuple[Any, Any]:
    return line.get("champion_sha256"), line.get("weights_sha256")


def _warnings(folder: Run, frozen: Frozen | None, found: Predictions, split: str) -> list[str]:
    """What nobody may overlook about these scores."""
    if frozen is None:
        return [] if folder.finished else ["the run is not finished: these are the scores of its best epoch so far"]
    here = hashlib.sha256(found.as_bytes()).hexdigest()
    earlier = folder.evaluation(split)
    if split == "valid" and here != frozen.content["predictions_sha256"]:
        return [
            "these predictions are not, to the last bit, those that were frozen: another machine or software computed them"
        ]
    if split == "test" and earlier.is_file() and read_json(earlier).get("predictions_sha256") != here:
        return [
            "these predictions are not, to the last bit, those of this champion's earlier look: another machine or software"
        ]
    return []


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


def save_evaluation(run: Run, found: Predictions, result: dict[str, Any], *, only: str | None = None) -> None:
    """Write predictions and their scores; the scores name the digest of the predictions they were made from.

    `only`: the digest of a champion's frozen predictions; where these are others, to the last bit, nothing is written.
    """
    split, content = result["split"], found.as_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if only is None or only == digest:
        write_bytes(run.predictions(split), content)
        write_json(run.evaluation(split), {**result, "predictions_sha256": digest})


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
        "temperature": model.temperature,
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
