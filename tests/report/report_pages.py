"""A database with a day of every status, and what tests read from a page."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from mixpanel_export._database.ledger import Ledger
from mixpanel_export._database.schema import PROFILE_COLUMNS, create_events_table, create_ledger
from mixpanel_export._database.snapshots import Snapshot, write_snapshot
from mixpanel_export._database.target_days import LoadOptions, Target, widen_target_days
from mixpanel_export._local.reader import read_contents
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export._report.build import collect
from mixpanel_export._report.model import ReportData

CONTROL = "Zq7-control"
"""A text in every value that may be personal data."""

NAMES = ["Page View", "Sign Up", "<b>Bold & 'quoted'</b>", "Order", "Search", "Café", "Rare", "Rarer"]
ALL = Selection("12345")
FILTERED = Selection("12345", ("Filtered",), f'properties["email"] == "{CONTROL}"')
MARCH = date(2024, 3, 1)


def day(number: int) -> date:
    return date(2024, 3, number)


def times(number: int) -> dict[str, Any]:
    """Return the times of a request that started *number* seconds after noon, with a different length for each phase."""
    noon = datetime(2024, 6, 1, 12)
    names = ("queued_at", "connecting_at", "connected_at", "requested_at", "first_byte_at", "received_at")
    steps = zip((*names, "validated_at", "finished"), (0, 1, 3, 4, 9, 17, 18, 20), strict=True)
    return {name: noon + timedelta(seconds=number + seconds) for name, seconds in steps}


def store_events(connection: duckdb.DuckDBPyConnection, table: str, batch: int, on: date, count: int) -> None:
    """Insert events of one day; every value has the control text."""
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in NAMES)
    connection.execute(
        f"INSERT INTO {table} SELECT [{names}][1 + least(7, i % 11)], DATE '{on}' + INTERVAL (i) MINUTE, "
        f"'{CONTROL}-' || (i % 7), '{CONTROL}-' || i, json_object('$email', '{CONTROL}' || i, 'plan', i % 3, "
        f"'rare', CASE WHEN i % 4 = 0 THEN '{CONTROL}' END, 'list', ['{CONTROL}']), {batch} FROM range({count}) r(i)"
    )


def store_profiles(connection: duckdb.DuckDBPyConnection) -> None:
    """Create a table of three profiles whose last export failed."""
    columns = ", ".join(f"{name} {kind}" for name, kind in PROFILE_COLUMNS.items())
    connection.execute(f"CREATE TABLE people ({columns})")
    connection.execute(
        f"INSERT INTO people SELECT '{CONTROL}-' || i, json_object('$email', '{CONTROL}'), NULL, 6 FROM range(3) r(i)"
    )
    shared: dict[str, Any] = {"table": "people", "project": "12345", "selection": f'{{"where": "{CONTROL}"}}'}
    for number, hour in ((6, 13), (7, 14)):
        at = datetime(2024, 6, 1, hour)
        outcome: dict[str, Any] = {"status": "complete", "rows": 3} if number == 6 else {"status": "failed"}
        write_snapshot(connection, Snapshot(number=number, started=at, finished=at, **shared, **outcome))


def create_database(path: Path) -> Path:
    """Write a database with a table of five statuses, a table with a filter, and one of profiles."""
    path.write_bytes(_content())
    return path


@cache
def _content() -> bytes:
    """Return the contents of the file, which is made once."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "events.duckdb")
        _make_database(path)
        return path.read_bytes()


def _make_database(path: Path) -> None:
    failed = times(30)
    for name in ("first_byte_at", "received_at", "validated_at"):
        del failed[name]
    batches = [
        Batch(1, Chunk(day(1), day(2)), "complete", 130, removed_duplicates=5, bytes_read=1000, attempts=1, export=1, **times(0)),
        Batch(2, Chunk(day(3), day(3)), "open", 40, removed_duplicates=2, rejects=1, repaired=1, bytes_read=3_000_000, attempts=3, export=2, **times(10)),
        Batch(3, Chunk(day(4), day(4)), "failed", attempts=2, export=2, error=f"Mixpanel answered 500: {CONTROL}", **failed),
        Batch(4, Chunk(day(6), day(6)), "complete", attempts=1, export=2, **times(15)),
        Batch(5, Chunk(day(1), day(1)), "complete", 3, FILTERED, bytes_read=10, attempts=1, export=5, **times(50)),
    ]  # fmt: skip
    with duckdb.connect(str(path)) as connection:
        create_ledger(connection)
        for table, selection in (("events", ALL), ("filtered", FILTERED)):
            create_events_table(connection, table)
            its_batches = [batch for batch in batches if (batch.number == 5) == (table == "filtered")]
            Ledger(connection, table, selection, "UTC").write(with_table(its_batches, table, selection))
        store_events(connection, "events", 1, day(1), 100)
        store_events(connection, "events", 1, day(2), 30)
        store_events(connection, "events", 2, day(3), 38)
        store_events(connection, "filtered", 5, day(1), 3)
        connection.execute(
            "INSERT INTO events VALUES (NULL, NULL, NULL, NULL, '{}', 2), ('Stray', '1999-01-01', 'x', NULL, NULL, 2)"
        )
        connection.execute(
            f"INSERT INTO _export_rejects VALUES (2, 'rejected', encode('{CONTROL}')), (2, 'repaired', encode('{CONTROL}'))"
        )
        connection.execute(
            f"INSERT INTO _export_duplicates SELECT 1, 2, event_name, event_time, '{CONTROL}', '{CONTROL}', properties "
            "FROM events LIMIT 4"
        )
        store_profiles(connection)
        widen_target_days(connection, "events", ALL, Target(Chunk(day(1), day(6)), LoadOptions()))


def with_table(batches: Iterable[Batch], table: str, selection: Selection) -> list[Batch]:
    return [replace(batch, table=table, selection=selection) for batch in batches]


def report_data(path: Path, *, examples: bool = False) -> ReportData:
    """Return the data of a report on all tables."""
    with duckdb.connect(str(path), read_only=True) as connection:
        contents = read_contents(connection)
        now = datetime(2024, 6, 2, tzinfo=UTC)
        return collect(
            connection, path, contents.coverages, examples=examples, now=now, profiles=contents.profiles
        )


@dataclass
class Page(HTMLParser):
    """The contents of a page: its tables by caption, its ids, references, headings and scripts."""

    source: str
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    headings: list[int] = field(default_factory=list)
    scripts: dict[str | None, str] = field(default_factory=dict)
    attributes: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._rows: list[list[str]] = []
        self._caption = ""
        self._inside = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.attributes.append((tag, attributes))
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        for name in ("aria-labelledby", "data-chart"):
            self.references += [attributes[name] or ""] if name in attributes else []
        match tag:
            case "table":
                self._rows, self._caption = [], ""
            case "tr":
                self._rows.append([])
            case "th" | "td":
                self._rows[-1].append("")
            case "h1" | "h2" | "h3" | "h4":
                self.headings.append(int(tag[1]))
            case "script":
                self._inside = attributes.get("id") or f"script {len(self.scripts)}"
                self.scripts[self._inside] = ""
            case "caption":
                self._inside = "caption"

    def handle_endtag(self, tag: str) -> None:
        if tag in {"script", "caption"}:
            self._inside = ""
        elif tag == "table":
            self.tables.setdefault(self._caption, []).extend(self._rows)
            self._rows = []

    def handle_data(self, data: str) -> None:
        if self._inside == "caption":
            self._caption += data
        elif self._inside:
            self.scripts[self._inside] += data
        elif self._rows and self._rows[-1]:
            self._rows[-1][-1] += data.strip()
