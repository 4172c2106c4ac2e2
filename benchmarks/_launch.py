"""Run a command, and print when it started and ended, its CPU seconds, and its peak memory in bytes.

The peak of a process includes the memory of the process that started it, so this launcher is small and imports little.
"""

import os
import subprocess
import sys
import time


def main() -> None:
    """Run the command in the arguments; print exit code, start, end, CPU seconds and peak. On Windows, the last two are 0."""
    cpu = peak = 0.0
    started = time.perf_counter()
    with subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        if sys.platform == "win32":
            child.wait()
        else:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            cpu = usage.ru_utime + usage.ru_stime
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        ended = time.perf_counter()
    print(child.returncode, started, ended, cpu, peak)


if __name__ == "__main__":
    main()
