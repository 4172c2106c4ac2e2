"""Profiles the CPU seconds of `export_events` and of a power user's script with Linux's `perf`.

Ways A and B of `engine.py` load the same events, each in its own process. A sample counts for the first kind of work whose
pattern occurs in its stack of C functions and libraries. So work of the kernel counts for the kind that caused it.
"""

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import engine
from _measure import FIRST, ODD, UNLIMITED, new_folder, options, serve
from _report import markdown, publish

SAMPLES_A_SECOND = 299  # with more samples, perf would mostly copy stacks
STACK = 16384  # bytes of each stack to copy; needed because DuckDB is built without frame pointers
WAYS = {"A: export_events": engine.ours, "B: power user": engine.power_user}
WORK = "import engine, pathlib, sys; getattr(engine, sys.argv[1])(sys.argv[2], pathlib.Path(sys.argv[3]))"
KINDS = {
    "imports": r"import_find_and_load|_dl_|dlopen",
    "compressing `properties` with zstd": r"ZSTD_|HUF_|FSE_",
    "reading and writing JSON": r"yyjson|JSON",
    "inflating": r"isal|miniz",
    "compressing other columns and writing the file": r"Compress|Analyze|WriteToDisk|FlushRowGroup",
    "appending rows": r"RowGroup::Append|LocalStorage|LocalAppend",
    "freeing memory": r"FlushAll",
    "everything else in DuckDB": r"duckdb",
    "numpy": r"_multiarray|openblas",
    "Python: event loop, HTTP, staged files": r"",
}
KERNEL = "of all these: in the kernel"


def profile(work: Callable[[str, Path], None], url: str, within: Path | None) -> dict[str, float]:
    """Run *work* in a process under `perf`, and return the CPU seconds of each kind of work."""
    with new_folder(within) as folder:
        data = folder / "perf.data"
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_A_SECOND)]
        record += ["--call-graph", f"dwarf,{STACK}", "-o", str(data), "--"]
        _run([*record, sys.executable, "-c", WORK, work.__name__, url, str(folder)])
        stacks = _run(["perf", "script", "-i", str(data), "-F", "ip,sym,dso"])
    samples = Counter[str]()
    for stack in filter(None, stacks.split("\n\n")):
        samples[kind_of(stack)] += 1
        samples[KERNEL] += "[kernel" in stack.strip().partition("\n")[0]
    return {kind: samples[kind] / SAMPLES_A_SECOND for kind in (*KINDS, KERNEL)}


def kind_of(stack: str) -> str:
    """Return the kind of work that a stack in the format of `perf script` counts for."""
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, stack))


def table(profiles: Sequence[Mapping[str, float]]) -> str:
    """Return the seconds of each kind of work as a Markdown table, in descending order of way A."""
    kinds = sorted(KINDS, key=lambda kind: -profiles[0][kind])
    rows = [[kind, *(f"{seconds[kind]:.2f}" for seconds in profiles)] for kind in kinds]
    sums = [f"{sum(seconds[kind] for kind in KINDS):.2f}" for seconds in profiles]
    kernel = [f"{seconds[KERNEL]:.2f}" for seconds in profiles]
    return markdown(["CPU seconds", *WAYS], [*rows, ["all", *sums], [KERNEL, *kernel]])


def main() -> None:
    """Profile, and publish a table."""
    arguments = options("--scale", "--folder", "--results", description=__doc__, rounds=1)
    if not shutil.which("perf"):
        raise SystemExit("perf is not installed; it is part of the tools of the Linux kernel")
    per_day = round(arguments.scale * 1_000_000 / engine.DAYS)
    content = {"events_per_day": per_day, "odd": ODD, "cache_bytes": 1 << 34, "concurrent": 0}
    with serve(FIRST, engine.LAST, **content, **UNLIMITED) as (url, truth):
        profiles = [profile(work, url, arguments.folder) for work in WAYS.values()]
    publish("cpu", f"CPU seconds for {truth.rows:,} events, by kind of work", arguments, [table(profiles)])


def _run(command: list[str]) -> str:
    # Both ways import modules from the folder of this file.
    here = Path(__file__).parent
    return subprocess.run(
        command, check=True, cwd=here, stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
    ).stdout


if __name__ == "__main__":
    main()
