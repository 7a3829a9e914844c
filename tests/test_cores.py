"""As many cores as a process may use: its cpuset's, and no more than its cgroup grants."""

import os
from pathlib import Path

import pytest

from histoproof import cores
from histoproof.cores import available_cores, cpu_quota


def group(root: Path, listed: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(listed)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("listed", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/slurm/job_7/step_0\n", {"slurm/job_7/cpu.max": "400000 100000", "slurm/cpu.max": "max 100000"}, 4),
        ("0::/a/b\n", {"a/cpu.max": "800000 100000", "a/b/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000"}, 2),
        ("0::/docker/0123\n", {"cpu.max": "50000 100000"}, 0.5),
        (
            "4:cpu,cpuacct:/k\n1:name=systemd:/k\n",
            {"cpu,cpuacct/k/cpu.cfs_quota_us": "200000", "cpu,cpuacct/k/cpu.cfs_period_us": "100000"},
            2,
        ),
        ("4:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/\n", {"memory/cpu.cfs_quota_us": "100000", "memory/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "what is this"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
        ("0::/\n", {}, None),
        ("nonsense\n\n", {}, None),
    ],
)
def test_the_least_quota_of_the_groups_above_counts(
    tmp_path: Path, listed: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(group(tmp_path, listed, files)) == quota


def test_without_cgroups_nothing_limits(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "expected"), [(None, 6), (0.3, 1), (1.0, 1), (1.5, 2), (64.0, 6)])
def test_cores_are_those_of_the_cpuset_and_no_more_than_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    assert available_cores() == expected
