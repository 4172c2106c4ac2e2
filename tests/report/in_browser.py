"""The page in a real browser. `nox -s browser` installs what this needs, and runs it; other runs do not collect it.

`MPX_SCREENSHOTS` names a folder for the screenshots.
"""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import duckdb
import pytest
from report_pages import create_database, report_data

from mixpanel_export import Report
from mixpanel_export._report.page import render

SCRIPT = Path(__file__).with_suffix(".cjs")
PAGES = ("small", "long", "empty", "notebook")
VIEWS = [(page, width, scheme) for page in PAGES for width in (390, 1440) for scheme in ("light", "dark")]
pytestmark = pytest.mark.timeout(1200)

each_view = pytest.mark.parametrize("page, width, scheme", VIEWS)


def chromium() -> str:
    """Return the path of the browser. A missing browser fails the test, as a skipped test would hide it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [path for name in names if (path := shutil.which(name))]
    assert found, f"none of {', '.join(names)} is installed; on Debian: apt-get install chromium"
    return found[0]


def write_pages(folder: Path) -> list[Path]:
    """Write a page of a few days, one of two years with long names, one of a file without events, and a notebook."""
    small = create_database(folder / "small.duckdb")
    long = create_database(folder / "long.duckdb")
    with duckdb.connect(str(long)) as connection:
        connection.execute("UPDATE _export_batches SET to_date = '2026-03-01' WHERE batch = 1")
        connection.execute(
            "INSERT INTO events SELECT 'A long name of an event, as programs write them ' || repeat('x', 20 * (i % 9)), "
            "DATE '2024-03-10' + (i % 700)::INTEGER, 'user' || i, NULL, json_object(repeat('long_key_', 12) || i % 30, i), 1 "
            "FROM range(5000) r(i)"
        )
    empty = folder / "empty.duckdb"
    duckdb.connect(str(empty)).close()
    pages = []
    for database in (small, long, empty):
        pages.append(database.with_suffix(".html"))
        pages[-1].write_text(render(report_data(database, examples=database == long)), encoding="utf-8")
    notebook = folder / "notebook.html"
    report = Report("Report of small.duckdb", pages[0].read_text(encoding="utf-8"))
    head = '<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Notebook</title>'
    notebook.write_text(head + report._repr_html_(), encoding="utf-8")
    return [*pages, notebook]


@cache
def visits() -> dict[tuple[str, int, str], Any]:
    """Return what the browser displayed in each view."""
    folder = Path(os.environ.get("MPX_SCREENSHOTS") or mkdtemp())
    command = ["node", str(SCRIPT), chromium(), str(folder), *map(str, write_pages(Path(mkdtemp())))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seen = [json.loads(line) for line in done.stdout.splitlines()]
    return {(Path(view["page"]).stem, view["width"], view["scheme"]): view for view in seen}


@each_view
def test_the_console_is_empty(page: str, width: int, scheme: str) -> None:
    """The page's scripts raise nothing and warn of nothing; the content security policy refuses nothing."""
    assert visits()[page, width, scheme]["console"] == []


@each_view
def test_nothing_is_requested(page: str, width: int, scheme: str) -> None:
    """The browser requests the file itself and nothing else."""
    assert visits()[page, width, scheme]["requests"] == ["file"]


@each_view
def test_axe_finds_nothing(page: str, width: int, scheme: str) -> None:
    """axe-core finds no problem for people who use a screen reader or a keyboard, or who see little contrast."""
    assert visits()[page, width, scheme]["violations"] == []


@each_view
def test_the_page_fits_the_screen(page: str, width: int, scheme: str) -> None:
    """Only wide tables scroll sideways, never the page."""
    assert visits()[page, width, scheme]["overflow"] <= 0


@each_view
def test_the_first_key_reaches_the_report(page: str, width: int, scheme: str) -> None:
    """The first press of Tab offers to skip to the report."""
    assert visits()[page, width, scheme]["focus"] == "Skip to the report"


@each_view
def test_the_page_prints(page: str, width: int, scheme: str) -> None:
    """The browser makes a PDF."""
    assert visits()[page, width, scheme]["pdf"] > 10_000


@each_view
def test_every_chart_is_drawn(page: str, width: int, scheme: str) -> None:
    """Each chart has marks, and the axis of events has the days of UTC, wherever the reader is."""
    view = visits()[page, width, scheme]
    assert len(view["charts"]) == (0 if page == "empty" else 10)
    assert all(marks > 1 for marks in view["charts"])
    if page in {"small", "notebook"}:
        assert "Mar 2024" in view["labels"][0]
        assert "Feb 2024" not in view["labels"][0]
