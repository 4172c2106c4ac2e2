"""The simulator's plain events and its truth about them, compared with an independent computation."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export.simulator import Row, Simulator, Truth, checksum

DAY = date(2024, 3, 5)
START = datetime(2024, 3, 5, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(moment: datetime, **options: object) -> Simulator:
    """Return a simulator whose current time is *moment*."""
    return Simulator(now=lambda: moment, **options)  # type: ignore[arg-type] # any option


def day_of(**options: object) -> list[bytes]:
    """Return the lines of one day."""
    return list(at(datetime(2025, 1, 1, tzinfo=UTC), **options).lines(DAY, DAY))


def as_text(value: object) -> str | None:
    """Return a JSON scalar as text, the way an SQL `->>` does."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def moment_of(value: object) -> datetime | None:
    """Return the moment of a `time`, computed with integers of milliseconds."""
    if value is None or isinstance(value, bool):
        return None
    text = str(value)
    digits = text.split(".", maxsplit=1)[0].lstrip("-")
    if digits.isdigit():
        number = int(text.split(".", maxsplit=1)[0])
        millis = number if abs(number) >= 10**11 else number * 1000
        return (EPOCH + timedelta(milliseconds=millis)).replace(tzinfo=None)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    shifted = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return shifted.astimezone(UTC).replace(tzinfo=None)


def expected_rows(lines: list[bytes]) -> list[Row]:
    """Return the rows of *lines* after deduplication, with a JSON parser and by sorting."""
    groups: dict[tuple[object, ...], list[tuple[int, str, Row]]] = {}
    for number, line in enumerate(lines):
        event = json.loads(line, parse_float=str)
        properties = event["properties"]
        text = line.decode().split(',"properties":', 1)[1][:-1]
        insert_id = as_text(properties.get("$insert_id"))
        row = Row(
            event["event"],
            moment_of(properties.get("time")),
            as_text(properties.get("distinct_id")),
            insert_id,
            text,
        )
        identity = (row.event_name, row.distinct_id, as_text(properties.get("time")), insert_id)
        key = identity if insert_id else ("never collapsed", number)
        groups.setdefault(key, []).append((properties["mp_processing_time_ms"], text, row))
    return [max(group)[2] for group in groups.values()]


@examples(core=8, full=40)
@given(
    seed=st.integers(0, 2**32),
    events=st.integers(0, 300),
    rates=st.tuples(*[st.sampled_from([0.0, 0.05, 0.4])] * 4),
    hours=st.integers(0, 100),
)
def test_truth_agrees_with_a_json_parser(
    seed: int, events: int, rates: tuple[float, float, float, float], hours: int
) -> None:
    """For all rates and moments, the truth equals a computation from the lines alone."""
    duplicates, missing, late, odd = rates
    simulator = at(
        START + timedelta(hours=hours),
        seed=seed,
        events_per_day=events,
        duplicates=duplicates,
        missing_insert_id=missing,
        late=late,
        odd=odd,
    )
    lines = list(simulator.lines(DAY, DAY))
    expected = expected_rows(lines)
    truth = simulator.truth(DAY, DAY)
    assert Counter(simulator.rows(DAY, DAY)) == Counter(expected)
    assert truth == Truth(len(lines), len(expected), checksum(expected))


def test_a_day_is_the_same_in_every_range() -> None:
    """The requested range does not change the lines of a day."""
    simulator = at(datetime(2025, 1, 1, tzinfo=UTC), events_per_day=200)
    week = list(simulator.lines(DAY - timedelta(days=3), DAY + timedelta(days=3)))
    alone = list(simulator.lines(DAY, DAY))
    start = week.index(alone[0])
    assert week[start : start + len(alone)] == alone


def test_seeds_give_different_events() -> None:
    """Another seed gives other lines, and the same seed the same lines."""
    assert day_of(seed=5, events_per_day=50) == day_of(seed=5, events_per_day=50)
    assert not set(day_of(seed=5, events_per_day=50)) & set(day_of(seed=6, events_per_day=50))


def test_lines_look_like_mixpanels() -> None:
    """Lines are compact, have about 1 KB and about 30 properties, and start with time."""
    lines = day_of(events_per_day=1000)
    events = [json.loads(line) for line in lines]
    assert all(list(event) == ["event", "properties"] for event in events)
    assert all(line.startswith(b'{"event":"') and b'","properties":{"time":17' in line for line in lines)
    assert 800 <= sum(map(len, lines)) / len(lines) <= 1050
    assert 28 <= sum(len(event["properties"]) for event in events) / len(events) <= 36


def test_every_difficult_text_occurs() -> None:
    """A day has every kind of text that is valid and that exporters were seen to break on."""
    whole = b"\n".join(day_of(events_per_day=1000))
    for text in (
        "\u2028",
        "\u2029",
        "\u0085",
        "🔍",
        "1E5",
        r"\u00e9",
        "-0.0",
        '"<null>"',
        ":null",
        "[]",
        '"":',
    ):
        assert text.encode() in whole
    parsed = [json.loads(line, parse_float=str)["properties"] for line in whole.split(b"\n")]
    assert 19 in {len(str(event["order_id"])) for event in parsed if "order_id" in event}
    assert {len(event["ledger_id"]) for event in parsed if "ledger_id" in event} == {30}
    assert {len(event["precise"]) for event in parsed if "precise" in event} == {27}


def test_defaults_are_as_documented() -> None:
    """By default times are integers, ids are text or absent, and no integer exceeds 64 bits."""
    events = [json.loads(line) for line in day_of(events_per_day=3000)]
    for event in events:
        properties = event["properties"]
        assert type(properties["time"]) is int
        assert type(properties["distinct_id"]) is str
        assert properties["distinct_id"]
        assert all(abs(value) < 2**63 for value in properties.values() if type(value) is int)
    ids = [event["properties"].get("$insert_id", "absent") for event in events]
    assert all(type(each) is str and each for each in ids)
    assert "absent" in ids


def test_times_lie_inside_the_day() -> None:
    """No event of a day has a time outside the day, whatever the form of the time."""
    simulator = at(datetime(2025, 1, 1, tzinfo=UTC), events_per_day=3000, odd=0.2, duplicates=0.2)
    times = [row.event_time for row in simulator.rows(DAY, DAY)]
    assert {time.date() for time in times if time} == {DAY}
    assert None in times


def test_rates_are_respected() -> None:
    """Duplicates and missing ids occur at about the configured rate, and never at rate 0."""
    simulator = at(datetime(2025, 1, 1, tzinfo=UTC), events_per_day=5000, weekday_pattern=False)
    lines = list(simulator.lines(DAY, DAY))
    without = sum(not json.loads(line)["properties"].get("$insert_id") for line in lines)
    assert 5030 <= len(lines) <= 5130
    assert 25 <= without <= 90
    assert simulator.truth(DAY, DAY).distinct < len(lines)
    clean = at(
        datetime(2025, 1, 1, tzinfo=UTC),
        events_per_day=500,
        weekday_pattern=False,
        duplicates=0.0,
        missing_insert_id=0.0,
    )
    assert clean.truth(DAY, DAY).rows == clean.truth(DAY, DAY).distinct == 500


def test_every_kind_of_duplicate_occurs() -> None:
    """Duplicates are exact, or differ in properties, or share only the $insert_id."""
    events = [json.loads(line) for line in day_of(events_per_day=2000, duplicates=0.2)]
    groups: dict[str, list[dict[str, object]]] = {}
    for event in events:
        if insert_id := event["properties"].get("$insert_id"):
            groups.setdefault(insert_id, []).append(event["properties"])
    pairs = [group for group in groups.values() if len(group) == 2]
    assert any(one == other for one, other in pairs)
    assert any(one["time"] != other["time"] for one, other in pairs)
    arrival = "mp_processing_time_ms"
    assert any(one != other and one[arrival] == other[arrival] for one, other in pairs)
    assert any(one["time"] == other["time"] and one[arrival] != other[arrival] for one, other in pairs)


def test_duplicates_follow_their_original_at_a_distance() -> None:
    """Duplicates are at least 500 lines after their original, and do not accumulate until the end of a large day."""
    lines = day_of(events_per_day=3000, duplicates=1.0)
    first: dict[bytes, int] = {}
    gaps = [
        (index, index - first[line])
        for index, line in enumerate(lines)
        if first.setdefault(line, index) < index
    ]
    assert min(gap for _, gap in gaps) >= 500
    assert max(gap for _, gap in gaps) <= 1100
    assert gaps[0][0] < 600


def test_weekends_are_quieter() -> None:
    """The weekday pattern moves events from weekends to workdays and preserves the sum of the week."""
    simulator = at(datetime(2025, 1, 1, tzinfo=UTC), events_per_day=700, duplicates=0.0)
    days = [simulator.truth(day, day).rows for day in (DAY + timedelta(days=i) for i in range(7))]
    assert sum(days) == 4900
    assert days[4] < days[0]
    assert days[5] < days[0]


def test_events_per_day_can_be_a_function() -> None:
    """A function returns the number of events of each day; days before the first day are empty."""
    simulator = at(
        datetime(2025, 1, 1, tzinfo=UTC),
        events_per_day=lambda day: day.day,
        duplicates=0.0,
        first_day=date(2024, 3, 2),
    )
    assert simulator.truth(date(2024, 2, 20), date(2024, 3, 3)).rows == 2 + 3


def test_events_arrive_over_time() -> None:
    """A day grows until 41 hours after its end, and the truth grows with it."""
    clock = [START]
    simulator = Simulator(now=lambda: clock[0], events_per_day=500, late=0.3)
    counts = []
    for hours in (0, 12, 24, 40, 65, 66, 1000):
        clock[0] = START + timedelta(hours=hours)
        counts.append(simulator.truth(DAY, DAY).rows)
        now = clock[0].timestamp() * 1000
        arrivals = [
            json.loads(line)["properties"]["mp_processing_time_ms"] for line in simulator.lines(DAY, DAY)
        ]
        assert all(arrival <= now for arrival in arrivals)
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert len(set(counts[:4])) == 4
    assert counts[-1] == counts[-2] == counts[-3]


def test_truth_of_named_events() -> None:
    """The truth for an event name counts only its events, and the truths for all names add up to the whole."""
    simulator = at(datetime(2025, 1, 1, tzinfo=UTC), events_per_day=500)
    names = {row.event_name for row in simulator.rows(DAY, DAY)}
    parts = [simulator.truth(DAY, DAY, events=[name or ""]) for name in names]
    assert sum(parts, Truth()) == simulator.truth(DAY, DAY)
    assert simulator.truth(DAY, DAY, events=["no such event"]) == Truth()


ROW = Row("a", datetime(2024, 1, 1), "b", "c", "{}")


@pytest.mark.parametrize(
    "other",
    [
        ROW._replace(event_name=None),
        ROW._replace(event_time=None),
        ROW._replace(event_time=datetime(2024, 1, 1, 0, 0, 0, 1)),
        ROW._replace(distinct_id=""),
        ROW._replace(distinct_id=None),
        ROW._replace(insert_id="C"),
        ROW._replace(properties="{ }"),
        ROW._replace(event_name="ab", distinct_id=""),
    ],
)
def test_checksum_covers_every_column(other: Row) -> None:
    """A change in any column, even of a microsecond or a space, changes the checksum."""
    assert checksum([ROW]) != checksum([other])


@given(st.permutations([ROW, ROW, ROW._replace(insert_id="d"), ROW._replace(properties="[]")]))
def test_checksum_ignores_order_but_not_multiplicity(rows: list[Row]) -> None:
    """The order of rows does not change the checksum, a repeated row does."""
    assert checksum(rows) == checksum(sorted(rows))
    assert checksum(rows) != checksum(set(rows))


def test_checksum_accepts_plain_tuples() -> None:
    """Rows can be the tuples that a database returns."""
    plain = (ROW.event_name, ROW.event_time, ROW.distinct_id, ROW.insert_id, ROW.properties)
    assert checksum([plain]) == checksum([ROW])
