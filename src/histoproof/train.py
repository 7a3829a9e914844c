"""Training: a config becomes a run folder, or an unfinished run goes on; it ends in the same bits either way."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any

import torch

from . import checkpoint, models
from .compute import Workers, deterministic
from .config import Config, load
from .errors import TrainingError
from .evaluate import predict_split, save_evaluation, score_predictions
from .experiment import Setup, prepare, threads
from .files import sha256_file, write_json, write_text
from .inference import from_checkpoint
from .loop import Judge, Loop, Progress
from .provenance import as_text, environment, now, same_environment
from .runs import Run, create, free_name, locked, open_run
from .signals import StopRequest
from .world import World, join

__all__ = ["resume", "train"]

Watch = Callable[[Path], AbstractContextManager[None]]


def train(
    config: Path,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    judge: Judge | None = None,
) -> dict[str, Any]:
    """Train what `config` says into a new run folder (runs/NAME-001, ... unless `out` is given).

    `watch` is entered with the run folder before the first step and left after the last file is written, however training ends.

    `judge` is asked at each epoch's end, after its checkpoint, and may end the training there; it takes one process.

    Returns the run's summary, or {"run", "status": "stopped", "signal", "epochs", "steps"} when a signal asked it to stop, or
    {"run", "status": "pruned", "epochs", "steps"} when `judge` did: both can be gone on with by `resume`. Raises ConfigError,
    DataError, OutputError, and TrainingError when the loss is no longer finite or the GPU's memory too small.
    """
    resolved = load(config, overrides)
    resolved = _with_absolute_paths(resolved)
    setup = prepare(resolved)
    with join(setup.device) as world:
        run = Run(Path(world.first(lambda: str(_new_run(setup, world, out, config.stem)))))
        return _run(setup, run, world, progress, watch, judge)


def _with_absolute_paths(config: Config) -> Config:
    """So that a run can be resumed and evaluated from any folder."""
    data = config.data.model_copy(update={"store": str(Path(config.data.store).absolute())})
    groups = config.evaluate.groups
    if groups.csv is not None:
        groups = groups.model_copy(update={"csv": str(Path(groups.csv).absolute())})
    scored = config.evaluate.model_copy(update={"groups": groups})
    return config.model_copy(update={"data": data, "evaluate": scored})


def resume(
    path: Path, *, progress: Progress | None = None, watch: Watch | None = None, judge: Judge | None = None
) -> dict[str, Any]:
    """Go on with a run at the exact step of its last whole checkpoint; it ends in the bits it would have had.

    Returns what `train` returns; for a finished run its summary, unchanged.
    """
    run = open_run(path)
    if run.finished:
        return run.load_summary()
    setup = prepare(run.load_config())
    with join(setup.device) as world:
        return _run(setup, run, world, progress, watch, judge, here=_described(setup, world))


def _described(setup: Setup, world: World) -> dict[str, Any]:
    """The environment of this process, with its threads."""
    intra_op, workers = threads(setup.config.train, setup.device, world.size)
    with deterministic(setup.device, intra_op):
        described = environment(setup.device.type)
    return {**described, "threads": {"intra_op": intra_op, "workers": workers, "processes": world.size}}


def _new_run(setup: Setup, world: World, out: Path | None, stem: str) -> Path:
    described = _described(setup, world)
    run = create(out if out is not None else free_name(Path("runs"), stem))
    write_json(run.environment, described)
    write_text(run.reproducibility, as_text(described))
    write_text(run.config, setup.config.as_yaml())  # last: a folder with a config is a run that can be gone on with
    return run.path


def _run(
    setup: Setup,
    run: Run,
    world: World,
    progress: Progress | None,
    watch: Watch | None,
    judge: Judge | None,
    *,
    here: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train to the end. `here`: the environment in which a run goes on; where it is another one, the run says so."""
    intra_op, worker_count = threads(setup.config.train, setup.device, world.size)
    with ExitStack() as stack:
        if watch is not None and world.leads:
            stack.enter_context(watch(run.path))
        world.first(lambda: str(stack.enter_context(locked(run.path))))
        stack.enter_context(deterministic(setup.device, intra_op))
        stop = stack.enter_context(StopRequest())
        workers = stack.enter_context(closing(Workers(worker_count, world)))
        loop = stack.enter_context(closing(Loop(setup, run, workers)))
        if here is not None and not same_environment(run.environments()[-1][1], here):
            loop.events.append(
                {"event": "environment", "time": now(), "step": loop.reached()["steps"], "environment": here}
            )
        try:
            outcome = loop.fit(stop, progress, judge)
        except torch.OutOfMemoryError as e:
            raise TrainingError(
                f"the GPU's memory is too small: {str(e).splitlines()[0]}",
                next="a smaller train.batch_size, more train.shards, or data.residency: disk",
            ) from None
        if outcome == "pruned":
            return {"run": str(run.path), "status": "pruned", **loop.reached()}
        if outcome == "stopped":
            return {"run": str(run.path), "status": "stopped", "signal": stop.name, **loop.reached()}
        return _finish(setup, run, loop, workers)


def _finish(setup: Setup, run: Run, loop: Loop, workers: Workers) -> dict[str, Any]:
    """Score the best checkpoint on valid, as it lies on disk, and write the summary: the run is finished then."""
    best = from_checkpoint(checkpoint.read(run.best), run)
    found = predict_split(best, setup.valid, setup.valid_rows, workers)
    evaluation = score_predictions(found, setup.config, setup.store, setup.valid, model=best)
    assert loop.at.best is not None
    summary = {
        "run": str(run.path),
        "status": "finished",
        "model": setup.config.model.name,
        "parameters": models.parameter_count(loop.model),
        **loop.reached(),
        "best": {**loop.at.best, "intervals": evaluation["metrics"]},
        "weights_sha256": checkpoint.weights_sha256(loop.model),
        "trail_sha256": loop.recorder.chain,
        "best_weights_sha256": best.weights_sha256,
        "store_sha256": setup.store.content_sha256,
        "partition": evaluation["partition"],
        "warnings": [*loop.problems, *_one_class(setup), *_warnings(evaluation)],
    }
    loop.events.append({"event": "finish", "time": now(), "step": loop.at.step})
    if workers.world.leads:
        save_evaluation(run, found, evaluation)
        summary["metrics_sha256"] = sha256_file(run.metrics)
        write_json(run.summary, summary)
    return summary


def _one_class(setup: Setup) -> list[str]:
    labels = set(setup.sampler.labels[setup.sampler.rows].tolist())
    return [] if len(labels) == 2 else [f"every usable train patch has label {labels.pop()}: nothing can be told apart"]


def _warnings(evaluation: dict[str, Any]) -> list[str]:
    """What nobody may overlook about a finished run."""
    auc = evaluation["metrics"]["auc"]
    if auc["value"] is None:
        return [f"valid AUC is undefined: {auc['why']}"]
    if auc["low"] is not None and auc["low"] <= 0.5 <= auc["high"]:
        return [
            f"at chance level: the valid AUC is {auc['value']:.3f}, its interval {auc['low']:.3f} to {auc['high']:.3f} "
            "contains 0.5. This model has learned nothing that can be shown"
        ]
    return []
