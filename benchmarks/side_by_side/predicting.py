"""Inference: histoproof's one inference path beside a plain eager loop over the same patches with the same weights."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from histoproof import models
from histoproof.compute import Standardize, Workers, autocast, available_cores
from histoproof.config import load, shipped_config
from histoproof.data.batches import Pixels
from histoproof.inference import TrainedModel, logits

from .contender import UnequalError
from .patches import Patches
from .timing import Plan, Task, not_measured, ratio, rows_of, run_rounds

__all__ = ["measure"]

CPU = torch.device("cpu")
CONFIGS = {"MLP": "baseline", "CNN": "champion"}
ONNX = "ONNX Runtime"


def measure(patches: Patches, plan: Plan, count: int) -> dict[str, Any]:
    """`count` patches a block, in order from the memory map, in the precision each model is trained in."""
    pixels, count = Pixels(patches.train(), "disk", CPU), min(count, len(patches))
    cores = available_cores()
    tasks = []
    with closing(Workers(cores)) as workers:
        for name, config_name in CONFIGS.items():
            config = load(shipped_config(config_name), ["train.device=cpu"])
            module = models.build(config.model, config.seed).eval()
            model = TrainedModel(module, Standardize(), config, CPU, "")
            mine, plain = _histoproof(model, pixels, count, workers), _plain(model, pixels, count)
            _check(name, mine(), plain(), config.train.precision)
            words = f"{name}, {config.train.precision}, batches of {config.evaluate.batch_size}"
            tasks += [
                Task(f"histoproof, {name}", f"histoproof: {words}", _block(mine), 1),
                Task(f"eager, {name}", f"plain eager loop: {words}", _block(plain), cores),
            ]
        samples = run_rounds(tasks, plan)
    onnx = not_measured(ONNX, "ONNX Runtime, the same models", "histoproof has no ONNX exporter yet")
    return {
        "patches_a_block": count,
        "rows": [*rows_of(tasks, samples), onnx],
        "ratios": [ratio(f"histoproof, {name}", f"eager, {name}", samples) for name in CONFIGS],
    }


def _histoproof(model: TrainedModel, pixels: Pixels, count: int, workers: Workers) -> Callable[[], NDArray[np.float64]]:
    return lambda: logits(model, lambda start, stop: pixels.take(np.arange(start, stop)), count, workers)


def _plain(model: TrainedModel, pixels: Pixels, count: int) -> Callable[[], NDArray[np.float64]]:
    """As it is usually written; torch shares each operation among the cores."""
    size = model.config.evaluate.batch_size

    def run() -> NDArray[np.float64]:
        found = []
        with torch.inference_mode(), autocast(CPU, model.precision):
            for start in range(0, count, size):
                images = pixels.take(np.arange(start, min(start + size, count)))
                found.append(model.module(images.permute(0, 3, 1, 2).float() / 255).float())
        return torch.cat(found).double().numpy()

    return run


def _check(name: str, mine: NDArray[np.float64], plain: NDArray[np.float64], precision: str) -> None:
    """Both must have done the same work. Raises UnequalError."""
    tolerance = 1e-4 if precision == "fp32" else 0.05
    if mine.shape != plain.shape or not np.allclose(mine, plain, atol=tolerance, rtol=tolerance):
        raise UnequalError(f"{name}: the logits differ by up to {np.abs(mine - plain).max():.3g}")


def _block(run: Callable[[], NDArray[np.float64]]) -> Callable[[], int]:
    return lambda: len(run())
