"""Counts the stored events by name and day, like the Query API.

Three facts are documented: the identity by which reports remove duplicates, the looser identity of compaction
(docs: reference/event-deduplication.md), and that responses omit days without events (docs: openapi/query.openapi.yaml).
The simulator assumes that the Query API counts like reports, in the project's reporting time zone.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from mixpanel_export.simulator.content import NAMES, text
from mixpanel_export.simulator.days import settled_at, stored
from mixpanel_export.simulator.events import Profile, Record
from mixpanel_export.simulator.truth import event_time
from mixpanel_export.simulator.zone import zone_of

_DAY = timedelta(days=1)

Cell = tuple[str, date]
Users = dict[Cell, Counter[bytes]]
"""For each name and day, the number of events of each user."""


@dataclass(frozen=True, slots=True)
class Counting:
    """The rules by which the Query API counts events.

    Args:
        duplicates: The events that are counted once. "identical": events with the same name, distinct_id, time and
            `$insert_id`. "compacted": events with the same name, distinct_id, day and `$insert_id`. "none": every event
            is counted.
        timezone: IANA name of the project's reporting time zone; None for the zone of its events.
        delay: Seconds from an event's processing until it is counted; None for the delay of exports.
        zeros: Whether a response includes days without events, and names without events.
    """

    duplicates: Literal["identical", "compacted", "none"] = "identical"
    timezone: str | None = None
    delay: float | None = None
    zeros: bool = False


DEFAULT_COUNTING = Counting()


@dataclass(slots=True)
class Counts:
    """The number of stored events and users, by name and day in the reporting time zone."""

    profile: Profile
    counting: Counting
    _final: dict[date, Users] = field(default_factory=dict)

    def users(self, day: date, now: datetime) -> dict[str, Counter[bytes]]:
        """Return, for each name, the number of events of each user on *day* that are counted at *now*."""
        total: defaultdict[str, Counter[bytes]] = defaultdict(Counter)
        for generated in (day - _DAY, day, day + _DAY):
            for (name, its_day), users in self._counts_of(generated, now).items():
                if its_day == day:
                    total[name].update(users)
        return dict(total)

    def _counts_of(self, generated: date, now: datetime) -> Users:
        """Return the counts of the events that are generated for a day. They are cached once they are final."""
        if generated in self._final:
            return self._final[generated]
        delay = self.profile.visible_after if self.counting.delay is None else self.counting.delay
        cutoff = now - timedelta(seconds=delay)
        users: defaultdict[Cell, Counter[bytes]] = defaultdict(Counter)
        for name, distinct_id, day in self._distinct(generated, cutoff):
            users[NAMES[name], day][distinct_id] += 1
        if settled_at(self.profile, generated) <= cutoff:
            self._final[generated] = users
        return users

    def _distinct(self, generated: date, cutoff: datetime) -> Iterator[tuple[int, bytes, date]]:
        arrived_ms = int(cutoff.timestamp() * 1000)
        seen: set[object] = set()
        for record in stored(self.profile, generated, cutoff):
            name, time, distinct_id, insert_id, processed, _, _ = record
            if processed > arrived_ms:
                continue
            day = self._day(record, generated)
            if identifier := text(insert_id):
                when = {"identical": text(time), "compacted": day, "none": len(seen)}
                identity = (name, text(distinct_id), identifier, when[self.counting.duplicates])
                if identity in seen:
                    continue
                seen.add(identity)
            yield name, distinct_id, day

    def _day(self, record: Record, generated: date) -> date:
        """Return the record's day in the reporting time zone; *generated* if its time cannot be parsed."""
        time = record[1]
        zone = self.counting.timezone or self.profile.timezone
        if zone == self.profile.timezone and time.isdigit() and len(time) == 10:
            return generated
        moment = event_time(time, zone_of(self.profile.timezone))
        try:
            return moment.replace(tzinfo=UTC).astimezone(zone_of(zone)).date() if moment else generated
        except OverflowError:
            return generated
