"""`verify_events` finds each of many differences that are planted in a table, on the right days."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from projects import change, day, exported, project, verify

DAYS = [str(day(number)) for number in range(10)]
FIFTH = f"event_time::DATE = '{day(5)}'"
COPY = "INSERT INTO events SELECT * FROM events"


@dataclass(frozen=True)
class Planted:
    """A difference: the SQL that makes it, and the days on which it must be found."""

    name: str
    statements: tuple[str, ...]
    days: Iterable[str]


def planted(name: str, *statements: str, days: Iterable[int] = (5,)) -> object:
    marks = [pytest.mark.slow] if name in SLOW else []
    return pytest.param(Planted(name, statements, [DAYS[number] for number in days]), id=name, marks=marks)


SLOW = {
    "the first half of a day",
    "every row of a day twice",
    "rows of a day twice, a second later",
    "another name everywhere",
    "a name in lower case",
    "an event that is missing everywhere",
    "no rows at all",
    "every tenth row less",
}
PLANTED = [
    planted("a day without rows", f"DELETE FROM events WHERE {FIFTH}"),
    planted(
        "a day without rows and ledger",
        "DELETE FROM events WHERE export_batch = 2",
        "DELETE FROM _export_batches WHERE batch = 2",
        days=[3, 4, 5],
    ),
    planted("the first half of a day", f"DELETE FROM events WHERE {FIFTH} AND hour(event_time) < 12"),
    planted(
        "one row less", f"DELETE FROM events WHERE rowid = (SELECT min(rowid) FROM events WHERE {FIFTH})"
    ),
    planted("one row twice", f"{COPY} WHERE rowid = (SELECT min(rowid) FROM events WHERE {FIFTH})"),
    planted("every row of a day twice", f"{COPY} WHERE {FIFTH}"),
    planted("every row twice", COPY, days=range(10)),
    planted(
        "rows of a day twice, a second later",
        f"INSERT INTO events SELECT * REPLACE (event_time + INTERVAL 1 SECOND AS event_time) FROM events "
        f"WHERE {FIFTH} AND insert_id <> ''",
    ),
    planted(
        "rows of a day twice, in a batch that no ledger knows",
        f"INSERT INTO events SELECT * REPLACE (999 AS export_batch) FROM events WHERE {FIFTH}",
    ),
    planted(
        "another name on a day",
        f"UPDATE events SET event_name = 'Page Viewed' WHERE event_name = 'Page View' AND {FIFTH}",
    ),
    planted(
        "another name everywhere",
        "UPDATE events SET event_name = 'Page Viewed' WHERE event_name = 'Page View'",
        days=range(10),
    ),
    planted(
        "a name in lower case",
        f"UPDATE events SET event_name = 'page view' WHERE event_name = 'Page View' AND {FIFTH}",
    ),
    planted(
        "two names exchanged",
        "UPDATE events SET event_name = CASE event_name WHEN 'Page View' THEN 'Sign Up' ELSE 'Page View' END "
        f"WHERE event_name IN ('Page View', 'Sign Up') AND {FIFTH}",
    ),
    planted(
        "an event that is missing everywhere",
        "DELETE FROM events WHERE event_name = 'Page View'",
        days=range(10),
    ),
    planted("no rows at all", "DELETE FROM events", days=range(10)),
    planted(
        "an invented event",
        f"INSERT INTO events SELECT * REPLACE ('Ghost' AS event_name) FROM events WHERE {FIFTH} LIMIT 1",
    ),
    planted(
        "times in another zone",
        "UPDATE events SET event_time = event_time + INTERVAL 8 HOUR",
        days=range(10),
    ),
    planted(
        "a day that is moved to the next",
        f"UPDATE events SET event_time = event_time + INTERVAL 1 DAY WHERE {FIFTH}",
        days=[5, 6],
    ),
    planted("a day without times", f"UPDATE events SET event_time = NULL WHERE {FIFTH}"),
    planted(
        "rows of a day replaced by those of another",
        f"DELETE FROM events WHERE {FIFTH}",
        f"INSERT INTO events SELECT * REPLACE (event_time + INTERVAL 1 DAY AS event_time) FROM events "
        f"WHERE event_time::DATE = '{day(4)}'",
    ),
    planted(
        "every tenth row less",
        "DELETE FROM events WHERE rowid % 10 = 0",
        days=range(10),
    ),
    planted(
        "one user less",
        "DELETE FROM events WHERE distinct_id = (SELECT mode(distinct_id) FROM events)",
        days=[],
    ),
]


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete table, with duplicates in the project."""
    return anyio.run(exported, project(duplicates=0.1), tmp_path_factory.mktemp("complete") / "events.duckdb")


@pytest.mark.parametrize("difference", PLANTED)
def test_each_planted_difference_is_found(difference: Planted, complete: Path, db: Path) -> None:
    """Exactly the changed days are found, and nothing explains the difference."""
    shutil.copy(complete, db)
    change(db, *difference.statements)
    result = verify(project(duplicates=0.1), db)
    assert not result.verified
    if difference.days:
        assert list(result.failed_days) == list(difference.days)
    assert {each.day for each in result.unexplained} == set(result.failed_days)
