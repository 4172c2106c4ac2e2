"""A clock that all processes on this machine share. Changes to the wall clock do not affect it."""

import ctypes
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Moment(NamedTuple):
    """A point in time, as read from two clocks."""

    boot: str | None
    """The id of the machine's current boot; None if the platform has no such id."""
    elapsed: float
    """Seconds since that boot, the same for all processes. This clock cannot be set."""
    wall: float
    """Seconds since 1970. This clock is used to compare moments from different boots, but a user may set it."""


Clock = Callable[[], Moment]
"""Returns the current moment."""


def system_clock() -> Clock:
    """Return this machine's clock. It keeps running while the machine sleeps."""
    boot = _boot_id()
    if sys.platform == "win32":
        elapsed = time.perf_counter  # the same in all processes; monotonic() differs between Python releases
    else:
        # CLOCK_BOOTTIME (Linux) and CLOCK_MONOTONIC_RAW (macOS) keep running during sleep.
        names = ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC_RAW", "CLOCK_MONOTONIC")
        number: int = next(getattr(time, name) for name in names if hasattr(time, name))

        def elapsed() -> float:
            return time.clock_gettime(number)

    return lambda: Moment(boot, elapsed(), time.time())


def _boot_id() -> str | None:
    """Return the id of the current boot; None if the platform has none."""
    with suppress(OSError):
        if sys.platform == "win32":
            import winreg  # noqa: PLC0415 - exists only on Windows

            parent = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters"
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, parent) as key:
                return str(winreg.QueryValueEx(key, "BootId")[0])
        elif sys.platform == "darwin":
            text, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
            name = b"kern.bootsessionuuid"
            failed = ctypes.CDLL(None).sysctlbyname(name, text, ctypes.byref(size), None, 0)
            return None if failed else text.value.decode()
        else:
            return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return None
