"""How to provoke the errors of publications."""

import sys
from collections.abc import Callable
from typing import Any

from shell import mpx
from steps import Place, exists, sql, steps

from mixpanel_export import copy_database, run_sync
from mixpanel_export._publish.publish import publish_table


def published(destination: str = "lake", table: str | None = None, **options: Any) -> Callable[[Place], Any]:
    """Publish to a folder beside the database."""
    return lambda place: run_sync(publish_table, place.db, destination, table, **options)


def copied(name: str, *, itself: bool = False) -> Callable[[Place], Any]:
    """Copy the database to a file beside it, or to itself."""
    return lambda place: run_sync(copy_database, place.db, place.db if itself else place.folder / name)


def with_file(name: str) -> Callable[[Place], None]:
    """Create a file beside the database."""

    def case(place: Place) -> None:
        path = place.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("", encoding="utf-8")

    return case


def blocked(place: Place) -> None:
    """Have a folder with the name of a file."""
    place.folder.joinpath("lake", "date=2024-03-02", "data.parquet").mkdir(parents=True)


def without_obstore(place: Place) -> None:
    """Have no obstore."""
    place.monkeypatch.setitem(sys.modules, "obstore", None)


PUBLISH_CASES: dict[str, Callable[[Place], Any]] = {
    "publish_table: no destination": steps(exists, published("")),
    "publish_table: a URL of another scheme": steps(exists, published("https://example.com/lake")),
    "publish_table: a folder of another machine": steps(exists, published("file://server/lake")),
    "publish_table: a URL with a password": steps(exists, published("s3://name:word@bucket/lake")),
    "publish_table: a URL without a bucket": steps(exists, published("s3:///lake")),
    "publish_table: a server without TLS": steps(
        exists, published("s3://bucket/lake", endpoint="http://example.com")
    ),
    "publish_table: a bucket without obstore": steps(exists, without_obstore, published("s3://bucket/lake")),
    "publish_table: an unknown format": steps(exists, published(format="csv")),
    "publish_table: a table that is not there": steps(exists, published(table="event")),
    "publish_table: a table of the user": steps(
        exists, sql("CREATE TABLE mine (x INTEGER)"), published(table="mine")
    ),
    "publish_table: a view": steps(exists, sql("CREATE VIEW seen AS FROM events"), published(table="seen")),
    "publish_table: a time after year 9999": steps(
        exists, sql("UPDATE events SET event_time = '10000-01-01' WHERE rowid = 0"), published()
    ),
    "publish_table: another table than before": steps(exists, published(), published(flat=True)),
    "publish_table: a file of the user": steps(exists, with_file("lake/notes.txt"), published()),
    "publish_table: a data set of another database": steps(
        exists, with_file("lake/date=2024-03-01/data.parquet"), published()
    ),
    "publish_table: a file in the place of the folder": steps(exists, with_file("lake"), published()),
    "publish_table: a folder in the place of a file": steps(exists, blocked, published()),
    "publish_table: a state that cannot be read": steps(
        exists, sql("CREATE TABLE _published_days (x INTEGER)"), published()
    ),
    "copy_database: the database itself": steps(exists, copied("mixpanel.duckdb", itself=True)),
    "copy_database: a log beside the copy": steps(
        exists, with_file("copy.duckdb.wal"), copied("copy.duckdb")
    ),
    "copy_database: a folder that does not exist": steps(exists, copied("none/copy.duckdb")),
    "mpx publish: a data set of another database": steps(
        exists,
        with_file("lake/date=2024-03-01/data.parquet"),
        lambda place: mpx("publish", "lake", "--db", str(place.db)),
    ),
}
