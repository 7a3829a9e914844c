"""What nvidia-smi says of a GPU while it is measured: utilisation, clocks, temperature, throttling, who else is there."""

import csv
import os
import subprocess
from typing import Any

import torch

__all__ = ["FIELDS", "THROTTLES", "gpu_now", "parse_apps", "parse_gpus", "throttles"]

FIELDS = (
    "index",
    "uuid",
    "utilization.gpu",
    "utilization.memory",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "clocks_throttle_reasons.active",
    "memory.used",
    "memory.total",
    "pstate",
)
_MIB = {"memory.used", "memory.total"}
_TEXT = {"uuid", "pstate", "clocks_throttle_reasons.active"}
THROTTLES = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}
"""Bits of clocks_throttle_reasons.active, as NVML names them."""


def parse_gpus(text: str) -> list[dict[str, Any]]:
    """One dict a GPU from `nvidia-smi --query-gpu=... --format=csv,noheader,nounits`; what is [N/A] is None, memory in bytes.
    Lines of another length are left out."""
    found = []
    for line in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(line) == len(FIELDS):
            found.append({name: _value(name, cell) for name, cell in zip(FIELDS, line, strict=True)})
    return found


def parse_apps(text: str) -> list[tuple[str, int, int | None]]:
    """(GPU's uuid, pid, bytes or None) from `--query-compute-apps=gpu_uuid,pid,used_memory`."""
    found = []
    for line in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(line) == 3 and line[1].strip().isdecimal():
            used = line[2].strip()
            found.append((line[0].strip(), int(line[1]), int(used) << 20 if used.isdecimal() else None))
    return found


def throttles(active: str | None) -> list[str] | None:
    """The names of the bits that are set, "idle" left out: it slows nothing down. None where it is not known."""
    try:
        bits = int(active or "", 16)
    except ValueError:
        return None
    return [name for bit, name in THROTTLES.items() if bits & bit and name != "idle"]


def gpu_now(device: torch.device) -> dict[str, Any]:
    """The state of the GPU that torch calls `device`; {"absent": why} where nvidia-smi cannot tell."""
    try:
        gpus = parse_gpus(_ask(f"--query-gpu={','.join(FIELDS)}"))
        apps = parse_apps(_ask("--query-compute-apps=gpu_uuid,pid,used_memory"))
    except (OSError, subprocess.SubprocessError) as e:
        return {"absent": f"nvidia-smi: {type(e).__name__}"}
    wanted = f"GPU-{getattr(torch.cuda.get_device_properties(device), 'uuid', '')}"
    mine = next((gpu for gpu in gpus if gpu["uuid"] == wanted), None)
    if mine is None and len(gpus) == 1:
        mine = gpus[0]
    if mine is None:
        return {"absent": "nvidia-smi does not list the GPU that torch computes on"}
    return state(mine, apps)


def state(gpu: dict[str, Any], apps: list[tuple[str, int, int | None]]) -> dict[str, Any]:
    """What a row keeps of a GPU: no names of processes, only their number and memory."""
    others = [used for uuid, pid, used in apps if uuid == gpu["uuid"] and pid != os.getpid()]
    return {
        "utilisation": gpu["utilization.gpu"],
        "sm_mhz": gpu["clocks.sm"],
        "sm_mhz_most": gpu["clocks.max.sm"],
        "memory_mhz": gpu["clocks.mem"],
        "celsius": gpu["temperature.gpu"],
        "watts": gpu["power.draw"],
        "throttled_by": throttles(gpu["clocks_throttle_reasons.active"]),
        "memory_used_bytes": gpu["memory.used"],
        "memory_bytes": gpu["memory.total"],
        "other_processes": len(others),
        "other_processes_bytes": sum(used or 0 for used in others),
    }


def _value(name: str, cell: str) -> Any:
    cell = cell.strip()
    if not cell or cell.startswith("["):
        return None
    if name in _TEXT:
        return cell
    try:
        number = float(cell)
    except ValueError:
        return None
    return int(number) << 20 if name in _MIB else int(number) if name == "index" else number


def _ask(query: str) -> str:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
