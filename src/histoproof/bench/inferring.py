"""`bench infer`: a trained model at work, plain and averaged over the 8 rotations and flips."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..compute import Workers, available_cores, deterministic
from ..config import MlpConfig
from ..data.batches import Pixels
from ..data.partition import Patches, open_part
from ..data.store import open_store
from ..frozen import open_model
from ..inference import TrainedModel, logits
from ..models import parameter_count
from .ceilings import DTYPES, copy_cases, gemm_cases, largest_piece, random_rows, reading_cases, transfer_cases
from .drive import Plan, carry_out, effort_of
from .flops import Flops, count_flops
from .measure import Stage
from .options import BATCH_SIZES, PRECISIONS, Device, asked_devices, checked, checked_samples, whole_numbers
from .roofline import infer_ceiling
from .rounds import CPU, Case, Outcome
from .rows import rate_ratio
from .steps import transfer_of

__all__ = ["infer"]

_VIEWS = {None: 1, "d4": 8}
_ROWS = 1 << 16


def infer(
    model: Path,
    *,
    store: Path | None = None,
    batch_sizes: Sequence[Any] = BATCH_SIZES,
    devices: Sequence[str] = ("cpu", "cuda"),
    precisions: Sequence[str] = PRECISIONS,
    quick: bool = False,
    samples: int | None = None,
    out: Path | None = None,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """How many patches a second a run's best checkpoint, or a frozen champion, gives a probability to: patches of the valid split
    in random rows, plain and with D4 averaging. `store` replaces the config's. Reading, transfer and arithmetic alone, and end to
    end.

    Writes a folder (`out`, or the first free bench/NAME-001, ...) and returns the content of its bench.json (docs/bench.md); its
    `costs` hold what D4 averaging costs: the plain rate over the averaged one. Raises RunError, DataError, ConfigError,
    OutputError.
    """

    def make() -> Plan:
        checked_samples(samples)
        sizes, kinds = whole_numbers("--batch-sizes", batch_sizes), checked("--precisions", precisions, DTYPES)
        wanted, trained = asked_devices(devices), open_model(model)
        opened = open_store(store or Path(trained.config.data.store))
        part = open_part(opened, "valid", trained.config.data.partition, trained.config.data.fold)
        usable = part.rows(trained.config.data.quarantine) if part.labels is not None else np.arange(len(part))
        rows = usable[random_rows(len(usable), _ROWS, "infer")]
        flops = count_flops(trained.module)
        there = [device.torch for device in wanted if device.torch is not None]
        hidden = _hidden(trained)
        ceilings = reading_cases(largest_piece(part), there)
        for device in there:
            ceilings += [*copy_cases(device), *transfer_cases(device), *gemm_cases(device, kinds, hidden, sizes)]
        return Plan(
            kind="infer",
            stem=model.absolute().name,
            subject={
                "model": str(model),
                "weights_sha256": trained.weights_sha256,
                "store": str(opened.path),
                "store_sha256": opened.content_sha256,
                "n": len(usable),
                "settings": trained.config.as_dict(),
            },
            rows=[
                _case(trained, part, rows, flops, device, size, kind, variant)
                for device in wanted
                for kind in kinds
                for size in sizes
                for variant in _VIEWS
            ],
            ceilings=ceilings,
            ceiling_of=infer_ceiling,
            costs=_costs,
        )

    return carry_out(make, effort_of(quick, samples), out, progress)


def _hidden(trained: TrainedModel) -> int | None:
    model = trained.config.model
    return model.hidden[0] if isinstance(model, MlpConfig) and model.hidden else None


def _case(
    trained: TrainedModel,
    part: Patches,
    rows: NDArray[np.int64],
    flops: Flops,
    device: Device,
    batch: int,
    precision: str,
    variant: str | None,
) -> Case:
    name = {
        "what": "infer",
        "model": trained.config.model.name,
        "device": device.name,
        "batch_size": batch,
        "precision": precision,
        "variant": variant,
    }
    if device.torch is None:
        return Case(name, None, reason=device.reason)
    workers = available_cores() if device.torch.type == "cpu" else 1
    facts = {
        "flops": _VIEWS[variant] * flops.forward,
        "linear": flops.linear / max(flops.forward, 1),
        "parameters": parameter_count(trained.module),
    }
    opened = partial(_stages, trained, part, rows, device.torch, batch, precision, variant, workers)
    return Case(name, opened, device.torch, threads={"intra_op": 1, "workers": workers}, facts=facts)


@contextmanager
def _stages(
    trained: TrainedModel,
    part: Patches,
    rows: NDArray[np.int64],
    device: torch.device,
    batch: int,
    precision: str,
    variant: str | None,
    count: int,
) -> Iterator[dict[str, Stage]]:
    """data, transfer (on a GPU), compute and end_to_end. An iteration is a batch for each worker."""
    model, came_from = _as_asked(trained, device, batch, precision), trained.device
    try:
        with ExitStack() as stack:
            stack.enter_context(deterministic(device, 1))
            workers = stack.enter_context(closing(Workers(count)))
            reading = Pixels(part, "disk", CPU)
            pixels = Pixels(part, "disk", device)
            resident = pixels.take(_wrapped(rows, 0, batch))

            def read(n: int) -> float:
                def piece(_: int, i: int) -> None:
                    reading.take(_wrapped(rows, i * batch, (i + 1) * batch))

                workers.share(piece, n * count)
                return float(n * count * batch)

            def through(take: Callable[[int, int], torch.Tensor]) -> Callable[[int], float]:
                def run(n: int) -> float:
                    logits(model, take, n * count * batch, workers, tta=variant == "d4")
                    return float(n * count * batch)

                return run

            stages = {"data": Stage(read)}
            if device.type == "cuda":
                stages["transfer"] = transfer_of(resident)
            stages["compute"] = Stage(through(lambda start, stop: resident[: stop - start]))
            stages["end_to_end"] = Stage(through(lambda start, stop: pixels.take(_wrapped(rows, start, stop))))
            yield stages
    finally:
        trained.module.to(came_from)


def _as_asked(trained: TrainedModel, device: torch.device, batch: int, precision: str) -> TrainedModel:
    config = trained.config
    scored = config.evaluate.model_copy(update={"batch_size": batch})
    changed = config.train.model_copy(update={"precision": precision})
    return replace(
        trained,
        module=trained.module.to(device),
        config=config.model_copy(update={"evaluate": scored, "train": changed}),
        device=device,
    )


def _wrapped(rows: NDArray[np.int64], start: int, stop: int) -> NDArray[np.int64]:
    """Rows start to stop of an endless repetition of `rows`."""
    return rows[np.arange(start, stop) % len(rows)]


def _costs(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """What D4 averaging costs: plain rate over averaged rate, of the same turn's samples."""
    plain = {_key(one): one for one in outcomes if one.case.name["variant"] is None}
    found = []
    for one in outcomes:
        if one.case.name["variant"] == "d4":
            other = plain[_key(one)].samples.get("end_to_end", [])
            ratio = rate_ratio(other, one.samples.get("end_to_end", []))
            if ratio is not None:
                told = {**one.case.name, "what": "d4", "words": "D4 averaging takes as many times as long"}
                found.append({**told, "ratio": ratio})
    return found


def _key(outcome: Outcome) -> tuple[Any, ...]:
    return tuple(value for key, value in outcome.case.name.items() if key != "variant")
