"""The one inference path: training's validation, `evaluate` and `predict` all come through here.

Patches go through the model in chunks of one fixed size (the last is padded), so a patch's probability does not depend on how
many others were asked for, nor on the number of workers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import checkpoint, models
from .augment import dihedral
from .compute import Precision, Standardize, Workers, as_input, autocast, available_cores, pick_device
from .config import Config, parse
from .errors import RunError
from .runs import Run, open_run

__all__ = ["TrainedModel", "from_checkpoint", "load_model", "logits", "predict_workers", "probabilities"]

Take = Callable[[int, int], Tensor]
"""(start, stop) -> uint8 patches (stop - start, 96, 96, 3) on the model's device."""


@dataclass(frozen=True)
class TrainedModel:
    """A model ready to predict, with everything that turns pixels into its input."""

    module: nn.Module
    standardize: Standardize
    config: Config
    device: torch.device
    weights_sha256: str
    temperature: float = 1.0
    """What logits are divided by: a frozen champion's, so that its probabilities mean what they say."""

    @property
    def precision(self) -> Precision:
        """The arithmetic it was trained in, and predicts in."""
        return self.config.train.precision


def load_model(path: Path) -> TrainedModel:
    """The best checkpoint of a run. Raises RunError if there is none or it is damaged."""
    run = open_run(path)
    if not run.best.exists():
        advice = "train it again" if run.finished else f"finish it with `histoproof train --resume {path}`"
        raise RunError(f"{path} has no checkpoints/best.safetensors", next=advice)
    model = from_checkpoint(checkpoint.read(run.best), run)
    if run.finished and run.load_summary()["best_weights_sha256"] != model.weights_sha256:
        raise RunError(
            f"{run.best} is not the checkpoint this run ended with", next="put its own back, or train it again"
        )
    return model


def from_checkpoint(found: checkpoint.Checkpoint, run: Run) -> TrainedModel:
    """The model of a checkpoint that was read."""
    config = parse(found.state["config"], path=run.config)
    device = pick_device("auto" if config.train.device == "cuda" else config.train.device)
    module = models.build(config.model, config.seed)
    checkpoint.load_weights(module, found.part("model"), found.path)
    module.to(device).eval()
    standardize = Standardize(tuple(found.state["mean"]), tuple(found.state["std"]))
    return TrainedModel(module, standardize, config, device, checkpoint.weights_sha256(module))


def logits(
    model: TrainedModel,
    take: Take,
    count: int,
    workers: Workers,
    *,
    tta: bool = False,
    between: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """(count,) logits, divided by the model's temperature; with `tta`, of the mean probability over the 8 rotations and flips.

    `between` is called before each chunk and may raise to end the work.
    """
    size = model.config.evaluate.batch_size
    was_training = model.module.training
    model.module.eval()

    def chunk(_: int, piece: int) -> Tensor:
        between()
        start, stop = piece * size, min((piece + 1) * size, count)
        images = take(start, stop)
        if stop - start < size:
            images = torch.cat([images, images.new_zeros((size - (stop - start), *images.shape[1:]))])
        return torch.from_numpy(_forward(model, images, tta)).to(model.device)

    try:
        parts = workers.share_vectors(chunk, -(-count // size))
    finally:
        model.module.train(was_training)
    found: NDArray[np.float64] = torch.cat(list(parts))[:count].cpu().numpy()
    return found / model.temperature


def probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic function, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


def predict_workers(model: TrainedModel) -> Workers:
    """Workers for prediction: one a core, or one for a GPU."""
    return Workers(available_cores() if model.device.type == "cpu" else 1)


def _forward(model: TrainedModel, images_NHWC: Tensor, tta: bool) -> NDArray[np.float64]:
    views = [images_NHWC]
    if tta:
        views = [dihedral(images_NHWC, np.full(len(images_NHWC), element)) for element in range(8)]
    out = []
    for view in views:
        with torch.inference_mode(), autocast(model.device, model.precision):
            logits_B = model.module(as_input(view, model.standardize))
        out.append(logits_B.float().cpu().numpy().astype(np.float64))
    if not tta:
        return np.asarray(out[0])
    mean = np.mean([probabilities(o) for o in out], axis=0)
    clipped = np.clip(mean, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))
