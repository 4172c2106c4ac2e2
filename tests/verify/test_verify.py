"""Tables that agree with Mixpanel's counts, for any project and any way to export it."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from examples import examples
from hypothesis import example, given
from hypothesis import strategies as st
from projects import FIRST, LAST, change, exported, project, verified, verify, wrong
from support import query

from mixpanel_export import VerifyResult
from mixpanel_export.simulator import Counting

pytestmark = pytest.mark.anyio

ZONES = ["UTC", "US/Pacific", "Asia/Kolkata", "Pacific/Kiritimati"]
PROJECTS = st.fixed_dictionaries({
    "seed": st.integers(0, 99),
    "events_per_day": st.integers(0, 60),
    "duplicates": st.sampled_from([0.0, 0.02, 0.5]),
    "missing_insert_id": st.sampled_from([0.0, 0.3]),
    "odd": st.sampled_from([0.0, 0.1]),
    "awkward": st.sampled_from([0.0, 0.1]),
    "rejects": st.sampled_from([0.0, 0.05]),
    "leaks": st.sampled_from([0.0, 0.1]),
    "timezone": st.sampled_from([None, "US/Pacific", "Australia/Lord_Howe"]),
})  # fmt: skip
EXPORTS = st.fixed_dictionaries({
    "chunk_days": st.sampled_from([1, 3, 10]),
    "dedupe": st.booleans(),
    "events": st.sampled_from([None, ["Page View", "Sign Up", "No Such Event"]]),
})  # fmt: skip
TEXT_TIMES: dict[str, Any] = dict.fromkeys(
    ["duplicates", "missing_insert_id", "awkward", "rejects", "leaks"], 0.0
) | {
    "seed": 41,
    "events_per_day": 39,
    "odd": 0.1,
    "timezone": "Australia/Lord_Howe",
}
"""A project with a time that is written as text with an offset, near the end of a day."""
UNTIMED_COPIES: dict[str, Any] = {
    "seed": 39,
    "events_per_day": 32,
    "duplicates": 0.5,
    "missing_insert_id": 0.0,
    "odd": 0.0,
    "awkward": 0.1,
    "rejects": 0.05,
    "leaks": 0.1,
    "timezone": None,
}
"""A project that sends an event without a time with two days."""
TWO_TEXTS = UNTIMED_COPIES | {"seed": 4678, "events_per_day": 22, "missing_insert_id": 0.3, "odd": 0.1}
"""A project with an event whose time is written as an integer, and as a decimal number in its duplicate."""


def compared(
    content: dict[str, Any], options: dict[str, Any], counting: Counting, **verification: Any
) -> VerifyResult:
    """Export a project into a file, and verify it."""
    sim = project(**content, counting=counting)
    options = options | {"project_timezone": content["timezone"]}
    with TemporaryDirectory() as folder:
        db = Path(folder, "events.duckdb")
        anyio.run(partial(exported, sim, db, **options))
        return verify(sim, db, per_hour=0, **verification)  # examples would use up an hourly quota


@given(PROJECTS, EXPORTS, st.sampled_from(["identical", "compacted"]), st.booleans())
@examples(4, 60)
@example(TEXT_TIMES, {"chunk_days": 1, "dedupe": False, "events": None}, "identical", False)
@example(UNTIMED_COPIES, {"chunk_days": 1, "dedupe": True, "events": None}, "identical", False)
@example(TWO_TEXTS, {"chunk_days": 3, "dedupe": True, "events": None}, "compacted", False)
def test_no_complete_table_differs(content: Any, options: Any, duplicates: Any, zeros: bool) -> None:
    """Whatever the events are and however they were exported, nothing is unexplained."""
    result = compared(content, options, Counting(duplicates, zeros=zeros))
    assert result.unexplained == ()
    assert result.verified
    assert result.days == 10


@given(PROJECTS, st.sampled_from([1, 3, 10]))
@examples(2, 40)
def test_duplicates_that_mixpanel_counts_are_explained(content: Any, chunk_days: int) -> None:
    """A server that counts every line agrees with the table and the numbers of removed duplicates."""
    content |= {"leaks": 0.0}  # an event that two days have is no duplicate, and the ledger counts it as one
    result = compared(content, {"chunk_days": chunk_days}, Counting("none"))
    assert result.unexplained == ()


@given(PROJECTS, EXPORTS, st.sampled_from(ZONES))
@examples(2, 40)
def test_another_reporting_zone_is_another_way_to_count_days(content: Any, options: Any, zone: str) -> None:
    """In Mixpanel's zone, nothing differs; days that overlap days that were not exported are left out."""
    result = compared(content, options, Counting(timezone=zone), reporting_timezone=zone)
    assert result.unexplained == ()
    assert result.timezone == zone
    assert 8 <= result.days <= 10


async def test_a_complete_table_is_verified(db: Path) -> None:
    """Every event name and day is compared, and none differs."""
    sim = project()
    result = await verified(sim, await exported(sim, db))
    assert result.verified
    assert result.differences == ()
    rows = sim.truth(FIRST, LAST).distinct
    assert (result.days, result.table_rows, result.mixpanel_events) == (10, rows, rows)
    assert result.events == len({row.event_name for row in sim.rows(FIRST, LAST)})
    assert (result.timezone, result.requests) == ("UTC", 2)


async def test_a_deleted_event_explains_nothing_in_another_batch(db: Path) -> None:
    """An event without a time, which two batches have, is no evidence once it is deleted from the table."""
    sim = project(**UNTIMED_COPIES)
    await exported(sim, db, chunk_days=1)
    assert (await verified(sim, db)).verified
    ((batch, name, day),) = query(
        db,
        "SELECT lost_to, event_name, from_date::VARCHAR FROM _export_duplicates JOIN _export_batches USING (batch) "
        "WHERE event_time IS NULL",
    )
    change(db, f"DELETE FROM events WHERE export_batch = {batch} AND event_time IS NULL")
    assert (name, day) in wrong(await verified(sim, db))
