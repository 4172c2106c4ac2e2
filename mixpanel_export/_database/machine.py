"""Determines how much memory and how many processors this process may use, even inside a container."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def memory_sizes() -> list[int]:
    """Return the memory sizes of the machine and of the control group, in bytes, if the system reports them."""
    return [size for size in (_machine_memory(), *_cgroup_memory()) if size]


def processors() -> int:
    """Return how many processors this process may use, according to its affinity and its control group's quota."""
    # Windows and macOS report no affinity.
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([available, *_cgroup_processors(_CGROUP)])


def _machine_memory() -> int:
    if sys.platform == "win32":
        status = _MemoryStatus(size=ctypes.sizeof(_MemoryStatus))
        succeeded = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return status.physical if succeeded else 0
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # the system does not report it
        return 0


class _MemoryStatus(ctypes.Structure):
    """The structure MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("physical", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 6),
    )

    size: int
    physical: int


def _cgroup_memory() -> Iterator[int]:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        try:
            yield int((_CGROUP / name).read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue


def _cgroup_processors(cgroup: Path) -> Iterator[int]:
    """Yield how many processors the control group's CPU quota allows, rounded up."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroup v2, v1
        try:
            quota, period = map(int, " ".join((cgroup / name).read_text() for name in names).split())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0:  # -1: no quota
            yield max(1, -(-quota // period))
