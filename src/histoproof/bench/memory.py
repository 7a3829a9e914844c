"""How much memory a stage takes at its peak, and an end in good order where there is not enough of it."""

import ctypes
import gc
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

__all__ = ["PeakRam", "available_bytes", "guarded", "out_of_memory", "status_bytes", "trim"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_MARGIN = 256 << 20
"""Left to the rest of the machine, in bytes."""
_SAID = ("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc", "not enough memory")


def status_bytes(name: str) -> int | None:
    """A line of /proc/self/status in bytes, e.g. VmHWM (peak resident memory); None where there is none."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith(f"{name}:")), None)
    return int(found) * 1024 if found and found.isdecimal() else None


def trim() -> None:
    """Give back to the system what was freed: what one row leaves behind is not the next one's memory."""
    gc.collect()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if give_back is not None:
        give_back(0)


class PeakRam:
    """Peak resident memory of this process within the block, in `bytes`: all of it, mapped pages of the store among it.

    The kernel's own mark (VmHWM) is set back where that is allowed; else a thread looks every 5 ms.
    """

    def __init__(self) -> None:
        self.bytes: int | None = None
        self.method = "VmHWM"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "PeakRam":
        try:
            _CLEAR.write_text("5")
        except OSError:
            self.method = "sampled every 5 ms"
            self.bytes = status_bytes("VmRSS")
            self._thread = threading.Thread(target=self._look, name="peak-ram", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            self.bytes = status_bytes("VmHWM")
            return
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.005):
            now = status_bytes("VmRSS")
            if now is not None:
                self.bytes = max(self.bytes or 0, now)


def available_bytes() -> int | None:
    """Memory this process may still take: what the machine, or its cgroup, has left; None where neither can be read."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            inside = path.lstrip("/")
            if controllers == "memory":
                place, most, used = Path("/sys/fs/cgroup/memory") / inside, "limit_in_bytes", "usage_in_bytes"
            elif not controllers:
                place, most, used = Path("/sys/fs/cgroup") / inside, "max", "current"
            else:
                continue
            limit = (place / f"memory.{most}").read_text().strip()
            if limit.isdecimal():
                found.append(max(int(limit) - int((place / f"memory.{used}").read_text()), 0))
    except (OSError, ValueError):
        pass
    return min(found) if found else None


@contextmanager
def guarded(device: torch.device) -> Iterator[None]:
    """Let an allocation fail, instead of the kernel killing this process, where there is not enough memory (Linux, CPU).

    The limit is on private memory (RLIMIT_DATA): what it is now, and what is available.
    """
    now, left = status_bytes("VmData"), available_bytes()
    if device.type != "cpu" or now is None or left is None:  # CUDA reserves address space far beyond what it uses
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = now + max(left - _MARGIN, left // 2)
    bounds = [limit for limit in (*before, wanted) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def out_of_memory(error: BaseException) -> str | None:
    """In one line, why memory was too small, if that is what `error` says; None for any other."""
    said = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said.lower() for words in _SAID)
    ):
        start = said.find("DefaultCPUAllocator")  # without the place in torch's source that comes before it
        return (said[max(start, 0) :] or "memory is used up")[:300]
    return None
