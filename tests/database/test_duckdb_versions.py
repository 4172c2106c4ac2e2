"""Other releases of DuckDB open our files, and the files that they made take an export.

The releases are installed from the package index, each into a folder of its own that pytest's cache keeps.
Without the index, or the cache, these tests fail: that a file opens is nothing to assume.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from examples import slow
from support import COLUMNS, export, held, query, simulator, truth
from tools import install, tools_folder

from mixpanel_export._local.upgrade import upgrade_database
from mixpanel_export.errors import TableFormatError
from mixpanel_export.simulator import checksum

pytestmark = pytest.mark.anyio

RELEASES = ["1.2.2", "1.4.5"]
EPOCH = datetime(1970, 1, 1)

# Run by the same interpreter with nothing but the release on its path.
SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import duckdb
connection = duckdb.connect(sys.argv[2])
connection.execute(sys.stdin.read())
rows = connection.fetchall()
connection.close()
json.dump([duckdb.__version__, rows], sys.stdout, default=str)
"""

# As mixpanel_data made them, with rows of its own.
MIXPANEL_DATA = """
CREATE TABLE "events" (event_name VARCHAR NOT NULL, event_time TIMESTAMP NOT NULL, distinct_id VARCHAR NOT NULL,
    insert_id VARCHAR PRIMARY KEY, properties JSON);
CREATE TABLE "profiles" (distinct_id VARCHAR PRIMARY KEY, properties JSON, last_seen TIMESTAMP);
CREATE TABLE IF NOT EXISTS _metadata (table_name VARCHAR PRIMARY KEY, type VARCHAR NOT NULL,
    fetched_at TIMESTAMP NOT NULL, from_date DATE, to_date DATE, row_count INTEGER NOT NULL);
INSERT INTO events
    SELECT 'Old', TIMESTAMP '2024-03-02' + INTERVAL (i) SECOND, 'u' || i % 7, 'id' || i, json_object('n', i)
    FROM range(5000) AS numbers(i);
INSERT INTO profiles SELECT 'u' || i, '{"$city": "Nürnberg"}', TIMESTAMP '2024-03-02' FROM range(7) AS numbers(i);
INSERT INTO _metadata VALUES
    ('events', 'events', '2024-03-05 06:07:08', '2024-03-01', '2024-03-04', 5000),
    ('profiles', 'profiles', '2024-03-05 06:07:08', NULL, NULL, 7);
"""
# Everything that mixpanel_data would find: the text of its tables' definitions, constraints and all, and their rows.
THEIRS = """
SELECT sql FROM duckdb_tables() WHERE table_name IN ('events', 'profiles', '_metadata')
UNION ALL SELECT 'events: ' || list(events ORDER BY insert_id)::VARCHAR FROM events
UNION ALL SELECT 'profiles: ' || list(profiles ORDER BY distinct_id)::VARCHAR FROM profiles
UNION ALL SELECT '_metadata: ' || list(_metadata ORDER BY table_name)::VARCHAR FROM _metadata
ORDER BY 1
"""

STORAGE = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
PROFILES = "SELECT distinct_id, properties, last_seen FROM profiles ORDER BY distinct_id"


@dataclass(frozen=True, slots=True)
class Release:
    """A release of DuckDB in its own folder."""

    version: str
    folder: Path

    def run(self, db: Path, sql: str) -> list[list[Any]]:
        """Open the file for writing, run the statements, and return the rows of the last one."""
        command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", SCRIPT, str(self.folder), str(db)]
        done = subprocess.run(command, input=sql, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        version, rows = json.loads(done.stdout)
        assert version == self.version
        return list(rows)

    def held(self, db: Path, table: str = "events") -> int:
        """Return the checksum of what this release reads from the table."""
        micros = COLUMNS.replace("event_time", "epoch_us(event_time)")
        return checksum(
            (
                name,
                None if time is None else EPOCH + timedelta(microseconds=time),
                user,
                insert_id,
                properties,
            )
            for name, time, user, insert_id, properties in self.run(db, f'SELECT {micros} FROM "{table}"')
        )


@pytest.fixture
def anyio_backend() -> str:
    """One event loop is enough: the files are what is tested."""
    return "asyncio"


@pytest.fixture(scope="session")
def release(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Release]:
    """Return a release of DuckDB by its version."""
    folder = tools_folder(request, tmp_path_factory)

    def installed(version: str) -> Release:
        return Release(version, install(folder, f"duckdb-{version}", "--no-deps", f"duckdb=={version}"))

    return installed


@pytest.mark.parametrize("version", ["1.4.5", *slow(sorted({*RELEASES} - {"1.4.5"}))])
async def test_older_releases_read_and_write_our_file(
    version: str, release: Callable[[str], Release], tmp_path: Path
) -> None:
    """An older release reads our files exactly and can write to them, also after writes by both."""
    older, sim, db = release(version), simulator(), tmp_path / "ours.duckdb"
    await export(sim, db, "2024-03-01", "2024-03-05")
    assert older.held(db) == truth(sim, "2024-03-01", "2024-03-05")
    assert older.run(db, "SELECT from_date, to_date, missing_days FROM _metadata") == [
        ["2024-03-01", "2024-03-05", 0]
    ]
    older.run(db, "CREATE TABLE notes AS SELECT 'mine' AS note; DELETE FROM events WHERE export_batch = 1")
    await export(sim, db, "2024-03-01", "2024-03-05", mode="append")
    await export(sim, db, "2024-03-06", "2024-03-09", mode="append")
    assert older.held(db) == held(db) == truth(sim)
    assert older.run(db, "SELECT note FROM notes") == [["mine"]]


@pytest.mark.parametrize("beside", ["beside mixpanel_data", *slow(["alone"])])
@pytest.mark.parametrize(
    "version, storage",
    [("1.4.5", "v1.4.0"), *slow([("1.2.2", "v1.0.0"), ("1.4.5", "v1.0.0"), ("1.4.5", "v1.2.0")])],
)
async def test_a_file_of_an_older_release_takes_an_export(
    version: str, storage: str, beside: str, release: Callable[[str], Release], tmp_path: Path
) -> None:
    """An export into a file of any storage version is exact for both releases, and keeps the maker's own tables."""
    maker, sim, db = release(version), simulator(), tmp_path / "theirs.duckdb"
    make(maker, db, storage, MIXPANEL_DATA if beside != "alone" else "CREATE TABLE notes (note VARCHAR)")
    before = maker.run(db, THEIRS) if beside != "alone" else []

    result = await export(sim, db, table="fetched")
    again = await export(sim, db, table="fetched", mode="resume")

    assert not result.has_failures
    assert again.total_rows == 0
    assert held(db, "fetched") == maker.held(db, "fetched") == truth(sim)
    assert storage in query(db, STORAGE)[0][0]
    if beside == "alone":
        assert maker.run(db, "SELECT table_name, row_count FROM _metadata") == [
            ["fetched", result.total_rows]
        ]
    else:
        assert maker.run(db, THEIRS) == before


@pytest.mark.parametrize("mode", ["append", *slow(["resume"])])
async def test_mixpanel_datas_own_table_is_not_added_to(
    mode: Literal["append", "resume"], release: Callable[[str], Release], tmp_path: Path
) -> None:
    """Adding to a table that mixpanel_data created is refused before any request, and does not change it."""
    maker, sim, db = release("1.4.5"), simulator(), tmp_path / "theirs.duckdb"
    make(maker, db, "v1.0.0", MIXPANEL_DATA)
    before = maker.run(db, THEIRS)
    with pytest.raises(TableFormatError, match="mixpanel_data"):
        await export(sim, db, mode=mode)
    assert sim.requests == []
    assert maker.run(db, THEIRS) == before


@pytest.mark.parametrize(
    "version, storage", [("1.4.5", "v1.0.0"), *slow([("1.2.2", "v1.0.0"), ("1.4.5", "v1.4.0")])]
)
def test_a_file_that_was_upgraded_is_still_its_makers(
    version: str, storage: str, release: Callable[[str], Release], tmp_path: Path
) -> None:
    """An upgraded file keeps every row and its storage version, so the release that wrote it can still read it."""
    maker, db = release(version), tmp_path / "theirs.duckdb"
    make(maker, db, storage, MIXPANEL_DATA)
    before, profiles = maker.held(db), maker.run(db, PROFILES)
    upgraded = {table.name: table.row_count for table in upgrade_database(db).tables}
    assert upgraded == {"events": 5000, "profiles": 7}
    assert storage in query(db, STORAGE)[0][0]
    assert maker.held(db) == held(db) == before
    assert maker.run(db, PROFILES) == profiles
    assert maker.run(db, "SELECT table_name, row_count FROM _metadata ORDER BY ALL") == [
        ["events", 5000],
        ["profiles", 7],
    ]


def make(maker: Release, db: Path, storage: str, sql: str) -> None:
    """Have *maker* create the file with a storage version; v1.0.0 is the one that it takes by default."""
    if storage == "v1.0.0":
        maker.run(db, sql)
    else:
        attach = f"ATTACH '{db}' AS made (STORAGE_VERSION '{storage}'); USE made;"
        maker.run(Path(":memory:"), attach + sql)
