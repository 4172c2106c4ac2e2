"""Where the CPU seconds of `export_events` go, and those of a power user's script: a profile by Linux's `perf`.

Ways A and B of `engine.py` load the same events, each in a process of its own. A sample counts for the first kind
that its stack, C functions and libraries, has a sign of, so the kernel's work is with what it was done for.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import engine
from _measure import FIRST, UNLIMITED, new_folder, options, served
from _report import markdown, publish

A_SECOND = 299  # samples; more, and copying the stacks costs what it measures
STACK = 16384  # bytes of it that are copied, as DuckDB is built without frame pointers
WAYS = {"A: export_events": engine.ours, "B: power user": engine.power_user}
WORK = "import engine, pathlib, sys; getattr(engine, sys.argv[1])(sys.argv[2], pathlib.Path(sys.argv[3]))"
KINDS = {
    "imports": r"import_find_and_load|_dl_|dlopen",
    "zstd, which `properties` are compressed with": r"ZSTD_|HUF_|FSE_",
    "reading JSON, and writing it": r"yyjson|JSON",
    "inflating": r"isal|miniz",
    "compressing other columns, writing the file": r"Compress|Analyze|WriteToDisk|FlushRowGroup",
    "appending rows": r"RowGroup::Append|LocalStorage|LocalAppend",
    "giving memory back": r"FlushAll",
    "everything else in DuckDB": r"duckdb",
    "numpy": r"_multiarray|openblas",
    "Python: event loop, HTTP, staged files": r"",
}
KERNEL = "in the kernel, of all these"


def profile(work: Callable[[str, Path], None], url: str, within: Path | None) -> dict[str, float]:
    """Let a process do the *work* under `perf`, and return the CPU seconds of each kind."""
    with new_folder(within) as folder:
        data = folder / "perf.data"
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(A_SECOND)]
        record += ["--call-graph", f"dwarf,{STACK}", "-o", str(data), "--"]
        _run([*record, sys.executable, "-c", WORK, work.__name__, url, str(folder)])
        stacks = _run(["perf", "script", "-i", str(data), "-F", "ip,sym,dso"])
    samples = Counter[str]()
    for stack in filter(None, stacks.split("\n\n")):
        samples[kind_of(stack)] += 1
        samples[KERNEL] += "[kernel" in stack.strip().partition("\n")[0]
    return {kind: samples[kind] / A_SECOND for kind in (*KINDS, KERNEL)}


def kind_of(stack: str) -> str:
    """Return which of the kinds a stack, as `perf script` writes it, counts for."""
    return next(kind for kind, sign in KINDS.items() if re.search(sign, stack))


def table(found: Sequence[Mapping[str, float]]) -> str:
    """Return the seconds of each kind as a Markdown table, the most of A first."""
    kinds = sorted(KINDS, key=lambda kind: -found[0][kind])
    rows = [[kind, *(f"{seconds[kind]:.2f}" for seconds in found)] for kind in kinds]
    sums = [f"{sum(seconds[kind] for kind in KINDS):.2f}" for seconds in found]
    kernel = [f"{seconds[KERNEL]:.2f}" for seconds in found]
    return markdown(["CPU seconds", *WAYS], [*rows, ["all", *sums], [KERNEL, *kernel]])


def main() -> None:
    """Profile, and publish a table."""
    given = options("--scale", "--folder", "--results", description=__doc__, rounds=1)
    if not shutil.which("perf"):
        raise SystemExit("there is no perf here; it comes with the tools of the Linux kernel")
    per_day = round(given.scale * 1_000_000 / engine.DAYS)
    content = {"events_per_day": per_day, "cache_bytes": 1 << 34, "concurrent": 0}
    with served(FIRST, engine.LAST, **content, **UNLIMITED) as (url, truth):
        found = [profile(work, url, given.folder) for work in WAYS.values()]
    publish("cpu", f"Where the CPU seconds of {truth.rows:,} events go", given, [table(found)])


def _run(command: list[str]) -> str:
    # Both ways import what they need from the folder that this file is in.
    here = Path(__file__).parent
    return subprocess.run(
        command, check=True, cwd=here, stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
    ).stdout


if __name__ == "__main__":
    main()
