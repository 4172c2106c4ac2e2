"""The page: its structure, its size, and what it may load. No browser is needed here."""

import base64
import hashlib
import json
import re
import sys
from collections import Counter
from datetime import date, timedelta
from html import escape, unescape
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_pages import ALL, NAMES, Page, create_database, day, report_data

from mixpanel_export import ConfigError, Report, TableNotFoundError, Workspace
from mixpanel_export._database.ledger import Ledger
from mixpanel_export._database.schema import create_ledger
from mixpanel_export._model import Batch, Chunk
from mixpanel_export._report.charts import ticks
from mixpanel_export._report.page import render

MOST = 3_000_000  # bytes of a page


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return create_database(tmp_path / "events.duckdb")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of the database as it was created."""
    return page_of(create_database(tmp_path_factory.mktemp("page") / "events.duckdb"))


def page_of(path: Path) -> Page:
    return Page(render(report_data(path)))


def test_ids_are_unique_and_references_lead_somewhere(page: Page) -> None:
    """Each id occurs once, and each label, chart and link of the page has its target."""
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    links = [str(attributes["href"])[1:] for tag, attributes in page.attributes if tag == "a"]
    assert {*page.references, *links} <= set(page.ids)


def test_headings_have_an_order(page: Page) -> None:
    """There is one title, and no level of a heading is skipped."""
    headings = page.headings
    assert headings.count(1) == 1
    assert headings[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(headings))


def test_sentences_have_a_space_between_them(page: Page) -> None:
    """The template's conditions do not join two sentences."""
    text = re.sub("<(script|style)[^>]*>.*?</\\1>", "", page.source, flags=re.DOTALL)
    assert re.findall(r"[a-z]\.(?:</?\w+>)*[A-Z]\w*", text) == []


def test_the_navigation_has_every_table(page: Page) -> None:
    """It links to the tables of events and those of profiles."""
    (navigation,) = re.findall("<nav.*?</nav>", page.source, re.DOTALL)
    assert re.findall(">([a-z]+)</a>", navigation) == ["events", "filtered", "people"]


def test_every_table_has_a_caption(page: Page) -> None:
    """A screen reader announces what each table shows, and what its rows and columns are."""
    assert "" not in page.tables
    scopes = [attributes.get("scope") for tag, attributes in page.attributes if tag == "th"]
    assert set(scopes) == {"row", "col"}


def test_charts_have_a_name_and_their_numbers(page: Page) -> None:
    """Each chart is an image with a label, and its specification has its rows."""
    charts = [name for name in page.scripts if name and name.endswith("-chart")]
    assert len(charts) == 5 * 2
    labels = [attributes for tag, attributes in page.attributes if attributes.get("role") == "img"]
    assert len(labels) == len(charts)
    assert all(attributes["aria-label"] for attributes in labels)
    for name in charts:
        spec = json.loads(page.scripts[name])
        assert spec["datasets"]["rows"]
        assert spec["data"] == {"name": "rows"}


def test_the_page_loads_nothing(page: Page) -> None:
    """No element names another file, and the content security policy allows the page's own scripts only."""
    for _, attributes in page.attributes:
        assert not {"src", "srcset", "poster", "background"} & attributes.keys()
        assert str(attributes.get("href", "#")).startswith("#")
    (policy,) = [
        str(a["content"]) for _, a in page.attributes if a.get("http-equiv") == "Content-Security-Policy"
    ]
    scripts = re.findall("<script>(.*?)</script>", page.source, re.DOTALL)
    assert len(scripts) == 2
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert policy.startswith("default-src 'none'; script-src ")
    assert re.findall("sha256-([^']+)'", policy) == hashes
    assert "url(" not in page.source.partition("</style>")[0]
    assert "@import" not in page.source


def test_names_are_text(path: Path) -> None:
    """Event names and keys are escaped in HTML, and cannot end a script."""
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "UPDATE events SET event_name = '</script><i>', properties = '{\"</script><b>\":1}'"
        )
    page = page_of(path)
    assert "</script><i>" not in page.source
    assert "</script><b>" not in page.source
    assert escape("</script><i>") in page.source
    assert "</script><b>" in [
        row[0] for row in page.tables["Properties, with the share of events that have a value"] if row
    ]


def test_a_page_is_bounded(tmp_path: Path) -> None:
    """Hundreds of batches, thousands of names and properties, and sixty years result in a page of less than 3 MB."""
    path = create_database(tmp_path / "events.duckdb")
    with duckdb.connect(str(path)) as connection:
        days = [date(1960, 1, 1) + timedelta(days=90 * place) for place in range(250)]
        Ledger(connection, "events", ALL, "UTC").write(
            Batch(100 + place, Chunk(on, on), "complete", table="events", selection=ALL, attempts=1, export=9)
            for place, on in enumerate(days)
        )
        connection.execute(
            "INSERT INTO events SELECT repeat('long name ', 20) || i % 3000, DATE '2014-01-01' + (i % 3650)::INTEGER, "
            "'u' || i, NULL, json_object(repeat('key', 30) || (i % 2000), i), 1 FROM range(20000) r(i)"
        )
    data = report_data(path, examples=True)
    assert len(render(data).encode()) < MOST
    table = data.tables[0]
    left_out = (
        table.calendars[0].earlier_days,
        table.activity.other_names,
        table.properties.others,
        table.batches - len(table.ledger),
    )
    assert min(left_out) > 0


def test_an_empty_file_has_a_page(tmp_path: Path) -> None:
    """For a file without exported events, it says how to export some."""
    path = tmp_path / "empty.duckdb"
    duckdb.connect(str(path)).close()
    with Workspace.open(path) as workspace:
        html = workspace.report().html
    assert Page(html).headings == [1]


def test_a_failed_export_has_a_page(tmp_path: Path) -> None:
    """A ledger that has only a failed batch, and no table, has a page with the failed days."""
    path = tmp_path / "failed.duckdb"
    with duckdb.connect(str(path)) as connection:
        create_ledger(connection)
        failed = Batch(
            1, Chunk(day(1), day(3)), "failed", error="no answer: x", table="events", selection=ALL
        )
        Ledger(connection, "events", ALL, "UTC").write([failed])
    page = page_of(path)
    assert "2024-03-01 to 2024-03-03" in page.source
    assert page.tables["Batches in the ledger"][1][-1] == "no answer"


def test_a_dropped_table_has_a_page(path: Path) -> None:
    """A table that was dropped with SQL keeps its ledger on the page."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP TABLE events")
    assert [table.exists for table in report_data(path).tables] == [True, False]
    page = page_of(path)
    assert "table-2-events-chart" not in page.ids
    assert ["3", "2024-03-04", "failed"] in [row[:3] for row in page.tables["Batches in the ledger"]]


def test_a_report_of_one_table(path: Path) -> None:
    """A name restricts the report to one table; an unknown name is an error."""
    with Workspace.open(path) as workspace:
        assert "Table filtered" not in workspace.report("events").html
        assert "Table filtered" in workspace.report().html
        with pytest.raises(TableNotFoundError) as caught:
            workspace.report("nothing")
    assert caught.value.table_name == "nothing"


def test_a_report_can_be_saved_and_shown(path: Path, tmp_path: Path) -> None:
    """`save` writes the page; in a notebook, the page is in a frame that may run scripts and reach nothing else."""
    with Workspace.open(path) as workspace:
        report = workspace.report()
    assert isinstance(report, Report)
    saved = report.save(tmp_path / "page.html")
    assert saved.read_text(encoding="utf-8") == report.html
    (frame,) = Page(report._repr_html_()).attributes
    assert frame[0] == "iframe"
    assert frame[1]["sandbox"] == "allow-scripts"
    assert unescape(str(frame[1]["srcdoc"])) == unescape(report.html)


def test_a_report_changes_no_setting(path: Path) -> None:
    """The workspace's own connection keeps its settings, and stays open."""
    with Workspace.open(path) as workspace:
        before = workspace.sql_rows("SELECT name, value FROM duckdb_settings()").rows
        workspace.report()
        assert workspace.sql_rows("SELECT name, value FROM duckdb_settings()").rows == before


def test_the_extra_is_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without altair, the error says what to install."""
    monkeypatch.setitem(sys.modules, "altair", None)
    with Workspace.open(path) as workspace, pytest.raises(ConfigError) as caught:
        workspace.report()
    assert "mpx-export[report]" in (caught.value.advice or "")


def test_the_names_of_the_chart_are_the_most_frequent(page: Page) -> None:
    """The chart distinguishes six names; the others share one colour."""
    rows = json.loads(page.scripts["table-1-events-chart"])["datasets"]["rows"]
    assert {row["index"] for row in rows} == set(range(7))
    assert len(NAMES) > 6


@pytest.mark.parametrize(
    "first, last, expected",
    [
        (day(1), day(1), [day(1)]),
        (day(1), day(3), [day(1), day(2), day(3)]),
        (day(1), day(28), [day(1), day(5), day(9), day(13), day(17), day(21), day(25)]),
        (date(2023, 11, 5), date(2024, 2, 9), [date(2023, 12, 1), date(2024, 1, 1), date(2024, 2, 1)]),
    ],
)
def test_an_axis_labels_days_or_months(first: date, last: date, expected: list[date]) -> None:
    """A short range has labels at equal distances, a long one at the first days of months."""
    assert ticks(first, last) == expected


@given(st.dates(date(1990, 1, 1), date(2060, 1, 1)), st.integers(0, 4000))
def test_an_axis_has_few_labels(first: date, days: int) -> None:
    """However long the range is, there are one to seven labels, all of them inside."""
    last = first + timedelta(days=days)
    labels = ticks(first, last)
    assert 1 <= len(labels) <= 7
    assert all(first <= label <= last for label in labels)
