"""The bars of all benchmarks side by side: what must be reached, what was measured, met or missed.

It measures nothing, and reads what the other scripts left in the folder of results.
"""

import argparse
from pathlib import Path

from _measure import RESULTS
from _report import bars_table, published

SCRIPTS = ("engine", "network", "memory", "growth", "startup")


def main() -> None:
    """Print the table, and write it beside the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="PATH", help="where the results are")
    folder: Path = parser.parse_known_args()[0].results  # the options are those of all scripts
    table = bars_table(reached for script in SCRIPTS for reached in published(script, folder))
    silent = [script for script in SCRIPTS if not published(script, folder)]
    parts = ["# The bars", "They are stated at `--scale 1`.", table]
    if silent:
        parts.append(f"Not measured: {', '.join(silent)}.")
    print("\n\n".join(parts[1:]))
    (folder / "bars.md").write_text("\n\n".join(parts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
