"""What is sent for a day: its events, with everything that happened to them, and those of its neighbours.

generated ─ awkward content ─ changes ─ some with a neighbour's day ─ arrived by now
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zlib import crc32

from mixpanel_export.simulator.awkward import awkward
from mixpanel_export.simulator.changes import Change
from mixpanel_export.simulator.content import text
from mixpanel_export.simulator.events import LATEST_HOURS, Profile, Record, generated

_DAY = timedelta(days=1)
_WHOLE = 0x10000


def settled_at(profile: Profile, day: date) -> datetime:
    """When everything that belongs to *day*, duplicates included, has arrived, and nothing changes any more."""
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=24 + LATEST_HOURS + 1)
    if profile.timezone:
        end += _DAY  # the day may end as much later as its zone is behind
    if wandering(profile):
        end += _DAY
    unseen = timedelta(seconds=profile.visible_after)
    return max([end, *(change.over() for change in profile.changes)]) + unseen


def records(profile: Profile, day: date, *, now: datetime | None = None) -> Iterator[Record]:
    """Yield what is sent for *day* at *now*; None for when it has settled."""
    stream = _own(profile, day, now)
    if wandering(profile):
        stream = _with_neighbours(profile, day, now)
    if now is None:
        return stream
    arrived_ms = int((now.timestamp() - profile.visible_after) * 1000)
    return (record for record in stream if record[4] <= arrived_ms)


def wanders(profile: Profile, record: Record) -> bool:
    """Whether *record* is sent with a day that is not its own; all records of one identity are alike in this."""
    return _direction(profile, record)[0] != 0


def _own(profile: Profile, day: date, now: datetime | None) -> Iterator[Record]:
    stream = generated(profile, day)
    if profile.awkward or profile.rejects or profile.long_lines:
        stream = awkward(profile, day, stream)
    for number, change in enumerate(profile.changes):
        if change.concerns(day):
            stream = _changed(stream, change, f"{profile.seed}:{number}".encode(), now)
    return stream


def wandering(profile: Profile) -> bool:
    """Whether any record is sent with a day that is not its own."""
    return bool(profile.leaks or profile.strays)


def _with_neighbours(profile: Profile, day: date, now: datetime | None) -> Iterator[Record]:
    for record in _own(profile, day, now):
        if _direction(profile, record)[1]:
            yield record
    for neighbour, towards in ((day - _DAY, 1), (day + _DAY, -1)):
        for record in _own(profile, neighbour, now):
            if _direction(profile, record)[0] == towards:
                yield record


def _direction(profile: Profile, record: Record) -> tuple[int, bool]:
    """How many days later *record* is sent, too or only, and whether it is sent with its own day."""
    insert_id = text(record[3])
    if not insert_id or not wandering(profile):
        return 0, True
    drawn = crc32(insert_id.encode(), profile.seed & 0xFFFFFFFF)
    leaks, strays = profile.leaks * _WHOLE, profile.strays * _WHOLE
    pick = drawn % _WHOLE
    if pick >= leaks + strays:
        return 0, True
    return (1 if drawn & _WHOLE else -1), pick < leaks


def _changed(stream: Iterator[Record], change: Change, salt: bytes, now: datetime | None) -> Iterator[Record]:
    match change.kind:
        case "late":
            return _late(stream, change, salt)
        case "removed" if change.holds(now):
            return (record for record in stream if not _chosen(record[3] or record[5], change, salt))
        case "merged" if change.holds(now):
            return _merged(stream, change, salt)
        case _:
            return stream


def _chosen(key: bytes, change: Change, salt: bytes) -> bool:
    return crc32(key, crc32(salt)) % _WHOLE < change.share * _WHOLE


def _late(stream: Iterator[Record], change: Change, salt: bytes) -> Iterator[Record]:
    at = int(change.at.timestamp() * 1000)
    for record in stream:
        name, time, distinct_id, insert_id, processed, properties, sent = record
        if sent is None and processed < at and _chosen(insert_id or properties, change, salt):
            properties = properties.replace(b"%d" % processed, b"%d" % at)[:-1] + b',"$import":true}'
            yield name, time, distinct_id, insert_id, at, properties, None
        else:
            yield record


def _merged(stream: Iterator[Record], change: Change, salt: bytes) -> Iterator[Record]:
    for record in stream:
        name, time, distinct_id, insert_id, processed, properties, sent = record
        if sent is None and distinct_id.startswith(b'"$device:') and _chosen(distinct_id, change, salt):
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
