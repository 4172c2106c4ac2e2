"""A database of the previous release opens, shows the same data, and can be completed like a new one."""

import json
import lzma
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import anyio
import pytest
from earlier_project import FIRST, LAST, LATER, SELECTIONS, Project, export_all
from examples import slow
from shell import mpx
from support import COLUMNS, query

BEFORE = Path(__file__).with_name("earlier_release")
UNFINISHED = [date(2024, 3, day) for day in (6, 7, 8)]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A copy of the file that the release before wrote."""
    db = tmp_path / "events.duckdb"
    db.write_bytes(lzma.decompress((BEFORE / "events.duckdb.xz").read_bytes()))
    return db


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file into which the same tables are exported today."""
    db = tmp_path_factory.mktemp("fresh") / "fresh.duckdb"
    anyio.run(lambda: export_all(db, Project(late=True), LATER))
    return db


def contents(db: Path) -> dict[str, Counter[tuple[Any, ...]]]:
    """Return the rows of each table, what was set aside, and the days of the ledger, all without numbers of batches."""
    queries = {table: f"SELECT {COLUMNS} FROM {table}" for table in SELECTIONS} | {
        "duplicates": f"SELECT {COLUMNS} FROM _export_duplicates",
        "rejects": "SELECT reason, line FROM _export_rejects",
        "strays": "SELECT event_time, insert_id FROM _export_strays",
        "ledger": 'SELECT table_name, from_date, to_date, status, "rows" FROM _export_batches',
    }
    return {name: Counter(query(db, sql)) for name, sql in queries.items()}


def test_status_shows_the_same(db: Path) -> None:
    """Each value that the previous release printed about a table is printed again."""
    before = json.loads((BEFORE / "status.json").read_text(encoding="utf-8"))
    after = json.loads(mpx("status", str(db), "--json").stdout)
    assert len(after["tables"]) == len(before["tables"]) == len(SELECTIONS)
    for then, now in zip(before["tables"], after["tables"], strict=True):
        for failure in now["failures"]:
            del failure["command"], failure["error"]
        assert {name: now[name] for name in then} == then


@pytest.mark.filterwarnings("ignore:.*overlap:UserWarning")
@pytest.mark.parametrize("mode", ["resume", *slow(["append", "replace"])])
def test_a_file_of_the_release_before_becomes_what_a_fresh_export_gives(
    mode: str, db: Path, fresh: Path
) -> None:
    """Resume requests failed and open days, the other modes all days; then both files have the same contents."""
    project = Project(late=True)
    anyio.run(lambda: export_all(db, project, LATER, mode=mode))
    assert contents(db) == contents(fresh)
    days = set(project.days)
    assert days == ({*UNFINISHED} if mode == "resume" else {*_days()})


def _days() -> list[date]:
    return [date.fromordinal(day) for day in range(FIRST.toordinal(), LAST.toordinal() + 1)]
