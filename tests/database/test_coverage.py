"""The calendar of a ledger: the newest row of each day decides; the days to fetch are those that `resume` fetches."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._database.coverage import (
    TO_FETCH,
    Coverage,
    Failure,
    Mismatch,
    RowsPerDay,
    coverages,
)
from mixpanel_export._database.target_days import LoadOptions, Target
from mixpanel_export._model import Batch, Chunk, Selection
from mixpanel_export._planning.planner import plan

FIRST = date(2024, 2, 20)
ALL = Selection("12345")


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def row(batch: int, first: int, last: int, status: str = "complete", **fields: object) -> Batch:
    """Return a ledger row of the days with these numbers."""
    usual: dict[str, object] = {
        "table": "events",
        "selection": ALL,
        "rows": 10 if status != "failed" else 0,
        "finished": datetime(2024, 3, 1, 12, batch),
        "error": "it broke" if status == "failed" else None,
    }
    return Batch(number=batch, days=Chunk(day(first), day(last)), status=status, **(usual | fields))  # type: ignore[arg-type] # a dictionary of any fields


def coverage(*rows: Batch, counted: RowsPerDay | None = None) -> Coverage:
    (found,) = coverages(rows, {} if counted is None else {"events": counted})
    return found


def statuses(found: Coverage) -> str:
    """Return the first letters of the days' statuses."""
    return "".join(known.status[0] for known in found.days)


def test_the_newest_row_of_a_day_decides() -> None:
    """A day that failed after a success must be fetched again; one that succeeded after a failure must not."""
    found = coverage(row(1, 0, 4), row(2, 1, 2, "failed"), row(3, 6, 6, "failed"), row(4, 6, 7, "open"))
    assert statuses(found) == "cffccmoo"
    assert found.statuses == {"complete": 3, "failed": 2, "missing": 1, "open": 2}
    assert found.to_fetch == (Chunk(day(1), day(7)),)


def test_a_day_is_missing_between_known_ones_only() -> None:
    """Days before the first and after the last are not missing, nor are days between them and a limited export."""
    found = coverage(row(1, 3, 3), row(2, 5, 5), row(3, 40, 41, "limited"))
    assert [known.day for known in found.days] == [day(3), day(4), day(5), day(40), day(41)]
    assert statuses(found) == "cmcll"
    assert statuses(coverage(row(1, 0, 0, "limited"), row(2, 9, 9, "limited"))) == "ll"


def test_what_was_limited_or_imported_is_not_fetched() -> None:
    """Ranges end before such days and continue after them."""
    found = coverage(row(1, 0, 0, "failed"), row(2, 2, 2, "limited"), row(3, 5, 5), row(4, 6, 6, "open"))
    assert found.to_fetch == (Chunk(day(0), day(1)), Chunk(day(3), day(6)))
    assert coverage(row(1, 0, 3), row(2, 1, 1, "imported")).to_fetch == ()


def test_days_of_another_program_are_missing_nowhere() -> None:
    """No export may add its own rows to them, so no range includes them."""
    brought = [row(1, 3, 5, "imported", selection=Selection(""))]
    theirs, mine = coverages([*brought, row(2, 1, 1), row(3, 8, 8)], {"events": {}})
    assert mine.to_fetch == (Chunk(day(2), day(2)), Chunk(day(6), day(7)))
    assert theirs.to_fetch == ()


def test_days_of_a_selection_that_may_share_events_are_not_fetched_beside_it() -> None:
    """`resume` would reject them, whether they are missing or failed; disjoint events do not block days."""
    some, others = Selection("12345", ("A",)), Selection("12345", ("B",))
    failed, known = row(1, 1, 2, "failed", selection=some), row(2, 7, 7, selection=some)
    all_events, disjoint = row(3, 2, 4), row(3, 2, 4, selection=others)
    for other, left in (
        (all_events, (Chunk(day(1), day(1)), Chunk(day(5), day(6)))),
        (disjoint, (Chunk(day(1), day(6)),)),
        (row(3, 2, 4, "failed"), (Chunk(day(1), day(6)),)),
    ):
        found = {one.selection: one for one in coverages([failed, known, other], {"events": {}})}
        assert found[some].to_fetch == left


def test_each_table_and_selection_is_by_itself() -> None:
    """Days of one do not fill gaps in the other."""
    some = Selection("12345", ("A",))
    found = coverages([row(1, 0, 0), row(2, 2, 2), row(3, 1, 1, selection=some), row(4, 1, 1, table="b")], {})
    assert [(known.table, known.selection, statuses(known)) for known in found] == [
        ("b", ALL, "c"), ("events", ALL, "cmc"), ("events", some, "c"),
    ]  # fmt: skip


def test_days_are_asked_for_as_they_were() -> None:
    """The options are those of their own rows, whatever options came later; missing days use the newest."""
    found = coverage(
        row(1, 0, 1), row(2, 1, 1, "failed", deduplicated=False), row(3, 4, 4, zone="Asia/Tokyo")
    )
    options = [found.options_for(Chunk(day(number), day(number))) for number in (0, 1, 2, 4)]
    assert [option.deduplicated for option in options] == [True, False, True, True]
    assert [option.zone for option in options] == ["UTC", "UTC", "Asia/Tokyo", "Asia/Tokyo"]


def test_a_target_without_batches_has_missing_days() -> None:
    """They are fetched with the options of the interrupted export."""
    target = Target(Chunk(day(2), day(4)), LoadOptions("Asia/Tokyo", deduplicated=False))
    (found,) = coverages([], {}, {("events", ALL): target})
    assert (statuses(found), found.to_fetch) == ("mmm", (target.days,))
    assert found.options_for(target.days) == target.options
    assert (found.options.zone, found.total_rows, found.last_export) == ("Asia/Tokyo", 0, None)
    assert not found.dropped


def test_failures_of_one_kind_are_one() -> None:
    """Consecutive days that failed for the same reason are one failure, without the days in each reason."""
    found = coverage(
        row(1, 0, 1, "failed"), row(2, 2, 2, "failed"), row(3, 3, 3, "failed", error="else"), row(4, 4, 4),
        row(5, 5, 5, "failed", error=None), row(6, 7, 7, "failed", error=None),
    )  # fmt: skip
    assert found.failures == (
        Failure(Chunk(day(0), day(2)), "it broke"),
        Failure(Chunk(day(3), day(3)), "else"),
        Failure(Chunk(day(5), day(5)), "no reason recorded"),
        Failure(Chunk(day(7), day(7)), "no reason recorded"),
    )


def test_silent_days_are_runs() -> None:
    """Days whose responses had no body are reported as ranges, unless a newer batch has events."""
    usual: dict[str, Any] = {"rows": 0, "bytes_read": 0}
    found = coverage(
        row(1, 0, 0, **usual), row(2, 1, 2, **usual), row(3, 4, 4, **usual), row(4, 6, 6, **usual),
        row(5, 6, 6), row(6, 7, 7, rows=0, bytes_read=20), row(7, 8, 8, "failed"),
    )  # fmt: skip
    assert found.empty_responses == (Chunk(day(0), day(2)), Chunk(day(4), day(4)))


def test_rows_are_counted_by_day_and_what_is_outside_apart() -> None:
    """A day has the rows of all batches, whatever days these have; other rows, and those without a time, are outside."""
    counted: RowsPerDay = {1: {day(0): 7, day(1): 2, None: 1}, 2: {day(1): 8, day(0): 1, day(9): 1}}
    found = coverage(row(1, 0, 0), row(2, 1, 1), counted=counted)
    assert [known.rows for known in found.days] == [8, 10]
    assert (found.total_rows, found.rows_without_day, found.mismatches) == (20, 2, ())
    assert found.last_export == datetime(2024, 3, 1, 12, 2)


def test_rows_that_were_changed_by_hand_are_a_mismatch() -> None:
    """A batch should have the rows in the ledger; a failed one has none, and an imported one is not compared."""
    rows = row(1, 0, 0), row(2, 1, 2), row(3, 3, 3, "failed"), row(4, 4, 4, "imported")
    found = coverage(*rows, counted={2: {day(1): 4}})
    assert found.mismatches == (
        Mismatch(1, Chunk(day(0), day(0)), table_rows=0, ledger_rows=10),
        Mismatch(2, Chunk(day(1), day(2)), table_rows=4, ledger_rows=10),
    )
    assert [day.status for day in found.days] == ["changed"] * 3 + ["failed", "imported"]
    assert [each.days for each in found.changed_days] == [Chunk(day(0), day(2))]
    assert found.to_fetch == (Chunk(day(3), day(3)),)


def test_changed_days_are_not_failed() -> None:
    """If a changed batch could not be fetched again, `resume` rejects its days, so they are not among the failures."""
    found = coverage(row(1, 0, 2), row(2, 1, 3, "failed"), counted={1: {day(0): 4}})
    assert found.statuses == {"changed": 3, "failed": 1}
    assert [failure.days for failure in found.failures] == [Chunk(day(3), day(3))]


def test_days_are_fetched_with_the_rest_of_their_batches() -> None:
    """A range has the requested days and the other days of their batches; days of failed batches are not added."""
    found = coverage(row(1, 0, 2), row(2, 3, 4), row(3, 5, 7, "failed"), row(4, 9, 10))
    assert found.with_whole_batches([day(2), day(3), day(6)]) == (
        Chunk(day(0), day(4)), Chunk(day(6), day(6)),
    )  # fmt: skip


def test_only_what_needs_nothing_is_whole() -> None:
    """A table with days to fetch or changed rows is not complete; one that was dropped or limited on purpose is."""
    there: RowsPerDay = {1: {day(0): 10}, 2: {day(2): 10}}
    assert coverage(row(1, 0, 0), row(2, 2, 2, "limited"), counted=there).is_complete
    assert not coverage(row(1, 0, 0), row(2, 2, 2), counted=there).is_complete
    assert not coverage(row(1, 0, 0), row(2, 1, 1), counted={1: {day(0): 10}}).is_complete
    assert coverage(row(1, 0, 0)).is_complete


def test_a_table_that_is_gone_was_dropped_if_it_was_there() -> None:
    """An export whose batches all failed created no table, so no table was dropped."""
    assert coverage(row(1, 0, 0)).dropped
    assert not coverage(row(1, 0, 0)).mismatches
    assert not coverage(row(1, 0, 0, "failed")).dropped
    assert not coverage(row(1, 0, 0), counted={}).dropped


@st.composite
def ledgers(draw: st.DrawFn) -> list[Batch]:
    """Ledgers as exports leave them: batches with rows share no day, failed ones may lie anywhere."""
    rows: list[Batch] = []
    position = 0
    batches = draw(st.permutations(range(1, 9)))
    for batch in batches[:5]:
        first = position + draw(st.integers(0, 3))
        position = first + draw(st.integers(1, 4))
        rows.append(row(batch, first, position - 1, draw(st.sampled_from(["complete", "open", "limited"]))))
    for batch in batches[5:]:
        first = draw(st.integers(0, 30))
        rows.append(row(batch, first, first + draw(st.integers(0, 5)), "failed"))
    return rows


@given(ledgers())
def test_resume_over_the_ranges_fetches_all_that_is_to_be_fetched(rows: list[Batch]) -> None:
    """The plan has a chunk for every day to fetch, and no range includes a limited day."""
    found = coverage(*rows)
    planned = set()
    for days in found.to_fetch:
        chunks = plan(days.first, days.last, batches=rows, skip_complete=True, first_open_day=date.max).chunks
        planned |= {chunk.first + timedelta(days=n) for chunk in chunks for n in range(chunk.length)}
    assert {known.day for known in found.days if known.status in TO_FETCH} <= planned
    asked = {days.first + timedelta(days=n) for days in found.to_fetch for n in range(days.length)}
    assert asked.isdisjoint(known.day for known in found.days if known.status == "limited")


@pytest.mark.parametrize("status", ["complete", "limited", "imported"])
def test_there_is_nothing_to_fetch_of_what_is_there(status: str) -> None:
    """Such days alone form no range."""
    assert coverage(row(1, 0, 3, status)).to_fetch == ()
