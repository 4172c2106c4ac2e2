"""The four modes, selections and limits: how each changes the table, and what it rejects."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from support import NOW, export, held, ledger, query, simulator, truth

from mixpanel_export.errors import (
    LedgerMismatchError,
    SelectionError,
    TableExistsError,
    TableNotFoundError,
)
from mixpanel_export.simulator import Fault

pytestmark = pytest.mark.anyio


FIFTH = date(2024, 3, 5)


async def test_create_wants_no_table(db: Path) -> None:
    """Create is rejected before any request if the table exists."""
    sim = simulator()
    await export(sim, db)
    with pytest.raises(TableExistsError, match="resume"):
        await export(sim, db)
    assert len(sim.requests) == 3


async def test_append_wants_a_table(db: Path) -> None:
    """Append is rejected before any request if the table does not exist."""
    sim = simulator()
    with pytest.raises(TableNotFoundError):
        await export(sim, db, mode="append")
    assert sim.requests == []


async def test_append_adds_other_days(db: Path) -> None:
    """The table then has both ranges of days."""
    sim = simulator()
    await export(sim, db)
    result = await export(sim, db, "2024-03-10", "2024-03-12", mode="append")
    assert held(db) == truth(sim, "2024-03-01", "2024-03-12")
    assert result.total_rows == sim.truth(date(2024, 3, 10), date(2024, 3, 12)).distinct


async def test_append_of_days_held_replaces_whole_batches(db: Path) -> None:
    """Days that would divide earlier batches are extended to the batches' ends, as reported; no event is duplicated."""
    sim = simulator()
    await export(sim, db, chunk_days=3)
    result = await export(sim, db, "2024-03-02", "2024-03-05", mode="append")
    assert result.added_date_ranges == (("2024-03-01", "2024-03-01"), ("2024-03-06", "2024-03-06"))
    assert result.total_rows == 0
    assert held(db) == truth(sim)


async def test_replace_swaps_the_table_for_the_new_days(db: Path) -> None:
    """After replace, the table and the ledger have only the new days."""
    sim = simulator()
    await export(sim, db)
    result = await export(sim, db, "2024-03-05", "2024-03-12", mode="replace", chunk_days=4)
    assert held(db) == truth(sim, "2024-03-05", "2024-03-12")
    assert result.total_rows == sim.truth(date(2024, 3, 5), date(2024, 3, 12)).distinct
    assert query(db, "SELECT DISTINCT table_name FROM _export_batches") == [("events",)]
    assert query(
        db, "SELECT table_name FROM duckdb_tables() WHERE table_name NOT LIKE '\\_%' ESCAPE '\\'"
    ) == [("events",)]


async def test_a_failed_replace_leaves_the_old_table_and_goes_on_next_time(db: Path) -> None:
    """After a failed batch, replace keeps the old table; the same call fetches only the missing days and replaces it."""
    sim = simulator()
    await export(sim, db)
    before = held(db)
    sim.faults = [Fault("500", first=FIFTH, last=FIFTH)]
    days = "2024-03-04", "2024-03-06"
    result = await export(sim, db, *days, mode="replace", retries=0)
    assert (result.failed_batches, result.total_rows, held(db)) == (1, 0, before)
    sim.faults = []
    asked = len(sim.requests)
    await export(sim, db, *days, mode="replace")
    assert len(sim.requests) == asked + 1
    assert held(db) == truth(sim, *days)


async def test_another_replace_starts_from_nothing(db: Path) -> None:
    """Days of an unfinished replacement are not used for other days."""
    sim = simulator(faults=[Fault("500", first=FIFTH, last=FIFTH)])
    await export(sim, db, mode="replace", retries=0)
    sim.faults = []
    await export(sim, db, "2024-03-02", "2024-03-08", mode="replace", chunk_days=7)
    assert held(db) == truth(sim, "2024-03-02", "2024-03-08")


async def test_resume_without_a_table_starts_from_nothing(db: Path) -> None:
    """Resume creates the table, also if it was dropped with SQL and the ledger still has its rows."""
    sim = simulator()
    await export(sim, db, mode="resume")
    query(db, "DROP TABLE events")
    await export(sim, db, mode="resume")
    assert held(db) == truth(sim)


async def test_resume_does_not_trust_a_ledger_that_the_table_belies(db: Path) -> None:
    """Rows that were deleted with SQL are noticed before any request, and append of those days repairs the table."""
    sim = simulator()
    await export(sim, db)
    query(db, "DELETE FROM events WHERE event_time::DATE = '2024-03-05'")
    asked = len(sim.requests)
    with pytest.raises(LedgerMismatchError, match="2024-03-04 to 2024-03-06") as caught:
        await export(sim, db, mode="resume")
    assert (caught.value.batch, len(sim.requests)) == (2, asked)
    await export(sim, db, "2024-03-05", "2024-03-05", mode="append")
    assert held(db) == truth(sim)


async def test_days_that_were_not_final_are_fetched_again(db: Path) -> None:
    """An export up to today, resumed two days later, equals the truth of that time, and old days are not requested again."""
    clock = [NOW]
    sim = simulator(now=lambda: clock[0], late=0.3)
    await export(sim, db, "2024-05-28", "2024-06-01", now=lambda: clock[0])
    assert held(db) == truth(sim, "2024-05-28", "2024-06-01")
    assert [row[2] for row in ledger(db)] == ["complete"] * 2 + ["open"] * 3
    clock[0] = NOW + timedelta(days=2)
    asked = len(sim.requests)
    await export(sim, db, "2024-05-28", "2024-06-03", mode="resume", now=lambda: clock[0])
    assert held(db) == truth(sim, "2024-05-28", "2024-06-03")
    assert min(str(request.first) for request in sim.requests[asked:]) == "2024-05-30"


async def test_selections_that_share_no_event_share_a_table(db: Path) -> None:
    """Two disjoint lists of event names can share a table; an overlapping list is rejected before any request."""
    sim = simulator()
    names = sorted({row[0] for row in sim.rows(date(2024, 3, 1), date(2024, 3, 9)) if row[0] is not None})
    one, other = names[:2], names[2:4]
    await export(sim, db, events=one)
    await export(sim, db, events=other, mode="append")
    assert held(db) == truth(sim, events=[*one, *other])
    asked = len(sim.requests)
    for events in (None, names[1:3]):
        with pytest.raises(SelectionError, match="another table"):
            await export(sim, db, events=events, mode="append")
    assert len(sim.requests) == asked


async def test_a_limited_export_never_counts_as_having_the_days(db: Path) -> None:
    """A limit returns that many events in one request; resume then fetches the days completely."""
    sim = simulator()
    result = await export(sim, db, limit=7)
    assert (result.total_rows, len(sim.requests)) == (7, 1)
    assert ledger(db, "status") == [("limited",)]
    await export(sim, db, mode="resume")
    assert held(db) == truth(sim)


async def test_a_limited_export_does_not_replace_whole_days(db: Path) -> None:
    """A limit for days that are complete in the table is rejected before any request."""
    sim = simulator()
    await export(sim, db)
    with pytest.raises(SelectionError, match="limit"):
        await export(sim, db, limit=7, mode="append")
    assert len(sim.requests) == 3


async def test_a_limit_is_one_request_however_far_it_is_widened(db: Path) -> None:
    """A limited export over days of an earlier limited one sends one request."""
    sim = simulator()
    await export(sim, db, "2024-03-01", "2024-03-05", limit=10)
    result = await export(sim, db, "2024-03-04", "2024-03-06", limit=10, mode="append")
    assert (len(sim.requests), result.successful_batches) == (2, 1)
    assert query(db, "SELECT count(*) FROM events") == [(10,)]


async def test_one_request_is_one_however_far_it_is_widened(db: Path) -> None:
    """Days that would divide an earlier batch are requested together with its other days."""
    sim = simulator()
    await export(sim, db, "2024-03-05", "2024-03-12", one_request=True)
    result = await export(sim, db, "2024-03-10", "2024-03-19", one_request=True, mode="append")
    assert (len(sim.requests), result.added_date_ranges) == (2, (("2024-03-05", "2024-03-09"),))
    assert held(db) == truth(sim, "2024-03-05", "2024-03-19")
