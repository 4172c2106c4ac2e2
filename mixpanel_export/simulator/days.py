"""Yields the records that are sent for a day: its own events after all changes, and events from the adjacent days.

generated ─ awkward content ─ changes ─ exchange with adjacent days ─ removal of records that have not arrived
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zlib import crc32

from mixpanel_export.simulator.awkward import awkward
from mixpanel_export.simulator.changes import Change
from mixpanel_export.simulator.content import NAMES, text
from mixpanel_export.simulator.events import LATEST_HOURS, Profile, Record, generated

_DAY = timedelta(days=1)
_WHOLE = 0x10000


def settled_at(profile: Profile, day: date) -> datetime:
    """Return the time from which the response for *day* is final: all events have arrived, and all changes have happened."""
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=24 + LATEST_HOURS + 1)
    if profile.timezone:
        end += _DAY  # a local day may end up to a day later than the UTC day
    if moving_enabled(profile):
        end += _DAY
    delay = timedelta(seconds=profile.visible_after)
    return max([end, *(change.settled_from() for change in profile.changes)]) + delay


def records(profile: Profile, day: date, *, now: datetime | None = None) -> Iterator[Record]:
    """Yield the records that are sent for *day* at *now*. None means the time when the day is final."""
    stream = stored(profile, day, now)
    if moving_enabled(profile):
        stream = _with_neighbours(profile, day, now)
    if profile.not_exported:
        stream = (record for record in stream if NAMES[record[0]] not in profile.not_exported)
    if now is None:
        return stream
    arrived_ms = int((now.timestamp() - profile.visible_after) * 1000)
    return (record for record in stream if record[4] <= arrived_ms)


def moves_between_days(profile: Profile, record: Record) -> bool:
    """Return whether *record* is also, or only, sent with another day. The result is the same for its duplicates."""
    return _direction(profile, record)[0] != 0


def moving_enabled(profile: Profile) -> bool:
    """Return whether the profile has records that are sent with a day other than their own."""
    return bool(profile.leaks or profile.strays)


def stored(profile: Profile, day: date, now: datetime | None) -> Iterator[Record]:
    """Yield a day's own records after the changes up to *now*, including records that have not arrived or are not sent."""
    stream = generated(profile, day)
    if profile.awkward or profile.rejects or profile.long_lines:
        stream = awkward(profile, day, stream)
    for number, change in enumerate(profile.changes):
        if change.applies_to(day):
            stream = _apply_change(stream, change, f"{profile.seed}:{number}".encode(), now)
    return stream


def _with_neighbours(profile: Profile, day: date, now: datetime | None) -> Iterator[Record]:
    for record in stored(profile, day, now):
        if _direction(profile, record)[1]:
            yield record
    for neighbour, towards in ((day - _DAY, 1), (day + _DAY, -1)):
        for record in stored(profile, neighbour, now):
            if _direction(profile, record)[0] == towards:
                yield record


def _direction(profile: Profile, record: Record) -> tuple[int, bool]:
    """Return the offset of the other day with which *record* is sent, or 0, and whether it is sent with its own day."""
    insert_id = text(record[3])
    if not insert_id or not moving_enabled(profile):
        return 0, True
    hashed = crc32(insert_id.encode(), profile.seed & 0xFFFFFFFF)
    leaks, strays = profile.leaks * _WHOLE, profile.strays * _WHOLE
    pick = hashed % _WHOLE
    if pick >= leaks + strays:
        return 0, True
    return (1 if hashed & _WHOLE else -1), pick < leaks


def _apply_change(
    stream: Iterator[Record], change: Change, salt: bytes, now: datetime | None
) -> Iterator[Record]:
    match change.kind:
        case "late":
            return _late(stream, change, salt)
        case "removed" if change.in_effect(now):
            return (record for record in stream if not _is_affected(record[3] or record[5], change, salt))
        case "merged" if change.in_effect(now):
            return _merged(stream, change, salt)
        case _:
            return stream


def _is_affected(key: bytes, change: Change, salt: bytes) -> bool:
    return crc32(key, crc32(salt)) % _WHOLE < change.share * _WHOLE


def _late(stream: Iterator[Record], change: Change, salt: bytes) -> Iterator[Record]:
    at = int(change.at.timestamp() * 1000)
    for record in stream:
        name, time, distinct_id, insert_id, processed, properties, sent = record
        if sent is None and processed < at and _is_affected(insert_id or properties, change, salt):
            properties = properties.replace(b"%d" % processed, b"%d" % at)[:-1] + b',"$import":true}'
            yield name, time, distinct_id, insert_id, at, properties, None
        else:
            yield record


def _merged(stream: Iterator[Record], change: Change, salt: bytes) -> Iterator[Record]:
    for record in stream:
        name, time, distinct_id, insert_id, processed, properties, sent = record
        if sent is None and distinct_id.startswith(b'"$device:') and _is_affected(distinct_id, change, salt):
            user = b'"user-%d"' % (crc32(distinct_id) % 2048)
            properties = b"".join(
                (
                    properties.replace(b'"distinct_id":' + distinct_id, b'"distinct_id":' + user, 1)[:-1],
                    b',"$distinct_id_before_identity":',
                    distinct_id,
                    b',"$is_reshuffled":true}',
                )
            )
            yield name, time, user, insert_id, processed, properties, None
        else:
            yield record
