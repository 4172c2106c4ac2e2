"""Prints the bars of all benchmarks in one table: limits, measured values, met or missed.

This script measures nothing. It reads the results of the other scripts.
"""

import argparse
from itertools import chain
from pathlib import Path

from _measure import RESULTS
from _report import bars_table, load_results

SCRIPTS = (
    "engine",
    "network",
    "memory",
    "growth",
    "empty",
    "cores",
    "startup",
    "flatten",
    "profiles",
    "publish",
)


def main() -> None:
    """Print the table, and write it to the folder of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="PATH", help="folder with the results"
    )
    folder: Path = parser.parse_known_args()[0].results  # the options of the other scripts are ignored
    results = {script: load_results(script, folder) for script in SCRIPTS}
    parts = ["# Bars", "They apply at `--scale 1`.", bars_table(chain.from_iterable(results.values()))]
    if missing := [script for script in SCRIPTS if not results[script]]:
        parts.append(f"Not measured: {', '.join(missing)}.")
    print("\n\n".join(parts[1:]))
    (folder / "bars.md").write_text("\n\n".join(parts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
