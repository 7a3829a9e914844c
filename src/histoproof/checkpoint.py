"""Checkpoints: safetensors with everything a run needs to go on, a readable JSON beside each, never a pickle.

The JSON is a copy for people; the state that counts is in the safetensors header, so a checkpoint is one file and is replaced
in one rename. A digest of its tensors is checked on loading.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from .errors import RunError, writing
from .files import canonical, write_bytes, write_json

__all__ = [
    "LARGE",
    "PIECES",
    "Checkpoint",
    "fingerprint",
    "load_latest",
    "load_weights",
    "piece_digest",
    "pieces",
    "read",
    "tensors_sha256",
    "weights_sha256",
    "write",
    "write_last",
]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: tensors by name ("model.*", "optim.*") and the state beside them."""

    path: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix` and a dot, without it."""
        return {name.removeprefix(f"{prefix}."): t for name, t in self.tensors.items() if name.startswith(f"{prefix}.")}


def weights_sha256(model: nn.Module) -> str:
    """Digest of a model's weights and buffers: names, dtypes, shapes and bytes, in the order of the names."""
    return tensors_sha256(model.state_dict())


LARGE, PIECES = 2**18, 4
"""Numbers from which a tensor is taken in pieces, so that workers can share them; and how many pieces."""


def pieces(tensor: Tensor) -> list[Tensor]:
    """A tensor's numbers as they lie in memory, flat: in one piece, or a large one in PIECES equal ones (as near as can be)."""
    flat = _flat(tensor.detach())
    return [flat] if flat.numel() < LARGE else list(torch.tensor_split(flat, PIECES))


def piece_digest(piece: Tensor) -> bytes:
    """XXH3-128 of the bytes of a flat tensor."""
    return xxhash.xxh3_128_digest(piece.cpu().view(torch.uint8).numpy().data)


def fingerprint(tensors: Sequence[Tensor], known: Mapping[int, Sequence[bytes]] | None = None) -> str:
    """XXH3-128 of tensors in their order, where a large one is the digests of its pieces: fast enough for every step; no proof
    against forgery, which SHA-256 is for. `known`: digests of the pieces of tensors by their place, computed already."""
    digest = xxhash.xxh3_128()
    for place, tensor in enumerate(tensors):
        if known and place in known:
            digest.update(b"".join(known[place]))
            continue
        parts = pieces(tensor)
        if len(parts) == 1:
            digest.update(parts[0].cpu().view(torch.uint8).numpy().data)
        else:
            digest.update(b"".join([piece_digest(part) for part in parts]))
    return digest.hexdigest()


def _flat(tensor: Tensor) -> Tensor:
    """The numbers in the order of memory: of what is dense there (channels_last weights, a PixelLinear's) without a copy."""
    if tensor.ndim == 4:
        tensor = tensor.permute(0, 2, 3, 1)
    elif tensor.ndim == 2 and not tensor.is_contiguous():
        tensor = tensor.t()
    return tensor.contiguous().view(-1)


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over named tensors, whatever device or memory format they are in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all, and its JSON beside it."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    state = {**state, "tensors_sha256": tensors_sha256(plain)}
    write_bytes(path, serialize(plain, metadata={"histoproof": canonical(state)}))
    write_json(path.with_suffix(".json"), state)


def write_last(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write `last`, keeping the one before as `previous`: at every moment at least one whole checkpoint is there."""
    last, previous = folder / "last.safetensors", folder / "previous.safetensors"
    with writing(previous):
        if last.exists():
            link = folder / ".previous.tmp"
            link.unlink(missing_ok=True)
            try:
                os.link(last, link)
            except OSError:  # a file system without hard links
                shutil.copyfile(last, link)
            os.replace(link, previous)
    write(last, tensors, state)


def read(path: Path) -> Checkpoint:
    """Read and verify a checkpoint. Raises RunError if it is missing, damaged, or not ours."""
    if not path.is_file():
        raise RunError(f"no such checkpoint: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        state = json.loads(metadata["histoproof"])
    except (SafetensorError, OSError, KeyError, ValueError) as e:
        raise RunError(f"{path} is damaged or no checkpoint of histoproof: {e or type(e).__name__}") from None
    if state.get("tensors_sha256") != tensors_sha256(tensors):
        raise RunError(f"{path} is damaged: its tensors do not have the digest it was written with")
    return Checkpoint(path, tensors, state)


def load_latest(folder: Path, *, set_aside: bool) -> tuple[Checkpoint | None, list[str]]:
    """(the newest whole checkpoint, or None if there never was one; what was wrong with those passed over, which `set_aside`
    renames to *.damaged). Raises RunError if none is whole."""
    problems: list[str] = []
    for name in ("last", "previous"):
        path = folder / f"{name}.safetensors"
        if path.exists():
            try:
                return read(path), problems
            except RunError as e:
                problems.append(e.problem)
                if set_aside:  # out of the way: it must not become `previous` and push out the whole one
                    with writing(path):
                        path.replace(folder / f"{name}.damaged")
    if problems:
        raise RunError(
            f"no checkpoint in {folder} is whole: {'; '.join(problems)}",
            next="start a new run; the damaged files were kept as *.damaged",
        )
    return None, problems


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Put a checkpoint's weights into a model of the same shape. Raises RunError if they do not fit."""
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as e:
        raise RunError(f"{path} does not fit the model of its config: {' '.join(str(e).split())[:300]}") from None
