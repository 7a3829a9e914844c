"""What a run writes down about every step and epoch: metrics.jsonl for reading, trail.jsonl for proof."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from . import checkpoint
from .errors import RunError
from .files import JsonLines
from .runs import GENESIS, Trail, trail_end

__all__ = ["Recorder", "Seen"]


@dataclass(frozen=True)
class Seen:
    """One step's facts, exact."""

    step: int
    """From 0 over the whole run."""
    epoch: int
    """From 1."""
    indices: NDArray[np.int64]
    """(B,) rows of the batch."""
    weights: str
    """Fingerprint of the weights before the step."""
    loss: float
    """Mean over the batch, in nats."""
    gradient: str
    """Fingerprint of the gradients, before clipping."""
    grad_norm: float
    """L2, before clipping."""
    lr: float


class Recorder:
    """Both files of a run, kept in step with each other."""

    def __init__(self, metrics: Path | None, trail: Path | None, *, at: dict[str, Any] | None = None) -> None:
        """Open both for appending. `at` is a `position` of earlier: what was appended after it is cut; None: begin anew. Without
        paths nothing is kept. Raises RunError if the trail up to there is not the one it was."""
        self._metrics = JsonLines(metrics, keep_bytes=at["metrics_bytes"] if at else 0)
        self._trail = Trail(JsonLines(trail, keep_bytes=at["trail_bytes"] if at else 0), at["chain"] if at else GENESIS)
        try:
            if trail is not None and trail_end(trail) != self._trail.link:
                raise RunError(f"{trail} is not the trail its checkpoint was written with", next="start a new run")
        except RunError:
            self.close()
            raise

    @property
    def chain(self) -> str:
        """The trail's last link."""
        return self._trail.link

    def begin(self, **digests: str) -> None:
        """The trail's first line: digests of what the run begins with."""
        self._trail.append(digests)

    def step(self, seen: Seen, digest_of: nn.Module | None = None) -> None:
        """Append a step to both files; with `digest_of`, also the SHA-256 of that model's weights."""
        self._metrics.append(
            {
                "kind": "step",
                "step": seen.step,
                "epoch": seen.epoch,
                "loss": seen.loss,
                "grad_norm": seen.grad_norm,
                "lr": seen.lr,
            }
        )
        line = {
            "step": seen.step,
            "indices": hashlib.blake2b(seen.indices.tobytes(), digest_size=16).hexdigest(),
            "weights": seen.weights,
            "loss": seen.loss.hex(),
            "gradient": seen.gradient,
            "grad_norm": seen.grad_norm.hex(),
            "lr": seen.lr.hex(),
        }
        if digest_of is not None:
            line["weights_sha256"] = checkpoint.weights_sha256(digest_of)
        self._trail.append(line)

    def epoch(self, line: dict[str, Any]) -> None:
        """Append an epoch to metrics.jsonl."""
        self._metrics.append({"kind": "epoch", **line})

    def position(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on from here, once both files are safe on the disk."""
        self._metrics.sync()
        self._trail.file.sync()
        return {"metrics_bytes": self._metrics.bytes, "trail_bytes": self._trail.file.bytes, "chain": self._trail.link}

    def close(self) -> None:
        """Close both files."""
        self._metrics.close()
        self._trail.file.close()
