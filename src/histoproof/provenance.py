"""Where a result came from: software, hardware, settings, command, commit. Written into every run's environment.json."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__

__all__ = ["command_line", "environment", "now"]

_PACKAGES = (
    "torch",
    "numpy",
    "h5py",
    "safetensors",
    "pydantic",
    "PyYAML",
    "monai",
    "pillow",
    "matplotlib",
    "scikit-learn",
)
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
)


def environment(device: str) -> dict[str, Any]:
    """What a rerun would need to know, as JSON. `device` is the kind computed on, e.g. "cpu"."""
    import torch

    cuda = torch.cuda.get_device_properties(0) if device == "cuda" else None
    return {
        "histoproof": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": device,
        "cpu": {
            "model": _cpu_model(),
            "cores": os.cpu_count(),
            "available": len(os.sched_getaffinity(0)),
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
        "gpu": {"name": cuda.name, "bytes": cuda.total_memory, "cuda": torch.version.cuda} if cuda else None,
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "slurm": {
            k: v for k, v in os.environ.items() if k.startswith("SLURM_") and k.endswith(("_ID", "_COUNT", "NAME"))
        },
        "git": _git(Path.cwd()),
        "command": command_line(),
        "started": now(),
    }


def command_line() -> list[str]:
    """The command as typed, with the program's bare name."""
    name = Path(sys.argv[0]).name
    return ["histoproof" if name in ("__main__.py", "histoproof") else name, *sys.argv[1:]]


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and cleanliness of the repository around `folder`; None outside one, or without git."""
    try:
        commit = _git_output(folder, "rev-parse", "HEAD")
        return {"commit": commit, "clean": not _git_output(folder, "status", "--porcelain", "--untracked-files=no")}
    except (OSError, subprocess.SubprocessError):
        return None


def _git_output(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
