"""Publications to a folder: what is written, what is rejected, and what a killed publication leaves."""

import multiprocessing
import os
import signal
from collections import Counter
from datetime import date
from functools import partial
from pathlib import Path
from shutil import copyfile

import duckdb
import pytest
from data_sets import NO_DAY, by_day, data_set, publish, table_rows
from hypothesis import given
from hypothesis import strategies as st
from support import export, query, simulator

from mixpanel_export import (
    ArgumentError,
    PublishError,
    PublishProgress,
    TableFormatError,
    TableNotFoundError,
    Workspace,
    run_sync,
)
from mixpanel_export._publish.layout import PARQUET
from mixpanel_export._publish.object_store import staging_beside
from mixpanel_export._publish.parts import BY_DAY, WHOLE

FIRST, LAST = "2024-03-01", "2024-03-04"
FLAT = 'SELECT * EXCLUDE (export_batch), event_time::DATE FROM "events_flat"'


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with four days, and a row without a time."""
    db = tmp_path_factory.mktemp("original") / "events.duckdb"
    run_sync(export, simulator(odd=0.05), db, FIRST, LAST, chunk_days=1)
    query(db, "UPDATE events SET event_time = NULL WHERE event_time = (SELECT max(event_time) FROM events)")
    return db


@pytest.fixture
def exported(original: Path, db: Path) -> Path:
    """A copy of the database for the test."""
    return copyfile(original, db)


def test_a_data_set_has_a_file_for_each_day(exported: Path, lake: Path) -> None:
    """The first publication writes all days, with JSON columns and zstd. The second one writes nothing."""
    progress: list[PublishProgress] = []
    result = publish(exported, lake, on_progress=progress.append)
    rows = by_day(table_rows(exported))
    assert NO_DAY in rows
    assert (
        set(result.written_days)
        == rows.keys()
        == {path.name.removeprefix("date=") for path in lake.iterdir()}
    )
    assert (result.days, result.rows) == (len(rows), sum(map(Counter.total, rows.values())))
    assert data_set(lake) == table_rows(exported)
    assert progress[-1] == PublishProgress(result.days, result.days, result.rows, result.bytes_written)
    file = lake / f"date={FIRST}" / "data.parquet"
    with duckdb.connect() as connection:
        types = connection.execute(f"SELECT name, logical_type FROM parquet_schema('{file}')").fetchall()
        codecs = connection.execute(f"SELECT DISTINCT compression FROM parquet_metadata('{file}')").fetchall()
    assert dict(types)["properties"] == "JsonType()"
    assert codecs == [("ZSTD",)]
    again = publish(exported, lake, verify=True)
    assert (again.written_days, again.removed_days, again.different_days) == ((), (), ())


def test_a_refetched_day_with_the_same_events_stays(exported: Path, lake: Path) -> None:
    """Its version differs, because its rows have another batch, but its file is not written again."""
    publish(exported, lake)
    before = (lake / f"date={FIRST}" / "data.parquet").stat().st_mtime_ns
    run_sync(export, simulator(odd=0.05), exported, FIRST, FIRST, mode="append")
    assert publish(exported, lake).written_days == ()
    assert (lake / f"date={FIRST}" / "data.parquet").stat().st_mtime_ns == before


def test_a_damaged_file_is_found_and_written_again(exported: Path, lake: Path) -> None:
    """`verify` finds a file with other rows although its size and time are the same. The next run writes it."""
    publish(exported, lake)
    query(exported, f"UPDATE events SET event_name = 'other' WHERE event_time::DATE = '{FIRST}'")
    assert publish(exported, lake).written_days == ()
    assert publish(exported, lake, verify=True).different_days == (FIRST,)
    result = publish(exported, lake, verify=True)
    assert (result.written_days, result.different_days) == ((FIRST,), ())
    assert data_set(lake) == table_rows(exported)


def test_a_flat_table_has_one_schema(exported: Path, lake: Path) -> None:
    """A new column of the flat table, and a wider one, are in the files of all days. A property `date` is `date_2`."""
    _set_properties(exported, FIRST, '{"plan": 1, "date": "a", "DATE_2": true}')
    publish(exported, lake, flat=True)
    narrow = _schema(lake)
    assert {"plan", "DATE_2", "date_3"} <= narrow.keys()
    _set_properties(exported, LAST, '{"plan": "free", "new": 2.5}')
    run_sync(export, simulator(odd=0.05), exported, LAST, LAST, mode="append")  # a later batch number
    _set_properties(exported, LAST, '{"plan": "free", "new": 2.5}')
    result = publish(exported, lake)
    assert len(result.written_days) == result.days
    assert _schema(lake) == narrow | {"plan": "VARCHAR", "new": "DOUBLE"}
    assert data_set(lake) == Counter(query(exported, FLAT))


def _set_properties(db: Path, day: str, properties: str) -> None:
    query(db, f"UPDATE events SET properties = '{properties}' WHERE event_time::DATE = '{day}'")


def _schema(lake: Path) -> dict[str, str]:
    """Return the columns of the files, which must be the same in all of them."""
    with duckdb.connect() as connection:
        schemas = [
            connection.execute(f"DESCRIBE FROM read_parquet('{file}', hive_partitioning = false)").fetchall()
            for file in lake.glob("*/*.parquet")
        ]
    assert all(schema == schemas[0] for schema in schemas)
    return {name: kind for name, kind, *_ in schemas[0]}


def test_files_of_others_are_rejected(exported: Path, lake: Path, tmp_path: Path) -> None:
    """A folder with other files is rejected, also later. Of two databases, each replaces the other's files only if requested."""
    lake.mkdir()
    (lake / "notes.txt").write_text("mine")
    with pytest.raises(PublishError, match=r"notes\.txt"):
        publish(exported, lake, overwrite=True)
    (lake / "notes.txt").rename(lake / "_notes.txt")  # readers ignore this name
    publish(exported, lake)
    other = tmp_path / "other.duckdb"
    run_sync(export, simulator(), other, FIRST, FIRST)
    with pytest.raises(PublishError, match="another database"):
        publish(other, lake)
    assert data_set(lake) == table_rows(exported)
    publish(other, lake, overwrite=True)
    assert data_set(lake) == table_rows(other)
    with pytest.raises(PublishError, match="another database"):
        publish(exported, lake)
    assert data_set(lake) == table_rows(other)
    publish(exported, lake, overwrite=True)
    assert data_set(lake) == table_rows(exported)
    assert (lake / "_notes.txt").read_text() == "mine"


def test_a_destination_keeps_its_table(exported: Path, lake: Path) -> None:
    """Another table is rejected until the files are deleted; no flat table is created for it."""
    publish(exported, lake)
    with pytest.raises(ArgumentError, match="table"):
        publish(exported, lake, flat=True)
    assert query(exported, "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events_flat'") == [(0,)]
    for file in lake.glob("*/*"):
        file.unlink()
    assert publish(exported, lake, flat=True).table == "events_flat"
    assert publish(exported, lake).written_days == ()


@pytest.mark.parametrize("destination", ["", "-", "s4://bucket/x", "file://host/x", "https://example.com/x"])
def test_a_wrong_destination_is_an_argument_error(exported: Path, destination: str) -> None:
    """The error names the argument."""
    with pytest.raises(ArgumentError) as caught:
        publish(exported, destination)
    assert caught.value.argument == "destination"


def test_other_tables_cannot_be_published(exported: Path, lake: Path) -> None:
    """A table that was not exported, a view and a missing table are errors, and no folder is created."""
    query(exported, "CREATE TABLE mine AS SELECT 1 AS x; CREATE VIEW copy AS FROM events")
    for table in ("mine", "copy"):
        with pytest.raises(TableFormatError):
            publish(exported, lake, table)
    with pytest.raises(TableNotFoundError, match="events"):
        publish(exported, lake, "event")
    with pytest.raises(ArgumentError, match="format"):
        publish(exported, lake, format="csv")
    assert not lake.exists()


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_a_linked_day_is_a_file_of_others(exported: Path, lake: Path, tmp_path: Path) -> None:
    """Readers follow a link in place of a day's folder, so a publication that cannot replace its files is rejected."""
    publish(exported, lake)
    folder = lake / f"date={FIRST}"
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(PublishError, match=FIRST):
        publish(exported, lake)
    folder.unlink()
    assert publish(exported, lake, verify=True).written_days == (FIRST,)


def test_a_file_url_and_a_path_are_one_destination(exported: Path, lake: Path) -> None:
    """A publication to the URL of a folder continues the publication to its path."""
    publish(exported, lake)
    with Workspace(path=exported) as workspace:
        result = workspace.publish(lake.as_uri())
    assert (result.destination, result.written_days) == (str(lake), ())


def test_a_killed_publication_leaves_whole_files(exported: Path, lake: Path) -> None:
    """Each day has its old rows, its new rows or no file. The next publication completes the data set."""
    publish(exported, lake)
    old = by_day(table_rows(exported))
    query(exported, "UPDATE events SET event_name = 'new'; UPDATE _export_batches SET revision = 7")
    new = by_day(table_rows(exported))
    process = multiprocessing.get_context("spawn").Process(target=_publish_and_die, args=(exported, lake))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    rows = by_day(data_set(lake))
    assert all(rows[day] in (old[day], new[day]) for day in rows)
    assert rows.keys() == old.keys()
    assert rows != old
    assert rows != new
    publish(exported, lake)
    assert data_set(lake) == table_rows(exported)
    assert not list(lake.glob(".mpx-*"))


def _publish_and_die(db: Path, lake: Path) -> None:
    def die(progress: PublishProgress) -> None:
        if progress.days_done == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    publish(db, lake, on_progress=die)


@given(st.none() | st.dates())
def test_only_names_of_days_belong_to_a_data_set(day: date | None) -> None:
    """For any day, its file belongs to the data set, and similar names do not."""
    name, owns = PARQUET.file(BY_DAY, day), partial(PARQUET.owns, BY_DAY)
    assert owns(name)
    assert not any(map(owns, (f"x/{name}", f"{name}x", name.replace("=", "=0"), name.replace("data", "dat"))))
    assert not PARQUET.owns(WHOLE, name)


def test_days_at_the_ends_of_time_are_published(exported: Path, lake: Path) -> None:
    """The first and the last day that Python has are partitions like others, to their last microsecond."""
    for time in (date.min, date.max):
        query(
            exported,
            f"UPDATE events SET event_time = '{time} 23:59:59.999999' WHERE rowid = {time.year // 5000}",
        )
    publish(exported, lake)
    assert data_set(lake) == table_rows(exported)


@pytest.mark.parametrize("time", ["10000-01-01", "0001-12-31 (BC)", "infinity", "-infinity"])
def test_times_beyond_the_calendar_are_an_error(exported: Path, lake: Path, time: str) -> None:
    """A time that is on no day of a data set is an error, and nothing is written."""
    query(exported, f"UPDATE events SET event_time = '{time}' WHERE rowid = 1")
    with pytest.raises(PublishError, match="table events "):
        publish(exported, lake)
    assert not lake.exists()


@pytest.mark.skipif(os.name != "posix", reason="Windows does not allow a * in a name")
def test_each_database_has_its_own_staging_folder(tmp_path: Path) -> None:
    """For an object store, only a folder that the same database has left is deleted, whatever its name is."""
    own, other = (tmp_path / f".{name}.publish-old" for name in ("a*", "ab"))
    own.mkdir()
    other.mkdir()
    with staging_beside(tmp_path / "a*") as folder:
        assert sorted(tmp_path.iterdir()) == sorted([folder, other])
    assert list(tmp_path.iterdir()) == [other]
