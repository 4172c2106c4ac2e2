"""Tracebacks: a public function raises its error without internal exceptions around it, also in a notebook."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest
from support import ACCOUNT, simulator

from mixpanel_export import export_events

CELLS = """
import asyncio, sys, warnings
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="nocolor")
cells = [
    "import warnings; from mixpanel_export import *; warnings.simplefilter('ignore')",
    "ws = Workspace(path='x.duckdb', credentials=Credentials('u', 's', '1'), api_url='http://127.0.0.1:1')",
    "days = dict(from_date='2024-01-01', to_date='2024-01-02', retries=0)",
    "ws.fetch_events(**days, progress=False)",
    "list(ws.stream_events(**days))",
    "ws.sql_rows('SELEC 1')",
    "await export_events('2024-01-01', '2024-01-02', db='.')",
    "Workspace.test_credentials('nobody')",
]
async def main():
    for cell in cells:
        print("CELL", cell)
        print("CELL", cell, file=sys.stderr, flush=True)
        await shell.run_cell_async(cell, transformed_cell=cell)
asyncio.run(main())
"""
ERRORS = {
    "ws.fetch": "NetworkError",
    "list(": "NetworkError",
    "ws.sql": "QueryError",
    "await": "DatabaseError",
    "Workspace.test": "AccountNotFoundError",
}


def test_a_notebook_shows_a_short_traceback(tmp_path: Path, env: Mapping[str, str]) -> None:
    """IPython shows it once: the cell and the message, no frames of libraries, and nothing on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", CELLS],
        env={**env, "IPYTHONDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line for line in done.stderr.splitlines() if not line.startswith("CELL ")] == []
    shown = {cell.partition("\n")[0]: cell.partition("\n")[2] for cell in done.stdout.split("CELL ")[1:]}
    for begin, error in ERRORS.items():
        (text,) = [text for cell, text in shown.items() if cell.startswith(begin)]
        assert f"\n{error}: " in text
        assert text.count("Traceback") == 1
        assert not re.search(r"site-packages.(?!mixpanel_export)", text)
        assert len(text.splitlines()) < 20


def test_a_callers_own_error_keeps_its_causes(db: Path) -> None:
    """An exception of a callback has its traceback and its cause, without the groups that it passed."""

    def raising(_: object) -> None:
        try:
            dict[str, str]()["key"]
        except KeyError as error:
            raise RuntimeError("mine") from error

    async def main() -> None:
        sim = simulator()
        await export_events(
            "2024-03-01", "2024-03-02", db=db, transport=sim.transport(), api_url="http://127.0.0.1",
            on_batch_complete=raising, per_second=0, per_hour=0, credentials=ACCOUNT,
        )  # fmt: skip

    with pytest.raises(RuntimeError, match="mine") as caught:
        anyio.run(main)
    assert isinstance(caught.value.__cause__, KeyError)
    links, link = [], caught.value.__context__
    while link is not None:
        links.append(link)
        link = link.__context__
    assert not any(isinstance(link, BaseExceptionGroup) for link in links)
    assert any(entry.name == "raising" for entry in caught.traceback)
