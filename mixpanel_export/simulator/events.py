"""Deterministic events: the same seed and day give the same records, whatever range they are part of.

A record keeps the columns beside the text they stand in, so that truth need not be read back from JSON.
Duplicates follow their original at a distance, within the same day.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import NamedTuple, TypedDict

from mixpanel_export.simulator.changes import Change
from mixpanel_export.simulator.content import DRAWN, NAME_TEXTS, Material, material
from mixpanel_export.simulator.zone import WallClock, zone_of


class Sent(NamedTuple):
    """What goes out for a record where that is not just `{"event":…,"properties":…}`.

    `lines` is the event's line, after as many lines that are no events as `rejects` says; `repaired` tells
    that the event's line is no valid JSON, and the record holds what must be stored of it.
    """

    lines: bytes
    repaired: bool = False
    rejects: int = 0


Record = tuple[int, bytes, bytes, bytes, int, bytes, Sent | None]
"""Index of the event name; time, distinct_id and $insert_id as JSON text, empty where absent;
mp_processing_time_ms; properties as JSON text; how it is sent, where that is unusual."""

LATEST_HOURS = 40
"""An event arrives at most this long after its time."""

_WEEKDAYS = (1.12, 1.15, 1.16, 1.14, 1.08, 0.70, 0.65)  # Monday first; they sum to 7
_BATCH = 512
_DISTANCE = 500  # how many duplicates wait before the first of them is sent
_LATEST_MS = LATEST_HOURS * 3_600_000


@dataclass(frozen=True, slots=True)
class Profile:
    """What a project's events look like; rates are shares of the events, from 0 to 1.

    Args:
        seed: Decides events, order of lines and which requests a fault of some probability hits.
        events_per_day: Before duplicates; a function of the day for uneven ones.
        weekday_pattern: Whether weekends have fewer events than other days.
        first_day: Days before it are empty.
        duplicates: Extra lines, most of them repeating an event's identity.
        missing_insert_id: Events whose `$insert_id` is absent, null or empty.
        late: Events that arrive up to 40 hours after their time.
        odd: Events with an unusual or missing time, distinct_id or `$insert_id`.
        awkward: Events with names, ids, values or shapes of line that exporters have been seen to break, some
            of which must be repaired; see `mixpanel_export.simulator.awkward`.
        rejects: Lines that are no events, each sent before an event.
        long_lines: Events whose line is long: of *long_line_bytes*, or down to a fifth of that.
        long_line_bytes: How long at most, but for the usual properties.
        leaks: Events that are also among those of the day before or after; all have an `$insert_id`.
        strays: Events that are *only* among those of the day before or after.
        timezone: IANA name of a legacy project's zone: `time` is its wall clock, and days, today too, are its own.
            None for a project in UTC.
        changes: What happens to stored events later.
        visible_after: For how many seconds an event that was processed is in no answer yet.
    """

    seed: int = 1
    events_per_day: int | Callable[[date], int] = 1000
    weekday_pattern: bool = True
    first_day: date = date(2023, 1, 1)
    duplicates: float = 0.015
    missing_insert_id: float = 0.01
    late: float = 0.05
    odd: float = 0.002
    awkward: float = 0.0
    rejects: float = 0.0
    long_lines: float = 0.0
    long_line_bytes: int = 5_000_000
    leaks: float = 0.0
    strays: float = 0.0
    timezone: str | None = None
    changes: Sequence[Change] = ()
    visible_after: float = 0.0

    def events_on(self, day: date) -> int:
        """How many events *day* has, duplicates not counted."""
        if day < self.first_day:
            return 0
        if callable(self.events_per_day):
            return self.events_per_day(day)
        share = _WEEKDAYS[day.weekday()] if self.weekday_pattern else 1.0
        return round(self.events_per_day * share)


class Content(TypedDict, total=False):
    """The fields of `Profile` as keyword arguments."""

    seed: int
    events_per_day: int | Callable[[date], int]
    weekday_pattern: bool
    first_day: date
    duplicates: float
    missing_insert_id: float
    late: float
    odd: float
    awkward: float
    rejects: float
    long_lines: float
    long_line_bytes: int
    leaks: float
    strays: float
    timezone: str | None
    changes: Sequence[Change]
    visible_after: float


def line(record: Record) -> bytes:
    """The record as Mixpanel sends it, without a newline at the end."""
    if record[6] is not None:
        return record[6].lines
    return b"".join((b'{"event":', NAME_TEXTS[record[0]], b',"properties":', record[5], b"}"))


def in_milliseconds(record: Record) -> Record:
    """The record as `time_in_ms` shows it: seconds become milliseconds, anything else stays."""
    name, time, distinct_id, insert_id, processed, properties, sent = record
    if not (time.isdigit() and len(time) == 10):
        return record
    precise = b"%s%03d" % (time, processed % 1000)
    properties = properties.replace(time, precise, 1)
    if sent is not None:
        sent = sent._replace(lines=sent.lines.replace(time, precise, 1))
    return name, precise, distinct_id, insert_id, processed, properties, sent


def generated(profile: Profile, day: date) -> Iterator[Record]:
    """Yield the day's records with copies of some of them, each sent a good while after its original."""
    draw = Random(f"{profile.seed}:{day}")
    pieces = material(profile.seed)
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    clock = WallClock(zone_of(profile.timezone), start) if profile.timezone else None
    left = profile.events_on(day)
    copied, waiting = round(profile.duplicates * 65536), deque[Record]()
    while left > 0:
        size = min(_BATCH, left)
        left -= size
        picks = array("H")
        picks.frombytes(draw.randbytes(2 * size))
        for pick, (record, body) in zip(picks, _batch(profile, start, clock, draw, size), strict=True):
            yield record
            if pick < copied:
                waiting.append(_copy(pieces, draw, start, record, body))
                if len(waiting) > _DISTANCE:
                    yield waiting.popleft()
    yield from waiting


def _batch(
    profile: Profile, start: int, clock: WallClock | None, draw: Random, size: int
) -> Iterator[tuple[Record, bytes]]:
    """Records with the part of their properties that says nothing about identity or arrival."""
    bits = array("Q")
    bits.frombytes(draw.randbytes(24 * size))
    ids = draw.randbytes(16 * size).hex().encode()
    late, without_id = round(profile.late * 65536), round(profile.missing_insert_id * 65536)
    rare = without_id + round(profile.odd * 65536)
    pieces = material(profile.seed)
    users, pages, details, extras = pieces.users, pieces.pages, pieces.details, pieces.extras
    for i in range(size):
        when, what, more = bits[3 * i : 3 * i + 3]
        # The sum of two even draws: most events fall in the middle of the day.
        second = start + (((when & 0xFFFF) + (when >> 16 & 0xFFFF)) * 86_400 >> 17)
        if clock is not None:
            second = clock.placed(i, second)
        delay = 200 + (when >> 32 & 0xFFF)
        if (when >> 44 & 0xFFFF) < late:
            delay = (more & 0xFFFFFFFF) * _LATEST_MS >> 32
        name = DRAWN[what & 63]
        distinct_id, user = users[what >> 6 & 2047]
        body = b"".join(
            (user, pages[more >> 32 & 255], details[name][what >> 17 & 63], extras[what >> 23 & 511])
        )
        time, insert_id = b"%d" % second, b'"%s"' % ids[32 * i : 32 * i + 32]
        pick = what >> 32 & 0xFFFF
        if pick < rare:
            time, distinct_id, insert_id = (
                (time, distinct_id, _NO_ID[pick % 3])
                if pick < without_id
                else _odd(what >> 48, time, distinct_id, insert_id)
            )
        processed = (second if clock is None else clock.utc(second)) * 1000 + delay
        yield (
            (
                name,
                time,
                distinct_id,
                insert_id,
                processed,
                _text(time, distinct_id, insert_id, body, processed),
                None,
            ),
            body,
        )


_NO_ID = (b"", b'""', b"null")


def _odd(pick: int, time: bytes, distinct_id: bytes, insert_id: bytes) -> tuple[bytes, bytes, bytes]:
    """Make one of the three unusual, in a way that has been seen or must be expected."""
    clock = datetime.fromtimestamp(int(time), UTC)
    abroad = clock + timedelta(hours=5, minutes=30)
    times = (
        b"",
        b"null",
        b"true",
        b'"%s"' % time,
        b'"%s.5"' % time,
        b"%s.75" % time,
        b"%s999" % time,
        b'"yesterday"',
        f'"{clock:%Y-%m-%dT%H:%M:%S}Z"'.encode(),
        f'"{clock:%Y-%m-%d %H:%M:%S}"'.encode(),
        f'"{abroad:%Y-%m-%dT%H:%M:%S}+05:30"'.encode(),
    )
    people = (b"", b'""', b"null", b"%d" % (10**15 + pick), rf'"J\u00f6rg \"{pick}\""'.encode())
    ids = (b"%d" % (10**9 + pick), rf'"\u00fc_{pick} ~#"'.encode())
    choice = pick % (len(times) + len(people) + len(ids))
    if choice < len(times):
        return times[choice], distinct_id, insert_id
    if choice < len(times) + len(people):
        return time, people[choice - len(times)], insert_id
    return time, distinct_id, ids[choice - len(times) - len(people)]


def _copy(pieces: Material, draw: Random, start: int, record: Record, body: bytes) -> Record:
    """A duplicate: exact, sent again with other properties, or only sharing the $insert_id."""
    name, time, distinct_id, insert_id, processed, _, _ = record
    kind = draw.randrange(8)
    if kind < 3:
        return record
    if kind == 3 and time.isdigit() and len(time) == 10:
        second = int(time)
        time = b"%d" % (second + 1 if second + 1 < start + 86_400 else second - 1)
    else:
        body = b"".join((body, pieces.extras[draw.getrandbits(9)]))
        processed += draw.choice((0, 1, 700, 61_000))
    text = _text(time, distinct_id, insert_id, body, processed)
    return name, time, distinct_id, insert_id, processed, text, None


def _text(time: bytes, distinct_id: bytes, insert_id: bytes, body: bytes, processed: int) -> bytes:
    tail = (
        b',"$mp_api_endpoint":"api-js.mixpanel.com","$mp_api_timestamp_ms":%d,"mp_processing_time_ms":%d}'
        % (
            processed - 137,
            processed,
        )
    )
    if time and distinct_id and insert_id:
        return b"".join(
            (b'{"time":', time, b',"distinct_id":', distinct_id, b',"$insert_id":', insert_id, body, tail)
        )
    given = ((b'"time":', time), (b'"distinct_id":', distinct_id), (b'"$insert_id":', insert_id))
    return b"".join((b"{", b",".join(key + value for key, value in given if value), body, tail))
