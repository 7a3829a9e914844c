"""What may be asked of a bench: lists of batch sizes, devices, precisions, models; each mistake answered with what is valid."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..compute import pick_device
from ..errors import ConfigError

__all__ = [
    "BATCH_SIZES",
    "MODELS",
    "PRECISIONS",
    "Device",
    "asked_devices",
    "checked",
    "checked_samples",
    "whole_numbers",
]

BATCH_SIZES = (1, 4, 8, 16, 64, 256)
PRECISIONS = ("fp32", "bf16")
MODELS = ("mlp", "cnn", "densenet121", "resnet18")
_MOST = 1_000_000


class Device:
    """A device that was asked for: `name` cpu or cuda; `torch` is None where it is not there, and `reason` says why."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.torch: torch.device | None = None
        self.reason: str | None = None
        try:
            self.torch = pick_device(name)  # type: ignore[arg-type]
        except ConfigError as e:
            self.reason = e.problem.removeprefix("train.device = cuda, but ")


def asked_devices(names: Sequence[str]) -> list[Device]:
    """Those of `names` (cpu, cuda), or with "auto" those that are there. Raises ConfigError."""
    wanted = checked("--devices", names, ("cpu", "cuda", "auto"))
    if "auto" in wanted:
        return [device for device in map(Device, ("cpu", "cuda")) if device.torch is not None]
    return [Device(name) for name in wanted]


def checked(option: str, values: Sequence[str], valid: Iterable[str]) -> list[str]:
    """`values` without repetition. Raises ConfigError for one that is not valid, or for none."""
    valid = tuple(valid)
    for value in values:
        if value not in valid:
            raise ConfigError(f"{option} {value!r} is not valid", valid=", ".join(valid))
    if not values:
        raise ConfigError(f"{option} is empty", valid=", ".join(valid))
    return list(dict.fromkeys(values))


def whole_numbers(option: str, values: Sequence[Any]) -> list[int]:
    """Batch sizes, rising, without repetition. Raises ConfigError for what is no whole number from 1 to 1,000,000."""
    found = []
    for value in values:
        text = str(value).strip()
        if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MOST):
            raise ConfigError(
                f"{option} {text!r} is not valid", valid=f"whole numbers from 1 to {_MOST:,}, e.g. 1,64,256"
            )
        found.append(int(text))
    if not found:
        raise ConfigError(f"{option} is empty", valid="whole numbers, e.g. 1,64,256")
    return sorted(set(found))


def checked_samples(samples: int | None) -> None:
    """Raise ConfigError for a number of samples that is none."""
    if samples is not None and not 1 <= samples <= 10_000:
        raise ConfigError(f"--samples {samples} is not valid", valid="1 to 10,000; 6 or more for an interval")
