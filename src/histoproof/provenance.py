"""Where a result came from: software, hardware, settings, command, commit. Written into every run's environment.json."""

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from . import __version__

__all__ = ["as_text", "command_line", "environment", "now", "same_environment"]

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
        "packages": {name: _package(name) for name in _PACKAGES},
        "device": device,
        "cpu": {
            "model": _cpu_model(),
            "cores": os.cpu_count(),
            "available": len(os.sched_getaffinity(0)),
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
        "gpu": {
            "name": cuda.name,
            "bytes": cuda.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "driver": _driver(),
        }
        if cuda
        else None,
        "flags": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
            "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
            "mkldnn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
            "blas": _blas(torch.__config__.show()),
        },
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "slurm": {
            k: v for k, v in os.environ.items() if k.startswith("SLURM_") and k.endswith(("_ID", "_COUNT", "NAME"))
        },
        "git": _git(Path.cwd()),
        "command": command_line(),
        "folder": str(Path.cwd()),
        "started": now(),
    }


def same_environment(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two environments agree in everything but what is of one start alone: time, place, command, job."""
    momentary = {"started", "command", "folder", "slurm", "git"}
    return all(a.get(key) == b.get(key) for key in {*a, *b} - momentary)


def command_line() -> list[str]:
    """The command as typed, with the program's bare name."""
    name = Path(sys.argv[0]).name
    return ["histoproof" if name in ("__main__.py", "histoproof") else name, *sys.argv[1:]]


def now() -> str:
    """The time in UTC, to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def as_text(content: dict[str, Any]) -> str:
    """The environment as a page to read: a line a fact, indented by section."""
    lines = ["What a rerun would need to know. The same facts for programs: environment.json", ""]

    def tell(value: Any, name: str, depth: int) -> None:
        pad = "  " * depth
        if isinstance(value, dict) and set(value) == {"version", "record_sha256"}:
            lines.append(f"{pad}{name}: {value['version']}  (RECORD sha256 {value['record_sha256']})")
        elif isinstance(value, dict):
            lines.append(f"{pad}{name}:")
            for key, inner in value.items():
                tell(inner, key, depth + 1)
        elif isinstance(value, list):
            lines.append(f"{pad}{name}: {shlex.join(map(str, value))}")
        else:
            lines.append(f"{pad}{name}: {'none' if value is None else value}")

    for key, value in content.items():
        tell(value, key, 0)
    return "\n".join(lines) + "\n"


def _package(name: str) -> dict[str, str | None] | None:
    """Version of an installed package, and a digest of its RECORD, which holds the digest of every file it installed."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    record = found.read_text("RECORD")
    return {"version": found.version, "record_sha256": hashlib.sha256(record.encode()).hexdigest() if record else None}


def _blas(description: str) -> str | None:
    """torch's linear algebra, as its build says."""
    found = re.search(r"BLAS_INFO=([^,]+)", description)
    return found[1] if found else None


def _driver() -> str | None:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except OSError:
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
