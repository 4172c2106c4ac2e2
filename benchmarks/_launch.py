"""Run the command that the arguments are, and print when it began and ended, its CPU seconds and its peak in bytes.

A process's peak begins with what the process that started it had, so this one is small and imports next to nothing.
"""

import os
import subprocess
import sys
import time


def main() -> None:
    """Print `exit code, begun, ended, CPU seconds, peak`; the last two are 0 on Windows."""
    cpu = peak = 0.0
    begun = time.perf_counter()
    with subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        if sys.platform == "win32":
            child.wait()
        else:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            cpu = usage.ru_utime + usage.ru_stime
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        ended = time.perf_counter()
    print(child.returncode, begun, ended, cpu, peak)


if __name__ == "__main__":
    main()
