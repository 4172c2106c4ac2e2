"""Rolling back when no transaction is open, so that the first error is the one reported."""

import sys
from pathlib import Path

import duckdb
import pytest

from mixpanel_export._database.connection import connect, roll_back, transaction

if sys.platform != "win32":
    import resource


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
def test_a_full_disk_that_invalidates_the_database_stays_the_error(db: Path) -> None:
    """After a failed checkpoint, there is nothing to roll back; the next process finds all committed rows."""
    connection = connect(db)
    connection.execute("CREATE TABLE t (x INTEGER)")
    connection.execute("CHECKPOINT")
    with transaction(connection):
        connection.execute("INSERT INTO t SELECT range FROM range(1000)")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (db.stat().st_size, before[1]))
    try:
        with pytest.raises(duckdb.FatalException, match="File too large"):
            connection.execute("CHECKPOINT")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(duckdb.FatalException, match="invalidated"):
        connection.rollback()
    roll_back(connection)
    connection.close()
    with connect(db) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1000,)
