"""How many cores this process may use: those of its cpuset (Slurm, taskset), and no more than a cgroup's CPU quota allows."""

import math
import os
from pathlib import Path

__all__ = ["available_cores", "cpu_quota"]


def available_cores() -> int:
    """Cores this process may use, at least 1: its affinity, and a cgroup's CPU quota rounded up where there is one."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that this process's cgroups grant it, the least of them all; None where nothing limits it.

    Both versions of cgroups (kernel documentation, cgroup-v2.rst: cpu.max; sched-bwc.rst: cpu.cfs_quota_us). `root` is where
    /proc and /sys are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in _mounts(root, controllers):
            # A container may see its own group as "/", or by a path that only its host has: the mount's root counts too.
            group = Path(path.strip("/"))
            found += [_quota(mount / level, version_1=bool(controllers)) for level in (group, *group.parents)]
    return min((quota for quota in found if quota is not None), default=None)


def _mounts(root: Path, controllers: str) -> list[Path]:
    base = root / "sys/fs/cgroup"
    return [base / controllers, base / "cpu"] if controllers else [base, base / "unified"]


def _quota(group: Path, *, version_1: bool) -> float | None:
    try:
        if version_1:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        else:
            quota, period = (group / "cpu.max").read_text().split()
        cores = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return cores if cores > 0 else None
