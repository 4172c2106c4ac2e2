"""A clock that all processes of this machine share, and that setting the wall clock does not disturb."""

import ctypes
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Moment(NamedTuple):
    """A point in time, by two clocks.

    *elapsed* is in seconds since the boot *boot*, equal for all processes; *boot* is None where the platform does not
    name boots. *wall* is in seconds since 1970. It compares moments of different boots, and the user may change it.
    """

    boot: str | None
    elapsed: float
    wall: float


Clock = Callable[[], Moment]


def system_clock() -> Clock:
    """Return the clock of this machine; it continues while the machine sleeps."""
    boot = _boot()
    if sys.platform == "win32":
        elapsed = time.perf_counter  # system-wide since Python 3.10; monotonic() differs between releases
    else:
        # The first two include sleep, on Linux and macOS.
        names = ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC_RAW", "CLOCK_MONOTONIC")
        number: int = next(getattr(time, name) for name in names if hasattr(time, name))

        def elapsed() -> float:
            return time.clock_gettime(number)

    return lambda: Moment(boot, elapsed(), time.time())


def _boot() -> str | None:
    """Return the id of this boot of the machine; None where there is none."""
    with suppress(OSError):
        if sys.platform == "win32":
            import winreg  # noqa: PLC0415 - exists on Windows only

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
