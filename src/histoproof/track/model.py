"""The best checkpoint as an MLflow model: safetensors and the config, loaded by this module. No pickle is written, none is read.

MLflow's own ways to log a torch model pickle it. Its "loader module" way does not: the model is a folder of plain files and the
name of the module whose `_load_pyfunc` opens it. So whoever loads it needs histoproof installed, which its requirements say.
"""

import shutil
import warnings
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import __version__
from ..compute import deterministic
from ..data.pcam import PATCH_SHAPE
from ..errors import DataError
from ..inference import TrainedModel, load_model, logits, predict_workers, probabilities
from ..runs import Run

__all__ = ["send"]

_NAME = "model"
_TAG = "histoproof.best_weights_sha256"


def send(client: Any, run: Run, mlflow_run: str, experiment_id: str, weights: str, step: int) -> None:
    """Log the best checkpoint of a finished run as a model of an MLflow run. One begun and never ended is ended now."""
    from mlflow.entities import LoggedModelOutput

    wanted = f"source_run_id = '{mlflow_run}' AND tags.`{_TAG}` = '{weights}'"
    begun = client.search_logged_models([experiment_id], filter_string=wanted)
    if begun and begun[0].status == "READY":
        return
    logged = (
        begun[0]
        if begun
        else client.create_logged_model(experiment_id, name=_NAME, source_run_id=mlflow_run, tags={_TAG: weights})
    )
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / _NAME
        _write(run, folder, logged.model_id, mlflow_run)
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(mlflow_run, [LoggedModelOutput(logged.model_id, step)])


def _write(run: Run, folder: Path, model_id: str, mlflow_run: str) -> None:
    """An MLflow model: MLmodel with the signature, requirements, and data/, which is as much of the run as prediction needs."""
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *PATCH_SHAPE))]),
        outputs=Schema([TensorSpec(np.dtype(np.float64), (-1,))]),
    )
    with TemporaryDirectory() as temporary:
        data = Path(temporary) / "run"
        (data / "checkpoints").mkdir(parents=True)
        shutil.copyfile(run.config, data / "config.yaml")
        shutil.copyfile(run.best, data / "checkpoints" / run.best.name)
        with warnings.catch_warnings():  # MLflow misses an input example; the signature says it all
            warnings.simplefilter("ignore")
            mlflow.pyfunc.save_model(
                str(folder),
                loader_module=__name__,
                data_path=str(data),
                mlflow_model=Model(run_id=mlflow_run, model_id=model_id),
                signature=signature,
                pip_requirements=[
                    f"histoproof=={__version__}",
                    f"torch=={metadata.version('torch').partition('+')[0]}",
                ],
            )


def _load_pyfunc(path: str) -> "_Patches":
    """What MLflow calls to load the model from its data folder."""
    return _Patches(load_model(Path(path)))


class _Patches:
    """A model as MLflow wants it."""

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained

    def predict(self, images: NDArray[np.uint8], params: dict[str, Any] | None = None) -> NDArray[np.float64]:
        """(N,) probabilities of tumour of (N, 96, 96, 3) uint8 patches, the bits that `histoproof predict` gives."""
        if images.ndim != 4 or images.shape[1:] != PATCH_SHAPE or images.dtype != np.uint8:
            raise DataError(
                f"patches have shape {images.shape} and dtype {images.dtype}",
                valid=f"(N, {', '.join(map(str, PATCH_SHAPE))}) uint8",
            )
        pixels = torch.from_numpy(np.ascontiguousarray(images))
        trained, workers = self.trained, predict_workers(self.trained)
        tta = trained.config.evaluate.tta == "d4"
        try:
            with deterministic(trained.device, 1):
                found = logits(trained, lambda a, b: pixels[a:b].to(trained.device), len(pixels), workers, tta=tta)
        finally:
            workers.close()
        return probabilities(found)
