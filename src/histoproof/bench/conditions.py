""" "Why was it slower yesterday?": what the machine did while a row was measured, from /proc, /sys and nvidia-smi.

What cannot be read here is null. Of other users' processes only their number and their share of the CPU is kept.
"""

import os
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .gpu import gpu_now
from .memory import available_bytes

__all__ = ["Conditions", "Snapshot", "busy_others", "cgroup_cpu", "watched"]

_TICKS = os.sysconf("SC_CLK_TCK")
_BUSY = 0.05
"""Cores' worth of CPU from which another process counts as busy."""
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Snapshot:
    """Counters at one moment. A field that cannot be read is None."""

    time: float
    own_cpu_s: float
    involuntary: int
    machine: tuple[float, float, float] | None
    """(busy, stolen, all) seconds of all CPUs since boot."""
    processes: dict[int, int]
    """{pid: ticks of CPU used} of every other process that can be seen."""
    throttled: tuple[int, int, float] | None
    """(periods, throttled periods, throttled seconds) of the cgroup."""
    stalled_s: float | None
    """Seconds in which some task waited for memory."""


@dataclass
class Conditions:
    """What is added up over a row's turns."""

    pieces: list[dict[str, Any]] = field(default_factory=list)
    """One dict a turn."""

    def as_json(self) -> dict[str, Any]:
        """Counters as shares of the row's whole time, what was seen at moments as its range; {} before the first turn."""
        if not self.pieces:
            return {}
        seconds = sum(piece["seconds"] for piece in self.pieces)

        def mean(name: str) -> float | None:
            found = [piece[name] * piece["seconds"] for piece in self.pieces if piece[name] is not None]
            return sum(found) / seconds if len(found) == len(self.pieces) else None

        return {
            "seconds": seconds,
            "load_1min": _range([piece["load"] for piece in self.pieces]),
            "own_cores": mean("own_cores"),
            "busy_elsewhere_cores": mean("busy_elsewhere_cores"),
            "steal_share": mean("steal_share"),
            "involuntary_switches_per_s": mean("involuntary_per_s"),
            "other_processes": {
                "busy": max(piece["others"][0] for piece in self.pieces),
                "cores": sum(piece["others"][1] * piece["seconds"] for piece in self.pieces) / seconds,
            },
            "cpu_mhz": _range([mhz for piece in self.pieces for mhz in piece["mhz"]]),
            "governor": self.pieces[-1]["governor"],
            "quota_cores": self.pieces[-1]["quota_cores"],
            "throttled_share": mean("throttled_share"),
            "celsius": max((c for piece in self.pieces for c in piece["celsius"]), default=None),
            "memory_stalled_share": mean("memory_stalled_share"),
            "memory_available_bytes": min(
                (piece["available"] for piece in self.pieces if piece["available"] is not None), default=None
            ),
            "gpu": _gpu([piece["gpu"] for piece in self.pieces if piece["gpu"] is not None]),
        }


@contextmanager
def watched(into: Conditions, device: torch.device) -> Iterator[None]:
    """Add what happens within the block to `into`, also where it ends in an error."""
    before_gpu = gpu_now(device) if device.type == "cuda" else None
    before = _now()
    try:
        yield
    finally:
        after = _now()
        gpu = None if before_gpu is None else {**gpu_now(device), "utilisation_before": before_gpu.get("utilisation")}
        into.pieces.append(between(before, after, gpu))


def between(a: Snapshot, b: Snapshot, gpu: dict[str, Any] | None = None) -> dict[str, Any]:
    """What happened between two snapshots, and the state at the second."""
    seconds = max(b.time - a.time, 1e-6)
    own = (b.own_cpu_s - a.own_cpu_s) / seconds
    elsewhere = steal = None
    if a.machine and b.machine and b.machine[2] > a.machine[2]:
        busy, stolen, total = (y - x for x, y in zip(a.machine, b.machine, strict=True))
        elsewhere, steal = max(busy / seconds - own, 0.0), stolen / total
    throttled = None
    if a.throttled and b.throttled:
        periods = b.throttled[0] - a.throttled[0]
        throttled = (b.throttled[1] - a.throttled[1]) / periods if periods else 0.0
    stalled = None if a.stalled_s is None or b.stalled_s is None else (b.stalled_s - a.stalled_s) / seconds
    return {
        "seconds": seconds,
        "own_cores": own,
        "busy_elsewhere_cores": elsewhere,
        "steal_share": steal,
        "involuntary_per_s": (b.involuntary - a.involuntary) / seconds,
        "others": busy_others(a.processes, b.processes, seconds),
        "throttled_share": throttled,
        "memory_stalled_share": stalled,
        "load": os.getloadavg()[0],
        "mhz": _mhz(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "quota_cores": cgroup_cpu()[0],
        "celsius": _celsius(),
        "available": available_bytes(),
        "gpu": gpu,
    }


def busy_others(before: dict[int, int], after: dict[int, int], seconds: float) -> tuple[int, float]:
    """(how many other processes were busy, cores they used together), from CPU ticks by pid; new ones count from 0."""
    used = [max(ticks - before.get(pid, 0), 0) / _TICKS / seconds for pid, ticks in after.items()]
    return sum(cores >= _BUSY for cores in used), sum(used)


def cgroup_cpu() -> tuple[float | None, tuple[int, int, float] | None]:
    """(quota in cores or None, (periods, throttled periods, throttled seconds) or None) of this process's cgroup, v1 or v2."""
    for line in (_text("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        inside = path.lstrip("/")
        if not controllers:
            place: Path | None = _CGROUPS / inside
            quota = _quota_v2(_text(_CGROUPS / inside / "cpu.max"))
        elif "cpu" in controllers.split(","):
            place = next(
                (p for p in (_CGROUPS / "cpu" / inside, _CGROUPS / "cpu,cpuacct" / inside) if p.is_dir()), None
            )
            if place is None:
                continue
            most, period = (_number(_text(place / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
            quota = most / period if most and period and most > 0 else None
        else:
            continue
        stat = None if place is None else _text(place / "cpu.stat")
        if stat is not None and "nr_periods" in stat:
            return quota, _throttled(stat)
    return None, None


def _throttled(stat: str) -> tuple[int, int, float]:
    values = {line.split()[0]: int(line.split()[1]) for line in stat.splitlines() if len(line.split()) == 2}
    seconds = values["throttled_usec"] / 1e6 if "throttled_usec" in values else values.get("throttled_time", 0) / 1e9
    return values.get("nr_periods", 0), values.get("nr_throttled", 0), seconds


def _quota_v2(text: str | None) -> float | None:
    parts = (text or "").split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0].isdecimal() else None


def _now() -> Snapshot:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Snapshot(
        time.perf_counter(),
        usage.ru_utime + usage.ru_stime,
        usage.ru_nivcsw,
        _machine(),
        _processes(),
        cgroup_cpu()[1],
        _stalled(),
    )


def _machine() -> tuple[float, float, float] | None:
    found = (_text("/proc/stat") or "").split("\n", 1)[0].split()
    if len(found) < 9 or found[0] != "cpu":
        return None
    user, nice, system, idle, iowait, irq, soft, stolen = (int(n) / _TICKS for n in found[1:9])
    busy = user + nice + system + irq + soft
    return busy, stolen, busy + stolen + idle + iowait


def _processes() -> dict[int, int]:
    found: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        pid = int(place.parent.name)
        # the name of the command, in brackets, may hold anything: what counts comes after it
        after = (_text(place) or "").rpartition(")")[2].split()
        if pid != os.getpid() and len(after) > 12:
            found[pid] = int(after[11]) + int(after[12])
    return found


def _stalled() -> float | None:
    line = (_text("/proc/pressure/memory") or "").split("\n", 1)[0]
    total = line.rpartition("total=")[2]
    return int(total) / 1e6 if total.isdecimal() else None


def _mhz() -> list[float]:
    """Of the cores this process may use, now; in a virtual machine often only the nominal one."""
    places = (f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in sorted(os.sched_getaffinity(0)))
    khz = [number for place in places if (number := _number(_text(place))) is not None]
    if khz:
        return [number / 1000 for number in khz]
    lines = (_text("/proc/cpuinfo") or "").splitlines()
    found = (_number(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz"))
    return [number for number in found if number is not None]


def _celsius() -> list[float]:
    found = (_number(_text(place)) for place in Path("/sys/class/thermal").glob("thermal_zone*/temp"))
    return [number / 1000 for number in found if number is not None]


def _gpu(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Ranges over a row's turns; what slowed the GPU down in any of them."""
    if not found:
        return None
    seen = [one for one in found if "absent" not in one]
    if not seen:
        return {"absent": found[-1]["absent"]}
    names = ("utilisation_before", "utilisation", "sm_mhz", "memory_mhz", "celsius", "watts", "memory_used_bytes")
    reasons = {name for one in seen for name in one["throttled_by"] or ()}
    return {
        **{name: _range([one[name] for one in seen if one[name] is not None]) for name in names},
        "sm_mhz_most": seen[-1]["sm_mhz_most"],
        "memory_bytes": seen[-1]["memory_bytes"],
        "throttled_by": sorted(reasons),
        "other_processes": max(one["other_processes"] for one in seen),
        "other_processes_bytes": max(one["other_processes_bytes"] for one in seen),
    }


def _range(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"low": min(values), "median": statistics.median(values), "high": max(values)}


def _text(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
