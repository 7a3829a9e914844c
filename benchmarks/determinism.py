"""What do shards, the trail and determinism cost? Side by side, in alternating blocks of steps of one process.

    make bench-determinism

plain    one forward and backward pass over the whole batch, `cores` threads inside operations, nothing written down
shards   the same batch in shards on `cores` worker threads, nothing written down
full     shards, and metrics.jsonl and trail.jsonl with their fingerprints, as `histoproof train` does it

Prints patches per second (median of the blocks) and ratios of the blocks that stand side by side (median, lowest, highest).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from histoproof import checkpoint, models
from histoproof.compute import Precision, Standardize, Workers, as_input, autocast, available_cores
from histoproof.config import AugmentConfig, CnnConfig, MlpConfig, OptimConfig
from histoproof.data.batches import Batch, Pixels, Sampler, make_batch
from histoproof.data.pack import pack
from histoproof.data.store import open_store
from histoproof.data.synth import synth
from histoproof.optim import Update, build_optimizer, clip_factor
from histoproof.provenance import environment
from histoproof.recorder import Recorder, Seen
from histoproof.shards import ShardedStep

CPU = torch.device("cpu")
Case = tuple[str, Any, Precision, int, AugmentConfig]
"""Name, model, precision, shards, augmentation."""
CASES: list[Case] = [
    ("cnn", CnnConfig(name="cnn"), "fp32", 4, AugmentConfig(d4=True, brightness=0.1, contrast=0.1, channel=0.1)),
    ("cnn", CnnConfig(name="cnn"), "bf16", 4, AugmentConfig(d4=True, brightness=0.1, contrast=0.1, channel=0.1)),
    ("mlp", MlpConfig(name="mlp"), "fp32", 4, AugmentConfig()),
]
STANDARDIZE = Standardize((0.7, 0.5, 0.7), (0.2, 0.3, 0.2))
Step = Callable[[Batch, int], None]


def plain_step(config: Any, precision: Precision) -> Step:
    """Training as it is usually written."""
    model = models.build(config, 1).train()
    parameters, dropouts = list(model.parameters()), models.keyed_dropouts(model)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, 0.001, momentum=0.9)
    if config.name == "cnn":
        optimizer = torch.optim.AdamW(parameters, 0.001, betas=(0.9, 0.999))

    def step(batch: Batch, number: int) -> None:
        models.rekey(dropouts, CPU, 1, number, 0)
        with autocast(CPU, precision):
            logits = model(as_input(batch.images, STANDARDIZE, batch.colour))
        loss = F.binary_cross_entropy_with_logits(logits.float(), batch.labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        loss.item()

    return step


def sharded_step(config: Any, precision: Precision, shards: int, workers: Workers, recorder: Recorder | None) -> Step:
    """Training as histoproof does it, with or without writing it down."""
    model = models.build(config, 1).train()
    optimizer = build_optimizer(OptimConfig(name="adamw" if config.name == "cnn" else "sgd"), model)
    sharded = ShardedStep(model, shards, workers, device=CPU, precision=precision, standardize=STANDARDIZE, seed=1)

    update = Update(optimizer, list(model.parameters()), workers)
    state, moved = list(model.state_dict().values()), dict[int, list[bytes]]()

    def step(batch: Batch, number: int) -> None:
        nonlocal moved
        weights = checkpoint.fingerprint(state, moved) if recorder else ""
        result = sharded(batch, number, 1.0)
        gradient = checkpoint.fingerprint(result.gradients, result.digests) if recorder else ""
        moved = update(result.gradients, 0.001, clip_factor(result.norm, 1.0))
        if recorder:
            seen = Seen(number, 1, batch.indices, weights, result.loss, gradient, result.norm, 0.001)
            recorder.step(seen, model if number % 100 == 99 else None)

    return step


def measure(case: Case, store: Path, blocks: int, steps: int) -> dict[str, Any]:
    """Alternate blocks of `steps` steps of each kind; the first block of each is not counted."""
    name, config, precision, shards, augment = case
    split = open_store(store).split("train")
    assert split.labels is not None
    sampler = Sampler(split.rows("exclude"), split.labels, "natural", 64, 1)
    pixels, order, cores = Pixels(split, "ram", CPU), sampler.order(0), available_cores()
    workers = Workers(cores)
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder) / "metrics.jsonl", Path(folder) / "trail.jsonl")
        kinds: dict[str, tuple[int, Step]] = {
            "plain": (cores, plain_step(config, precision)),
            "shards": (1, sharded_step(config, precision, shards, workers, None)),
            "full": (1, sharded_step(config, precision, shards, workers, recorder)),
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        for block in range(blocks + 1):
            for kind, (threads, step) in kinds.items():
                torch.set_num_threads(threads)
                start = time.perf_counter()
                for k in range(steps):
                    step(make_batch(pixels, sampler, order, augment, 0, k % sampler.steps_per_epoch), block * steps + k)
                if block:
                    seconds[kind].append(time.perf_counter() - start)
        recorder.close()
    workers.close()
    rates = {kind: [64 * steps / s for s in values] for kind, values in seconds.items()}
    return {
        "what": name,
        "precision": precision,
        "shards": shards,
        "batch_size": 64,
        "images_per_s": {k: {"median": statistics.median(v), "samples": v} for k, v in rates.items()},
        "shards_to_plain": ratio(rates["shards"], rates["plain"]),
        "full_to_shards": ratio(rates["full"], rates["shards"]),
        "full_to_plain": ratio(rates["full"], rates["plain"]),
    }


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    """Median, lowest and highest ratio of neighbouring blocks."""
    values = [x / y for x, y in zip(a, b, strict=True)]
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def main() -> None:
    """Measure every case and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        synth(Path(folder) / "official", train=512, valid=0, test=0)
        pack(Path(folder) / "official", Path(folder) / "store")
        rows = [measure(case, Path(folder) / "store", arguments.blocks, arguments.steps) for case in CASES]
    here = environment("cpu")
    if arguments.json:
        print(json.dumps({"environment": here, "rows": rows}, indent=2))
        return
    print(
        f"{here['cpu']['model']}, {here['cpu']['available']} cores, torch {here['packages']['torch']['version']};",
        end=" ",
    )
    print(f"batch 64, {arguments.blocks} blocks of {arguments.steps} steps each, alternating")
    for row in rows:
        speed = {kind: f"{value['median']:.0f}" for kind, value in row["images_per_s"].items()}
        print(f"{row['what']} {row['precision']}, {row['shards']} shards: patches/s {speed}")
        for name in ("shards_to_plain", "full_to_shards", "full_to_plain"):
            print(f"    {name:16} {row[name]['median']:.3f}  ({row[name]['low']:.3f} to {row[name]['high']:.3f})")


if __name__ == "__main__":
    np.seterr(all="raise")
    main()
