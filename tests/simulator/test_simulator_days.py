"""Which events belong to a day: local clocks of legacy projects, events of neighbouring days, and later changes."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import endpoint
import pytest
from endpoint import get, lines_of
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from reference import expected_rows, expected_truth

from mixpanel_export.simulator import Change, Simulator, Truth

DAY = date(2024, 3, 5)
NEXT = date(2024, 3, 6)
NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
ZONE = ZoneInfo("US/Pacific")
GAP_DAY, REPEATED_DAY = date(2024, 3, 10), date(2024, 11, 3)


def simulator(**options: Any) -> Simulator:
    """Return a small simulator without limits, at a time when every event has arrived."""
    defaults: dict[str, Any] = {"events_per_day": 200, "weekday_pattern": False, "now": lambda: NOW}
    return endpoint.simulator(**(defaults | options))


# Local clocks of legacy projects


@pytest.mark.parametrize("day", [DAY, GAP_DAY, REPEATED_DAY])
def test_the_truth_about_a_legacy_project_converts_local_times(day: date) -> None:
    """Times are local; the truth has their moments, the later one for repeated and skipped times."""
    sim = simulator(timezone="US/Pacific", odd=0.1, awkward=0.1)
    lines = list(sim.lines(day, day))
    assert Counter(sim.rows(day, day)) == Counter(expected_rows(lines, ZONE))
    assert sim.truth(day, day) == expected_truth(lines, ZONE)
    assert sim.truth(day, day, as_utc=True) == expected_truth(lines)
    assert sim.truth(day, day) != sim.truth(day, day, as_utc=True)


@pytest.mark.parametrize("day,offset", [(GAP_DAY, None), (REPEATED_DAY, 2)])
def test_a_day_of_a_clock_change_has_events_in_the_affected_hour(day: date, offset: int | None) -> None:
    """Even a day with few events has some in the skipped or repeated hour."""
    sim = simulator(timezone="US/Pacific", events_per_day=20)
    local_times = [datetime.fromtimestamp(time, UTC) for time in seconds_of(sim, day)]
    in_hour = [time for time in local_times if time.hour == (1 if offset else 2)]
    assert len(in_hour) >= 2
    assert {time.date() for time in local_times} == {day}


def seconds_of(sim: Simulator, day: date) -> list[int]:
    return [json.loads(line)["properties"]["time"] for line in sim.lines(day, day)]


@pytest.mark.parametrize("day", [DAY, GAP_DAY, REPEATED_DAY])
def test_processing_times_are_utc(day: date) -> None:
    """Events are processed after the actual moment of their time, never before it."""
    sim = simulator(timezone="US/Pacific", duplicates=0.0, late=0.0)
    for row in sim.rows(day, day):
        assert row.event_time is not None
        processed = json.loads(row.properties)["mp_processing_time_ms"] / 1000
        delay = processed - row.event_time.replace(tzinfo=UTC).timestamp()
        assert 0.2 <= delay <= 4.3


@pytest.mark.anyio
@pytest.mark.parametrize(
    "timezone,moment,today",
    [
        ("US/Pacific", datetime(2024, 3, 6, 7, 59, tzinfo=UTC), date(2024, 3, 5)),
        ("US/Pacific", datetime(2024, 3, 6, 8, 0, tzinfo=UTC), date(2024, 3, 6)),
        ("Asia/Tokyo", datetime(2024, 3, 5, 15, 0, tzinfo=UTC), date(2024, 3, 6)),
        (None, datetime(2024, 3, 5, 23, 59, tzinfo=UTC), date(2024, 3, 5)),
    ],
)
async def test_today_is_local(timezone: str | None, moment: datetime, today: date) -> None:
    """The last day that can be requested is today in the project's zone."""
    sim = simulator(timezone=timezone, now=lambda: moment)
    assert (await get(sim, from_date=str(DAY), to_date=str(today))).status_code == 200
    refused = await get(sim, from_date=str(DAY), to_date=str(today + timedelta(days=1)))
    assert (refused.status_code, refused.text) == (400, "to_date cannot be later than today")


def test_an_unknown_zone_is_refused_at_once() -> None:
    """A simulator with an unknown zone cannot be created."""
    with pytest.raises(ZoneInfoNotFoundError):
        simulator(timezone="US/Nowhere")


def test_a_legacy_day_becomes_complete() -> None:
    """A local day that ends after the UTC day gets all its events."""
    clock = [datetime(2024, 3, 6, tzinfo=UTC)]
    sim = simulator(timezone="US/Pacific", late=1.0, events_per_day=1000, now=lambda: clock[0])
    counts = []
    for hours in (0, 24, 42, 49, 80, 1000):
        clock[0] = datetime(2024, 3, 6, tzinfo=UTC) + timedelta(hours=hours)
        counts.append(sim.truth(DAY, DAY).rows)
        arrivals = [json.loads(line)["properties"]["mp_processing_time_ms"] for line in sim.lines(DAY, DAY)]
        assert max(arrivals, default=0) <= clock[0].timestamp() * 1000
    assert counts == sorted(counts)
    assert counts[0] < counts[-2] == counts[-1]


# Events of neighbouring days


@examples(core=8, full=30)
@given(
    seed=st.integers(0, 2**32),
    rates=st.tuples(*[st.sampled_from([0.0, 0.1, 0.5])] * 4),
    days=st.integers(1, 4),
)
def test_the_truth_about_a_range_counts_leaked_events_once(
    seed: int, rates: tuple[float, float, float, float], days: int
) -> None:
    """For all rates, the truth is the set of events in the lines of all days, whichever day has them."""
    leaks, strays, duplicates, awkward = rates
    sim = simulator(
        seed=seed, events_per_day=40, leaks=leaks, strays=strays, duplicates=duplicates, awkward=awkward
    )
    last = DAY + timedelta(days=days - 1)
    lines = list(sim.lines(DAY, last))
    assert sim.truth(DAY, last) == expected_truth(lines)
    assert Counter(sim.rows(DAY, last)) == Counter(expected_rows(lines))


def test_leaks_are_in_both_days_and_strays_in_the_wrong_day_only() -> None:
    """A leaked event is sent with its own day and a neighbour, a stray with a neighbour only; lines do not change."""
    plain = {day: set(simulator().lines(day, day)) for day in (DAY, NEXT)}
    leaky = simulator(leaks=0.2)
    assert plain[DAY] < set(leaky.lines(DAY, DAY))
    forward = set(leaky.lines(NEXT, NEXT)) & plain[DAY]
    backward = set(leaky.lines(DAY, DAY)) & plain[NEXT]
    assert len(forward) > 5
    assert len(backward) > 5
    assert all(json.loads(line)["properties"]["$insert_id"] for line in forward | backward)
    straying = simulator(strays=0.2)
    missing = plain[DAY] - set(straying.lines(DAY, DAY))
    assert len(missing) > 20
    previous = set(straying.lines(DAY - timedelta(days=1), DAY - timedelta(days=1)))
    assert missing <= previous | set(straying.lines(NEXT, NEXT))


def test_late_events_leak_late() -> None:
    """Events that have not arrived are in no day, and those that have arrived stay."""
    clock = [datetime(2024, 3, 5, tzinfo=UTC)]
    sim = simulator(leaks=0.5, late=0.5, now=lambda: clock[0])
    counts = []
    for hours in (0, 24, 48, 72, 96, 120, 1000):
        clock[0] = datetime(2024, 3, 5, tzinfo=UTC) + timedelta(hours=hours)
        counts.append(sim.truth(DAY, DAY).rows)
        arrivals = [json.loads(line)["properties"]["mp_processing_time_ms"] for line in sim.lines(DAY, DAY)]
        assert max(arrivals, default=0) <= clock[0].timestamp() * 1000
    assert counts == sorted(counts)
    assert counts[-1] == counts[-2]


# Changes to stored events


def test_late_events_appear_at_their_import() -> None:
    """A late event is in no answer before its import, and then has the time of the import."""
    at = datetime(2024, 6, 1, tzinfo=UTC)
    clock = [at - timedelta(seconds=1)]
    sim = simulator(now=lambda: clock[0], changes=[Change("late", at, share=0.3, first=DAY, last=DAY)])
    before, other_day = set(sim.lines(DAY, DAY)), set(sim.lines(NEXT, NEXT))
    early = sim.truth(DAY, DAY)
    clock[0] = at
    new = set(sim.lines(DAY, DAY)) - before
    assert before < set(sim.lines(DAY, DAY))
    assert 30 <= len(new) <= 90
    arrivals = {json.loads(line)["properties"]["mp_processing_time_ms"] for line in new}
    assert arrivals == {int(at.timestamp() * 1000)}
    assert set(sim.lines(NEXT, NEXT)) == other_day
    assert sim.truth(DAY, DAY) == expected_truth(list(sim.lines(DAY, DAY))) != early


def test_events_become_visible_after_a_delay() -> None:
    """A processed event appears only after the delay, in lines and truth alike."""
    clock = [datetime(2024, 3, 5, 18, tzinfo=UTC)]
    immediate = simulator(now=lambda: clock[0], late=0.0)
    delayed = simulator(now=lambda: clock[0], late=0.0, visible_after=2700.0)
    before = set(immediate.lines(DAY, DAY))
    assert set(delayed.lines(DAY, DAY)) < before
    assert delayed.truth(DAY, DAY) == expected_truth(list(delayed.lines(DAY, DAY)))
    clock[0] += timedelta(minutes=45)
    assert set(delayed.lines(DAY, DAY)) == before


def test_removed_events_can_reappear() -> None:
    """Removed events are missing from their removal until their restoration."""
    removed, restored = datetime(2024, 6, 1, tzinfo=UTC), datetime(2024, 6, 8, tzinfo=UTC)
    clock = [removed - timedelta(days=1)]
    later = Change("merged", restored + timedelta(days=1), first=NEXT)
    sim = simulator(now=lambda: clock[0], changes=[Change("removed", removed, restored, share=0.3), later])
    lines, before = list(sim.lines(DAY, DAY)), sim.truth(DAY, DAY)
    clock[0] = removed
    assert 100 < len(list(sim.lines(DAY, DAY))) < 170
    assert set(sim.lines(DAY, DAY)) < set(lines)
    assert sim.truth(DAY, DAY) == expected_truth(list(sim.lines(DAY, DAY)))
    for days in (0, 1, 100):
        clock[0] = restored + timedelta(days=days)
        assert list(sim.lines(DAY, DAY)) == lines
        assert sim.truth(DAY, DAY) == before


def test_events_removed_for_good_never_reappear() -> None:
    """Removed events without a restoration are missing for ever."""
    sim = simulator(changes=[Change("removed", datetime(2024, 6, 1, tzinfo=UTC), share=1.0)])
    assert sim.truth(DAY, DAY) == Truth()


def test_all_events_of_a_merged_user_are_rewritten() -> None:
    """Events of a merged user change their distinct_id, keep the former one, and are otherwise the same."""
    at = datetime(2024, 6, 1, tzinfo=UTC)
    clock = [at - timedelta(days=1)]
    sim = simulator(now=lambda: clock[0], events_per_day=3000, changes=[Change("merged", at, share=0.4)])
    before = [json.loads(line)["properties"] for line in sim.lines(DAY, DAY)]
    clock[0] = at
    after = [json.loads(line)["properties"] for line in sim.lines(DAY, DAY)]
    renamed: dict[str, set[str]] = {}
    for old, new in zip(before, after, strict=True):
        if "$distinct_id_before_identity" in new:
            assert new.pop("$distinct_id_before_identity") == old["distinct_id"]
            assert new.pop("$is_reshuffled") is True
            renamed.setdefault(old["distinct_id"], set()).add(new["distinct_id"])
            old = old | {"distinct_id": new["distinct_id"]}  # noqa: PLW2901 - the other properties must be equal
        assert old == new
    assert len(renamed) > 100
    assert all(len(names) == 1 and names.pop().startswith("user-") for names in renamed.values())
    unchanged = {old["distinct_id"] for old in before if old.get("distinct_id")} - set(renamed)
    assert not any(new.get("distinct_id") in renamed for new in after)
    assert any(name.startswith("$device:") for name in map(str, unchanged))


@pytest.mark.anyio
async def test_answers_follow_the_changes() -> None:
    """A day that was served before a change is served with the change after it."""
    at = datetime(2024, 6, 1, tzinfo=UTC)
    clock = [at - timedelta(days=1)]
    changes = [Change("merged", at), Change("removed", at), Change("late", at)]
    sim = simulator(now=lambda: clock[0], changes=changes)
    for moment in (at - timedelta(days=1), at, at + timedelta(days=100)):
        clock[0] = moment
        for _ in range(2):
            response = await get(sim, from_date=str(DAY), to_date=str(DAY))
            assert lines_of(response) == sorted(sim.lines(DAY, DAY))
