"""`bench train`: reading, transfer and arithmetic of a training each alone, the training itself, and what is paid beside it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..compute import available_cores
from ..config import Config, MlpConfig, load, parse
from ..errors import HistoproofError
from ..experiment import Setup, config_digest, prefetch, prepare, threads
from ..models import build, parameter_count
from .ceilings import DTYPES, copy_cases, gemm_cases, largest_piece, reading_cases, transfer_cases
from .drive import Plan, Scratch, carry_out, effort_of
from .epochs import epoch_costs
from .flops import count_flops
from .options import BATCH_SIZES, MODELS, PRECISIONS, Device, asked_devices, checked, checked_samples, whole_numbers
from .roofline import training_ceiling
from .rounds import Case
from .steps import stages_of

__all__ = ["train"]


def train(
    config: Path,
    sets: Sequence[str] = (),
    *,
    batch_sizes: Sequence[Any] = BATCH_SIZES,
    devices: Sequence[str] = ("cpu", "cuda"),
    precisions: Sequence[str] = PRECISIONS,
    models: Sequence[str] = (),
    quick: bool = False,
    samples: int | None = None,
    out: Path | None = None,
    progress: Callable[..., None] | None = None,
) -> dict[str, Any]:
    """How many patches a second a training takes in: the config's, at each batch size, on each device, in each precision; and
    with other `models` in place of its own (with their default keys). Reading, transfer and arithmetic alone, and end to end:
    the training's own step with everything it writes down, into a run folder that is thrown away.

    Writes a folder (`out`, or the first free bench/NAME-001, ...) and returns the content of its bench.json (docs/bench.md).
    Raises ConfigError, DataError, OutputError.
    """

    def make() -> Plan:
        checked_samples(samples)
        sizes, kinds = whole_numbers("--batch-sizes", batch_sizes), checked("--precisions", precisions, DTYPES)
        wanted, base = asked_devices(devices), load(config, sets)
        names = checked("--models", models, MODELS) if models else [base.model.name]
        setup = prepare(_changed(base, base.model.name, 1, "fp32", "cpu"))
        scratch = Scratch()
        costly = min(sizes, key=lambda size: (abs(size - base.train.batch_size), size))
        rows = [
            _case(setup, base, scratch, name, device, size, kind, costs=size == costly)
            for name in names
            for device in wanted
            for kind in kinds
            for size in sizes
        ]
        there = [device.torch for device in wanted if device.torch is not None]
        ceilings = [*reading_cases(largest_piece(setup.train), there)]
        hidden = _hidden(base, names)
        for device in there:
            ceilings += [*copy_cases(device), *transfer_cases(device), *gemm_cases(device, kinds, hidden, sizes)]
        return Plan(
            kind="train",
            stem=config.stem,
            subject={
                "store": base.data.store,
                "store_sha256": setup.store.content_sha256,
                "config": str(config),
                "config_sha256": config_digest(base),
                "settings": base.as_dict(),
                "n": len(setup.sampler.rows),
                "valid": len(setup.valid_rows),
            },
            rows=rows,
            ceilings=ceilings,
            ceiling_of=training_ceiling,
            costs=epoch_costs,
            scratch=scratch,
        )

    return carry_out(make, effort_of(quick, samples), out, progress)


def _changed(base: Config, model: str, batch: int, precision: str, device: str) -> Config:
    """The config with another model, batch size, precision and device. Raises ConfigError."""
    content = base.as_dict()
    if model != base.model.name:
        content["model"] = {"name": model}
    content["train"] |= {"batch_size": batch, "precision": precision, "device": device}
    return parse(content)


def _hidden(base: Config, names: Sequence[str]) -> int | None:
    """Units of the MLP's first layer, where there is an MLP."""
    if "mlp" not in names:
        return None
    model = base.model if isinstance(base.model, MlpConfig) else MlpConfig(name="mlp")
    return model.hidden[0] if model.hidden else None


def _case(
    base_setup: Setup,
    base: Config,
    scratch: Scratch,
    model: str,
    device: Device,
    batch: int,
    precision: str,
    *,
    costs: bool,
) -> Case:
    name = {"what": "train", "model": model, "device": device.name, "batch_size": batch, "precision": precision}
    name["variant"] = None
    if device.torch is None:
        return Case(name, None, reason=device.reason)
    try:
        config = _changed(base, model, batch, precision, device.torch.type)
        sampler = replace(base_setup.sampler, batch_size=batch)
        built = build(config.model, config.seed)
    except HistoproofError as e:
        return Case(name, None, device.torch, reason=e.problem)
    setup = replace(base_setup, config=config, device=device.torch, sampler=sampler)
    flops = count_flops(built)
    intra_op, workers = threads(config.train, device.torch)
    facts = {
        "flops": flops.training,
        "linear": flops.linear / max(flops.forward, 1),
        "parameters": parameter_count(built),
        "moments": 2 if config.optim.name == "adamw" else 1,
        "steps": setup.sampler.steps_per_epoch,
        "patches": setup.sampler.steps_per_epoch * batch,
        "valid": len(setup.valid_rows),
        "checkpoints": config.train.checkpoint_every_steps,
    }
    return Case(
        name,
        partial(stages_of, setup, scratch, costs=costs),
        device.torch,
        threads={
            "intra_op": intra_op,
            "workers": workers,
            "prefetch": prefetch(config, device.torch) or 0,
            "cores": available_cores(),
        },
        facts=facts,
    )
