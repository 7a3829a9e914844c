"""What a champion has to beat: one answer for every patch, a logistic regression on mean colours, the mission's MLP.

Each is made on the champion's own store and partition, and predicts the same valid patches into the same kind of file.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration import logit
from ..config import Config, identity, load, shipped_config
from ..data.partition import Patches
from ..evaluate import Predictions
from ..files import sha256_file
from ..seeds import train_seeds
from .retrain import clear_stillborn
from .valid import Valid, predictions_of

__all__ = ["Baseline", "colour_features", "constant", "is_mission_mlp", "mean_colour", "mlp", "mlp_overrides"]

Floats = NDArray[np.float64]
_BLOCK = 1024
_CENTRE = slice(32, 64)
"""The 32x32 px whose tissue the label is about."""


@dataclass(frozen=True)
class Baseline:
    """A model to compare with, and its predictions on valid."""

    name: str
    what: str
    """In words."""
    found: Predictions
    threshold: float | None = None
    """None: the rule picks it."""
    run: Path | None = None

    def save(self, folder: Path) -> dict[str, Any]:
        """Write its predictions to FOLDER/NAME/valid.npz (a run has its own); returns {"what", "predictions", their digest}."""
        path = folder / self.name / "valid.npz" if self.run is None else self.run / "predictions" / "valid.npz"
        if self.run is None:
            self.found.save(path)
        said = {"what": self.what, "predictions": str(path.relative_to(folder.parent))}
        return {**said, "predictions_sha256": sha256_file(path)}


def constant(valid: Valid, quarantine: Any) -> tuple[Baseline, Baseline]:
    """The majority class of train for every patch; and the same constant, called as the threshold rule likes it best."""
    rows = valid.train.rows(quarantine)
    assert valid.train.labels is not None
    share = float(np.asarray(valid.train.labels[rows]).mean())
    found = Predictions(valid.rows, np.repeat(logit([share]), len(valid.rows)), valid.labels)
    which = "tumour" if share >= 0.5 else "normal"
    always = f"the majority class of train: {which} for every patch"
    return (
        Baseline("majority", always, found, threshold=0.5),
        Baseline("constant", "one answer for every patch, the one that the threshold rule likes best", found),
    )


def colour_features(patches: Patches, rows: NDArray[np.int64]) -> Floats:
    """(N, 12): mean and standard deviation of R, G, B, of the patch and of its centre 32x32 px, in units of 0-255.

    From whole-number sums, so the same on any machine; the patches stream.
    """
    out = np.empty((len(rows), 12))
    for start in range(0, len(rows), _BLOCK):
        images = np.asarray(patches.images[rows[start : start + _BLOCK]])
        parts = [images, images[:, _CENTRE, _CENTRE]]
        out[start : start + _BLOCK] = np.concatenate([_moments(part) for part in parts], axis=1)
    return out


def _moments(images_NHWC: NDArray[np.uint8]) -> Floats:
    pixels = images_NHWC.reshape(len(images_NHWC), -1, 3)
    n = pixels.shape[1]
    total = pixels.sum(axis=1, dtype=np.int64)
    squares = np.einsum("npc,npc->nc", pixels, pixels, dtype=np.int64)
    return np.concatenate([total / n, np.sqrt(n * squares - total**2) / n], axis=1)


def mean_colour(valid: Valid, quarantine: Any) -> Baseline | None:
    """Logistic regression on `colour_features`, standardised by train; L2 penalty, C = 1. None where train has one class."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    rows = valid.train.rows(quarantine)
    assert valid.train.labels is not None
    labels = np.asarray(valid.train.labels[rows])
    if len(np.unique(labels)) < 2:
        return None
    features, asked = colour_features(valid.train, rows), colour_features(valid.part, valid.rows)
    mean, sd = features.mean(axis=0), features.std(axis=0)
    sd[sd == 0] = 1.0
    with threadpool_limits(1):  # sums in one order, whatever the machine
        model = LogisticRegression(C=1.0, solver="lbfgs", max_iter=5000, tol=1e-8).fit((features - mean) / sd, labels)
        logits = np.asarray(model.decision_function((asked - mean) / sd), dtype=np.float64)
    what = "logistic regression on mean and sd of R, G, B, of the patch and its centre (scikit-learn)"
    return Baseline("mean-colour", what, Predictions(valid.rows, logits, valid.labels))


def mlp_overrides(config: Config, valid: Valid) -> list[str]:
    """What the mission's MLP takes over from the champion: the patches, their groups, and where it computes."""
    n = len(valid.train.rows(config.data.quarantine))
    taken = {
        "data.store": config.data.store,
        "data.partition": config.data.partition,
        "data.fold": config.data.fold,
        "data.quarantine": config.data.quarantine,
        "evaluate.groups": config.evaluate.groups.model_dump(mode="json"),
        "evaluate.bootstrap": config.evaluate.bootstrap,
        "train.device": config.train.device,
        "train.workers": config.train.workers,
    }
    least = {"train.batch_size": n} if n < load(shipped_config("baseline")).train.batch_size else {}
    return [f"{key}={json.dumps(value)}" for key, value in (taken | least).items()]


def is_mission_mlp(config: Config, valid: Valid) -> bool:
    """Whether a config is the mission's MLP itself, whatever its seed."""
    mission = load(shipped_config("baseline"), mlp_overrides(config, valid))
    return {**identity(config), "seed": None} == {**identity(mission), "seed": None}


def mlp(
    config: Config, valid: Valid, seed: int, folder: Path, progress: Callable[..., None] | None, *, tta: bool
) -> Baseline | dict[str, Any]:
    """The mission's MLP (configs/baseline.yaml), trained with `seed` into FOLDER/mlp/seedN, or reused where it is finished.

    Returns what `train_seeds` returns where a signal asked to stop.
    """
    overrides = mlp_overrides(config, valid)
    clear_stillborn(folder / "mlp" / f"seed{seed}")
    done = train_seeds(shipped_config("baseline"), [seed], overrides, within=folder / "mlp", progress=progress)
    if done["status"] == "stopped":
        return done
    run = folder / "mlp" / f"seed{seed}"
    return Baseline("mlp", f"the mission's MLP, seed {seed}", predictions_of(run, valid, tta=tta), run=run)
