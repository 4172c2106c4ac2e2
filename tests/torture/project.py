"""A seeded project: its events, its clock, its faults, and the exports from it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from mixpanel_export.simulator import Change, Fault, RequestLog, Row, Simulator
from mixpanel_export.simulator.content import text
from mixpanel_export.simulator.events import Record
from mixpanel_export.simulator.faults import Kind
from mixpanel_export.simulator.simulator import Selection as EventSelection
from mixpanel_export.simulator.truth import deduplicated, row

from .people import random_profiles

Mode = Literal["create", "append", "replace", "resume"]
Selection = tuple[tuple[str, ...] | None, str | None]
"""Event names in order, None for all, and a `where` expression."""

SHADOW = "_export_replace_"
FIRST = date(2024, 3, 7)  # clocks in the US change on the 10th
DAYS = 6

FINAL: frozenset[Kind] = frozenset(
    {"400", "401", "402", "403", "404", "413", "414", "416", "auth_text_200", "auth_text_400", "redirect"}
)
"""Kinds that concern the export as a whole, which then raises."""

_EVENTS = (None, None, None, ("Page View",), ("Order Completed", "Sign Up"))
_WHERE = 'properties["$browser"] == "Chrome"'


@dataclass(frozen=True, slots=True)
class Export:
    """One export: the table, the days, the events, and the options."""

    table: str
    mode: Mode
    first: date
    last: date
    selection: Selection = (None, None)
    dedupe: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The table that is filled: the shadow table with `replace`."""
        return SHADOW + self.table if self.mode == "replace" else self.table

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """What a replacement must have in common with an earlier one that it continues."""
        return (self.table, self.first, self.last, self.selection, self.dedupe)

    @property
    def days(self) -> set[date]:
        """The requested days."""
        return days_of(self.first, self.last)

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `export_events` for this export."""
        events, where = self.selection
        return {
            "from_date": self.first,
            "to_date": self.last,
            "table": self.table,
            "mode": self.mode,
            "events": events,
            "where": where,
            "dedupe": self.dedupe,
            "allow_empty": True,  # days without events are frequent here
            **self.options,
        }


def days_of(first: date, last: date) -> set[date]:
    """Return the days from *first* to *last*, both inclusive."""
    return {first + timedelta(days=day) for day in range((last - first).days + 1)}


def distinct_id_of(record: Record) -> str | None:
    """Return the `distinct_id` of *record*."""
    return text(record[2])


def is_plain(person: str) -> bool:
    """Return whether JSON has the id of *person* unchanged, and no line of the simulator has it by chance."""
    return bool(re.fullmatch(r"user-\d+|\$device:[0-9a-f-]+", person))


def names_person(line: bytes, person: str) -> bool:
    """Return whether the id of *person*, a plain one, occurs in *line* and is not part of a longer word."""
    return bool(re.search(rb"(?<![a-z0-9])%s(?![a-z0-9])" % re.escape(person.encode()), line))


class Project:
    """A project that depends on *draw* alone.

    In a *stable* one stored events do not change. A *heavy* one has so many events that a commit takes a while.
    """

    def __init__(self, draw: Random, *, stable: bool = False, heavy: bool = False) -> None:
        self.draw = draw
        self.now = datetime(2024, 3, 8, tzinfo=UTC) + timedelta(hours=draw.randrange(16 * 24))
        self.zone = draw.choice([None, None, None, "US/Pacific", "Europe/Berlin"])
        sizes = [1000, 3000] if heavy else [0, 3, 10, 20, 40]
        events = {day: draw.choice(sizes) for day in sorted(days_of(FIRST - _DAY, _LAST + _DAY))}
        self.sim = Simulator(
            seed=draw.randrange(4),  # the simulator caches the material of four seeds
            events_per_day=lambda day: events.get(day, 5),
            duplicates=draw.choice([0.0, 0.2]),
            missing_insert_id=0.05,
            odd=draw.choice([0.0, 0.1]),
            awkward=draw.choice([0.0, 0.0, 0.2]),
            rejects=draw.choice([0.0, 0.0, 0.05]),
            leaks=draw.choice([0.0, 0.2]),
            strays=draw.choice([0.0, 0.1]),
            timezone=self.zone,
            changes=() if stable else self._changes(),
            gzip_over=draw.choice([-1, 1400, 10**9]),
            gzip_member=draw.choice([None, None, 3000]),
            piece=draw.choice([100, 1000, 65536]),
            shuffled=draw.random() < 0.5,
            per_second=0,
            per_hour=0,
            now=lambda: self.now,
            **random_profiles(Random(f"{draw.getstate()[1][0]}:profiles")),  # events do not depend on them
        )
        self._checked = 0

    def advance(self) -> None:
        """Move the clock forward: days end, events arrive late, disappear, or change their user."""
        self.now += timedelta(hours=self.draw.choice([0, 0, 1, 12, 30, 60, 200]))

    def new_requests(self) -> list[RequestLog]:
        """Return the requests since the last call."""
        new = self.pending_requests()
        self._checked += len(new)
        return new

    def pending_requests(self) -> list[RequestLog]:
        """Return what the next call of `new_requests` will return."""
        return self.sim.requests[self._checked :]

    @property
    def days(self) -> list[date]:
        """The days that have begun, in order."""
        today = self.now.astimezone(self._tz).date()
        return sorted(day for day in days_of(FIRST, _LAST) if day <= today)

    def sent(self, first: date, last: date, selection: Selection) -> list[Record]:
        """Return the records sent for these days now, duplicates included."""
        names, where = selection
        chosen = EventSelection(None if names is None else frozenset(names), where)
        return [record for day in sorted(days_of(first, last)) for record in self.sim.records(day, chosen)]

    def stored(self, records: Iterable[Record], *, dedupe: bool) -> list[Row]:
        """Return the rows that a table must have for *records*."""
        zone = self._tz
        return list(deduplicated(records, zone)) if dedupe else [row(record, zone) for record in records]

    def is_open(self, last: date) -> bool:
        """Return whether a batch that ends with *last* and is requested now is not final."""
        midnight = datetime(last.year, last.month, last.day, tzinfo=self._tz) + _DAY
        return self.now.astimezone(self._tz).replace(tzinfo=None) < midnight.replace(tzinfo=None) + 2 * _DAY

    @property
    def _tz(self) -> Any:
        return ZoneInfo(self.zone) if self.zone else UTC

    def span(self) -> tuple[date, date]:
        """Return the first and the last of some days that have begun."""
        first, last = sorted(self.draw.choices(self.days, k=2))
        return first, last

    def export(self, *, mode: Mode | None = None) -> Export:
        """Return a random export."""
        draw = self.draw
        chosen = draw.choice(_MODES) if mode is None else mode
        first, last = self.span()
        if draw.random() < 0.3:
            first, last = self.days[0], self.days[-1]
        return Export(
            table=draw.choice(["events", "events", "events", "Other"]),
            mode=chosen,
            first=first,
            last=last,
            selection=(draw.choice(_EVENTS), draw.choice([None] * 9 + [_WHERE])),
            dedupe=draw.random() < 0.85,
            options={
                "max_workers": draw.choice([1, 2, 10]),
                "retries": draw.choice([0, 1, 2, 3]),
                "chunk_days": draw.choice([None, 1, 1, 2, 3]),
                "one_request": draw.random() < 0.1,
                "project_timezone": self.zone,
            },
        )

    def faults(self, number: int) -> list[Fault]:
        """Return up to *number* faults of random kinds."""
        faults = [self._fault(self.draw.choice(_KINDS)) for _ in range(number)]
        # Days that are silent twice are accepted as empty, which is correct but looks like a loss: one fault, once.
        silent = [fault for fault in faults if fault.kind == "empty_200"]
        return [fault for fault in faults if fault not in silent[1:]]

    def _fault(self, kind: Kind) -> Fault:
        draw = self.draw
        first, last = sorted(draw.choices(sorted(days_of(FIRST, _LAST)), k=2))
        everywhere = draw.random() < 0.7
        # Stalls take time, and refusals do not end by themselves, so these are few.
        times = draw.choice([1, 2]) if kind in _BRIEF else draw.choice([1, 1, 2, 3, 8, None])
        return Fault(
            kind,
            first=None if everywhere else first,
            last=None if everywhere else last,
            probability=draw.choice([1.0, 1.0, 0.5, 0.2]),
            times=1 if kind == "empty_200" else times,
            after=draw.choice([0, 0, 0, 1, 3]),
            position=draw.choice([0.0, 1.0, draw.random(), draw.random(), draw.random(), draw.random()]),
            retry_after=draw.choice([None, 0.0, 0.01]),
            seconds=draw.choice([0.01, 3600.0]),
            newline=draw.random() < 0.5,
        )

    def _changes(self) -> Sequence[Change]:
        draw = self.draw
        return [
            Change(
                draw.choice(["late", "removed", "merged"]),
                at=(at := self.now + timedelta(hours=draw.randrange(-24, 200))),
                until=draw.choice([None, at + timedelta(hours=draw.randrange(1, 200))]),
                share=draw.choice([0.1, 0.5]),
            )
            for _ in range(draw.choice([0, 1, 1, 3]))
        ]


_DAY = timedelta(days=1)
_LAST = FIRST + timedelta(days=DAYS - 1)
_MODES: tuple[Mode, ...] = ("create", "append", "append", "replace", "replace", "resume", "resume", "resume")
_BRIEF = frozenset({"stall", "stall_before_head", "429"})
_RARE: list[Kind] = [kind for kind in get_args(Kind) if kind in FINAL or kind in _BRIEF]
_COMMON: list[Kind] = [kind for kind in get_args(Kind) if kind not in FINAL and kind not in _BRIEF]
_KINDS: tuple[Kind, ...] = (*_COMMON * 4, *_RARE)
