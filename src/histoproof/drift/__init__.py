"""Drift: do new patches look like the training set, and if not, in what?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoint import read as read_checkpoint
from ..compare import holm
from ..compute import deterministic
from ..data.partition import Part, open_part
from ..data.store import open_store
from ..errors import ConfigError, DataError, OutputError, SealedError
from ..evaluate import load_predictions
from ..factors import FACTORS, Reference, distances, measure
from ..factors.known import VERSION
from ..factors.reference import load_or_measure, stored
from ..factors.reference import read as read_reference
from ..files import check_new, digest_of, new_folder, read_json, write_bytes, write_json
from ..inference import TrainedModel, load_model, logits, predict_workers, probabilities
from ..predict import read_patches
from ..provenance import command_line
from ..runs import Run, open_run
from .moved import compare, least_detectable
from .words import said, verdict

__all__ = ["ALPHA", "EFFECT", "drift"]

Floats = NDArray[np.float64]

ALPHA = 0.01
EFFECT = 0.15
_BLOCK = 1024


def drift(
    model: Path,
    paths: Sequence[Path],
    *,
    store: Path | None = None,
    alpha: float = ALPHA,
    effect: float = EFFECT,
    out: Path | None = None,
) -> dict[str, Any]:
    """Hold the patches in `paths` (as `predict` takes them, or STORE/valid) against what `model`, a run, was trained on.

    Factors are held against a sample of train, from RUN/factors or measured on the run's store (`store` replaces the config's)
    and kept there; the model's scores against those of its valid split, as those of patches it was trained on flatter it. A
    number has drifted where its Kolmogorov-Smirnov distance is at least `effect` and its p-value, corrected for all numbers,
    below `alpha`.

    Returns the JSON that docs/slices.md specifies: {"drift", "leading", "verdict", "factors", "score", "words", ...}. With `out`,
    a new folder, it is written there with a figure. Memory holds about 200 bytes a patch. Raises DataError, ConfigError,
    SealedError, RunError, OutputError.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha}", valid="a number between 0 and 1; 0.01 by default")
    if not 0 <= effect <= 1:
        raise ConfigError(f"effect is {effect}", valid="a distance from 0 to 1; 0.15 by default")
    if not paths:
        raise DataError(
            "nothing to compare: no paths were given", valid="image files, folders, HDF5 files, or STORE/valid"
        )
    if out is not None:
        check_new(out, what="drift report")
    run = open_run(model)
    trained = load_model(model)
    sources = [_Source(path, read_checkpoint(run.best).state["store_sha256"]) for path in paths]
    reference, warnings = _reference(run, trained, store)
    values, scores = _measured(trained, run, sources, reference)
    result = _compared(run, reference, values, scores, alpha, effect)
    result |= {
        "model": str(model),
        "paths": [str(path) for path in paths],
        "warnings": warnings,
        "command": command_line(),
    }
    result["verdict"] = verdict(result)
    result["words"] = said(result)
    if out is not None:
        _write(out, result)
    return result


class _Source:
    """Where new patches come from; what is wrong with it is said before anything is measured."""

    def __init__(self, path: Path, trained_on: str) -> None:
        self.path = path
        self.split = None
        if (path / "manifest.json").is_file():
            raise DataError(f"{path} is a store, of several splits", valid=f"one of them, e.g. {path / 'valid'}")
        if not ((path / "images.npy").is_file() and (path.absolute().parent / "manifest.json").is_file()):
            return
        found = open_store(path.absolute().parent)
        name = path.absolute().name
        if name == "test":
            raise SealedError(
                "the test split is sealed, its pixels too", valid=f"new patches, or {path.with_name('valid')}"
            )
        if name == "train" and found.content_sha256 == trained_on:
            raise DataError(f"{path} is what the model was trained on: it is the reference", valid="other patches")
        self.split = next((split for split in found.splits.values() if split.name == name), None)

    def blocks(self) -> Iterator[NDArray[np.uint8]]:
        """(n, 96, 96, 3) uint8."""
        if self.split is None:
            yield from (pixels for pixels, _ in read_patches([self.path]))
            return
        rows = np.setdiff1d(np.arange(len(self.split)), self.split.quarantined)
        for start in range(0, len(rows), _BLOCK):
            yield np.asarray(self.split.images[rows[start : start + _BLOCK]])


def _reference(run: Run, trained: TrainedModel, store: Path | None) -> tuple[Reference, list[str]]:
    """The training set's sample: kept beside the run, or measured; and a warning where it cannot be kept."""
    cache = run.path / "factors" / "reference.npz"
    config, state = trained.config, read_checkpoint(run.best).state
    kept = read_reference(cache)
    if kept is not None and _fits(kept.identity, state):
        return kept, []
    where = store or Path(config.data.store)
    if not (where / "manifest.json").is_file():
        raise DataError(
            f"{run.path} keeps no reference of its training set, and its store {where} is not there",
            next="name the store with --store; then RUN/factors/reference.npz is kept, and goes with the run",
        )
    opened = open_store(where)
    if opened.content_sha256 != state["store_sha256"]:
        raise DataError(f"{where} is not the store that {run.path} was trained on", next="name that one with --store")
    train = open_part(opened, "train", config.data.partition, config.data.fold)
    if isinstance(train, Part) and train.sha256 != state["partition_sha256"]:
        raise DataError(f"the partition {train.partition} is not the one that {run.path} was trained on")
    train.verify()
    found = load_or_measure(opened, train, train.rows(config.data.quarantine), cache)
    try:
        stored(found, cache)
    except OutputError as e:
        return found, [f"the reference could not be kept, and is measured anew each time: {e.problem}"]
    return found, []


def _fits(identity: dict[str, Any], state: dict[str, Any]) -> bool:
    return (
        identity.get("version") == VERSION
        and identity.get("store_sha256") == state["store_sha256"]
        and identity.get("partition_sha256") == state["partition_sha256"]
        and identity.get("split") == "train"
    )


def _measured(
    trained: TrainedModel,
    run: Run,
    sources: Sequence[_Source],
    reference: Reference,
) -> tuple[Floats, "_Scores"]:
    """((n, factors) of the new patches, and the model's scores of them and of valid)."""
    from threadpoolctl import threadpool_limits

    known = run.predictions("valid")
    evaluation = read_json(run.evaluation("valid")) if run.evaluation("valid").is_file() else None
    tta = isinstance(evaluation, dict) and evaluation.get("tta") == "d4"
    parts, scores = [], []
    workers = predict_workers(trained)
    try:
        with threadpool_limits(limits=1, user_api="blas"), deterministic(trained.device, 1):
            for block in (block for source in sources for block in source.blocks()):
                values, histograms = measure(block)
                parts.append(np.column_stack([values, distances(np.sqrt(histograms), reference.roots)]))
                pixels = torch.from_numpy(np.ascontiguousarray(block))
                take = lambda a, b, p=pixels: p[a:b].to(trained.device)  # noqa: E731
                scores.append(probabilities(logits(trained, take, len(block), workers, tta=tta)))
    finally:
        workers.close()
    if not parts:
        raise DataError("there are no patches to compare", valid="image files, folders, HDF5 files, or STORE/valid")
    before = load_predictions(known).probability if known.is_file() else None
    return np.concatenate(parts).astype(np.float64), _Scores(before, np.concatenate(scores))


@dataclass(frozen=True)
class _Scores:
    """Probabilities of tumour."""

    valid: Floats | None
    """Of the valid split; None where the run has none."""
    new: Floats


def _compared(
    run: Run, reference: Reference, values: Floats, scores: _Scores, alpha: float, effect: float
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for column, factor in enumerate(FACTORS):
        found = compare(reference.values[:, column].astype(np.float64), values[:, column])
        rows.append({"name": factor.name, "family": factor.family, "unit": factor.unit, **found})
    if scores.valid is not None:
        rows.append({"name": "score", "family": "score", "unit": "probability", **compare(scores.valid, scores.new)})
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        assert p is not None  # none was left out
        row["p_corrected"] = p
        row["flagged"] = p < alpha and row["ks"] >= effect
    ranked = sorted((row for row in rows if row["name"] != "score"), key=lambda row: (-row["ks"], row["name"]))
    score = next((row for row in rows if row["name"] == "score"), None)
    # What may cause a drift goes before what follows from it.
    causes = [row for row in ranked if row["flagged"] and row["family"] not in ("novelty", "content")]
    others = [row for row in ranked if row["flagged"]]
    leading = next(iter(causes or others), None)
    n, m = len(values), len(reference.values)
    return {
        "drift": any(row["flagged"] for row in rows),
        "leading": None if leading is None else leading["name"],
        "n": n,
        "reference": {"n": m, "sha256": reference.sha256, "store_sha256": reference.identity["store_sha256"]},
        "score_reference": None if scores.valid is None else {"split": "valid", "n": len(scores.valid)},
        "alpha": alpha,
        "effect": effect,
        "least_detectable": least_detectable(m, n, alpha, len(rows)),
        "assumes": "patches are independent; those of one slide are not, so few slides make p-values too small",
        "factors": ranked,
        "score": score,
    }


def _write(out: Path, result: dict[str, Any]) -> None:
    from ..drawing import png
    from .figures import shifts

    with new_folder(out, what="drift report") as folder:
        result["drift_sha256"] = digest_of(result, "drift_sha256")
        write_json(folder / "drift.json", result)
        write_bytes(folder / "figures" / "drift.png", png(lambda: shifts(result)))
