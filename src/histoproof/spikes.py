"""Spikes of the gradient norm, traced to the patches in their batches; and whether faulty patches cause them.

Which patches a step saw is not logged: it follows from config and store, and the trail's digest proves it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import rng
from .data.batches import Sampler
from .data.partition import Part, Patches, open_part
from .data.store import Store, open_store
from .errors import RunError
from .files import read_lines
from .runs import Run, open_run

__all__ = ["Enrichment", "enrichment", "find_spikes", "spikes"]

WINDOW = 51
"""Steps of the running median."""
SCORE = 3.5
"""Robust standard deviations above it (Iglewicz & Hoaglin 1993: a modified z-score over 3.5 is an outlier)."""
PERMUTATIONS = 10_000


@dataclass(frozen=True)
class Enrichment:
    """Do batches of spikes hold more faulty patches than the others, beyond chance?"""

    per_spike: float | None
    """Mean number of faulty patches in a spike's batch."""
    per_other: float | None
    """The same in all other batches."""
    p_value: float | None
    """One-sided permutation test: how often as many or more by chance; None where there is nothing to compare."""
    why: str | None = None


def find_spikes(norms: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(steps, scores) of the spikes of a run's gradient norms (S,), in the order of the steps.

    The norm's logarithm is held against its running median over 51 steps; the score is the distance in robust standard
    deviations (1.4826 times the median absolute deviation over the run), and a spike is 3.5 or more above: the Hampel identifier
    (Davies & Gather 1993, doi:10.1080/01621459.1993.10476339). A norm that is not finite is a spike of infinite score.
    """
    if len(norms) == 0:
        return np.array([], dtype=np.int64), np.array([], dtype=np.float64)
    usable = np.isfinite(norms) & (norms > 0)
    logs = np.log(np.where(usable, norms, 1.0))
    logs = np.where(usable, logs, np.median(logs[usable]) if usable.any() else 0.0)
    half = WINDOW // 2
    padded = np.pad(logs, half, mode="reflect" if len(logs) > half else "edge")
    median = np.median(np.lib.stride_tricks.sliding_window_view(padded, WINDOW), axis=1)
    rest = logs - median
    spread = 1.4826 * float(np.median(np.abs(rest)))
    scores = np.where(np.isfinite(norms), rest / spread if spread > 0 else 0.0, np.inf)
    steps = np.flatnonzero(scores >= SCORE).astype(np.int64)
    return steps, scores[steps]


def enrichment(faulty: NDArray[np.int64], spike_steps: NDArray[np.int64], seed: int) -> Enrichment:
    """Test whether spikes' batches hold more faulty patches. `faulty` (S,) counts them in each step's batch.

    10,000 permutations of which steps are spikes, drawn by key; the p-value counts the observed one too (Phipson & Smyth 2010).
    """
    if not len(spike_steps) or len(spike_steps) == len(faulty):
        return Enrichment(None, None, None, "no spikes" if not len(spike_steps) else "every step is a spike")
    is_spike = np.zeros(len(faulty), dtype=bool)
    is_spike[spike_steps] = True
    per_spike, per_other = float(faulty[is_spike].mean()), float(faulty[~is_spike].mean())
    if not faulty.any():
        return Enrichment(per_spike, per_other, None, "no patch with a finding was trained on")
    observed = int(faulty[is_spike].sum())
    draws = (_draw(rng.key(seed, "enrichment", turn), len(faulty), len(spike_steps)) for turn in range(PERMUTATIONS))
    at_least = sum(int(faulty[drawn].sum()) >= observed for drawn in draws)
    return Enrichment(per_spike, per_other, (1 + at_least) / (1 + PERMUTATIONS))


def _draw(key: int, n: int, count: int) -> NDArray[np.int64]:
    """`count` different numbers of range(n): the first that come up, without shuffling all n."""
    if count * 4 > n:
        return rng.permutation(key, n)[:count]
    wanted = 2 * count + 16
    while True:
        stream = np.floor(rng.uniform(key, wanted) * n).astype(np.int64)
        first = np.sort(np.unique(stream, return_index=True)[1])
        if len(first) >= count:
            return stream[first[:count]]
        wanted *= 2


def spikes(run: Path) -> dict[str, Any]:
    """The spikes of a run's gradient norm, with the patches in each and the findings they carry.

    Returns {"run", "steps", "spikes": [{"step", "epoch", "grad_norm", "score", "indices", "faulty": {index: [kinds]}}...],
    "enrichment": {"per_spike", "per_other", "p_value", "why"}}. Raises RunError for a run without steps or whose trail does
    not fit the store, DataError where the store is gone.
    """
    folder = open_run(run)
    lines = [line for line in read_lines(folder.metrics) if line["kind"] == "step"]
    if not lines:
        raise RunError(f"{run} has not made a step yet", next=f"go on with `histoproof train --resume {run}`")
    norms = np.array([np.nan if line["grad_norm"] is None else line["grad_norm"] for line in lines])
    steps, scores = find_spikes(norms)
    config = folder.load_config()
    store = open_store(Path(config.data.store))
    split = open_part(store, "train", config.data.partition, config.data.fold)
    sampler = _sampler(folder, split)
    batches = _batches(folder, sampler, len(lines))
    kinds = _faults(store, split)
    faulty = np.array([sum(int(i) in kinds for i in batch) for batch in batches], dtype=np.int64)
    return {
        "run": str(run),
        "steps": len(lines),
        "spikes": [
            {
                "step": int(step),
                "epoch": lines[step]["epoch"],
                "grad_norm": lines[step]["grad_norm"],
                "score": float(score),
                "indices": batches[step].tolist(),
                "faulty": {int(i): kinds[int(i)] for i in batches[step] if int(i) in kinds},
            }
            for step, score in zip(steps, scores, strict=True)
        ],
        "enrichment": vars(enrichment(faulty, steps, config.seed)),
    }


def _sampler(run: Run, split: Patches) -> Sampler:
    config = run.load_config()
    assert split.labels is not None
    return Sampler(
        split.rows(config.data.quarantine), split.labels, config.data.sampling, config.train.batch_size, config.seed
    )


def _batches(run: Run, sampler: Sampler, steps: int) -> list[NDArray[np.int64]]:
    """The rows of each step's batch, held against the trail's digests."""
    batches: list[NDArray[np.int64]] = []
    size, per_epoch = sampler.batch_size, sampler.steps_per_epoch
    for epoch in range(-(-steps // per_epoch)):
        order = sampler.order(epoch)
        batches += [order[k * size : (k + 1) * size] for k in range(per_epoch)]
    for line in read_lines(run.trail)[1 : steps + 1]:
        rows = batches[line["step"]]
        if hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest() != line["indices"]:
            raise RunError(
                f"the store is not the one {run.path} was trained on: step {line['step']} saw other patches",
                next="give the run its own store back, or pack it again from the same files",
            )
    return batches[:steps]


def _faults(store: Store, split: Patches) -> dict[int, list[str]]:
    """Kinds of the findings of each train patch, by its index there."""
    offsets = {str(k): v for k, v in split.offsets.items()} if isinstance(split, Part) else {"train": 0}
    kinds: dict[int, list[str]] = {}
    for line in read_lines(store.path / "findings.jsonl"):
        if line["split"] in offsets and line["index"] is not None:
            kinds.setdefault(offsets[line["split"]] + line["index"], []).append(line["kind"])
    return kinds
