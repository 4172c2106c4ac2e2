"""`python -m tests.torture.bugs`: insert a bug into the exporter, and verify that the torture finds it.

Each bug is inserted into a copy of the sources in a temporary folder. The torture then has a minute to find it.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import click

ROOT = Path(__file__).resolve().parents[2]

BUGS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "rows are committed before their ledger row": {
        "_writer/batch_records.py": (
            "        self._ledger.write(batches)\n",
            "        self._connection.commit(); self._connection.begin()\n        self._ledger.write(batches)\n",
        ),
    },
    "a retry keeps the blocks that were staged": {
        "_writer/staging.py": (
            "        self.drop(item.chunk)\n",
            "        if item.chunk in self._open:\n            return\n",
        ),
    },
    "a retry keeps the segments that were extracted": {
        "_export/validation.py": ("attempt = self._attempts.pop(chunk, None)", "attempt = None"),
    },
    "the last block is lost": {
        "_source/decoder.py": ("return iter([(rest,)] if rest else [])", "return iter([])"),
    },
    "a forgotten person's hidden rows stay": {
        "_local/forget.py": (
            '    hidden = delete_matches(connection, "_export_duplicates", "_export_hidden")\n',
            "    hidden = 0\n",
        ),
    },
    "no target days are recorded": {
        "_writer/table.py": (
            "        if not self.spec.limited:\n            widen_target_days",
            "        if False:\n            widen_target_days",
        ),
    },
    "the number of profiles is not compared with the total": {
        "_profiles/table.py": (
            "            if distinct + snapshot.rejects != total:\n",
            "            if False:\n",
        ),
    },
    "the old profiles are dropped before the new ones are in their place": {
        "_profiles/table.py": (
            "        mark_replaced(self._connection, self.name)\n",
            "        self._connection.commit(); self._connection.begin(); mark_replaced(self._connection, self.name)\n",
        ),
    },
}
"""Bugs by name; for each file of the package the text to replace and its replacement."""


@click.command()
@click.option("--seed", default=1, show_default=True, help="First seed of the torture.")
@click.option("--minutes", default=1.0, show_default=True, help="Time for each bug.")
def main(seed: int, minutes: float) -> None:
    """Insert each bug, and torture."""
    missed = 0
    for name, changes in BUGS.items():
        with TemporaryDirectory(prefix="torture-") as folder:
            root = Path(folder)
            _copy(root, changes)
            started = time.monotonic()
            failure = _torture(root, seed, minutes)
            missed += failure is None
            click.echo(f"{name}: {time.monotonic() - started:.0f} s\n  {failure or 'NOT FOUND'}\n")
    sys.exit(missed)


def _copy(root: Path, changes: Mapping[str, tuple[str, str]]) -> None:
    for name in ("mixpanel_export", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (before, after) in changes.items():
        path = root / "mixpanel_export" / name
        text = path.read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise click.ClickException(f"{name} must contain once: {before}")
        path.write_text(text.replace(before, after), encoding="utf-8")


def _torture(root: Path, seed: int, minutes: float) -> str | None:
    """Return the first failure that the torture reports, None if there is none."""
    options = ["--seed", str(seed), "--schedules", "200", "--kills", "200", "--minutes", str(minutes)]
    command = [sys.executable, "-m", "tests.torture", *options, "--fail-fast"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    _, marker, failure = done.stdout.partition("FAILED  ")
    return failure[:700].strip() if marker else None


if __name__ == "__main__":
    main()
