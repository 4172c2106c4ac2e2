"""The data of a report. All numbers come from the database or its ledger.

Values that may be personal data (ids, properties, raw lines, filters, messages of failures) are None unless the report
has examples. Names of events and properties are always shown.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from mixpanel_export._model import Batch

SILENT = "silent"
"""The status of a day with two empty responses, which is treated as a day without events."""

STATUSES = ("complete", "open", "failed", "missing", "changed", SILENT, "limited", "imported")
"""Every status of a day, in the order of legends."""

STACKED_NAMES = 6
"""The number of event names that the chart of events distinguishes."""

BucketUnit = Literal["day", "week", "month"]


@dataclass(frozen=True, slots=True)
class CalendarDay:
    """A day of the calendar."""

    day: date
    status: str
    """One of `STATUSES`."""
    rows: int


@dataclass(frozen=True, slots=True)
class FailedDays:
    """Consecutive days that failed for the same reason."""

    first: date
    last: date
    reason: str


@dataclass(frozen=True, slots=True)
class Calendar:
    """The days of one table and one selection."""

    selection: str
    """A description of the requested events."""
    days: tuple[CalendarDay, ...]
    """The newest days, in order."""
    counts: tuple[tuple[str, int], ...]
    """The number of days with each status that occurs, in the order of `STATUSES`, over all days."""
    failures: tuple[FailedDays, ...]
    earlier_days: int
    """The number of earlier days that are left out."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The events of a day, a week or a month."""

    first: date
    last: date
    events: int
    users: int
    """The number of different `distinct_id`s, without NULL."""
    by_name: tuple[int, ...]
    """The number of events with each of the first `STACKED_NAMES` names in `Activity.names`."""

    @property
    def others(self) -> int:
        """The number of events with other names."""
        return self.events - sum(self.by_name)


@dataclass(frozen=True, slots=True)
class EventName:
    """An event name and its number of events."""

    name: str
    events: int


@dataclass(frozen=True, slots=True)
class Activity:
    """Events and users over time."""

    unit: BucketUnit
    first: date
    last: date
    """The calendar's first and last day."""
    buckets: tuple[Bucket, ...]
    """The buckets with events, in order."""
    names: tuple[EventName, ...]
    """The most frequent names, the most frequent first."""
    other_names: int
    """The number of names that are not among `names`."""
    events: int
    users: int
    events_outside: int
    """The number of events without a time, or with a time outside the calendar's days."""


@dataclass(frozen=True, slots=True)
class Property:
    """A property, with the number and the types of its values."""

    key: str
    type: str
    values: int
    """The number of values, without `null`."""
    share: float
    """The share of events that have a value, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Properties:
    """The properties of the events, the most frequent first."""

    rows: tuple[Property, ...]
    others: int
    """The number of properties that are not among `rows`."""
    events: int
    """The number of events that were counted."""
    flat_table: str | None
    """The flat table that the numbers come from; None if they were counted in the events table."""
    is_restricted: bool = False
    """Whether the flat table has only some events or some properties."""
    total_events: int = 0
    """The number of events in the table. If it is larger than `events`, the numbers come from a sample."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An event of which another batch has a newer version."""

    event_name: str | None
    day: date | None
    batch: int
    newer_batch: int | None
    distinct_id: str | None = None
    insert_id: str | None = None
    properties: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that is not an event (`rejected`), or the original of a repaired event (`repaired`)."""

    reason: str
    batch: int
    first: date
    last: date
    """The days of the batch."""
    size: int
    """The size of the line in bytes."""
    line: str | None = None
    """The start of the line."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Duplicates, rejected lines and repaired events."""

    removed: int
    """The number of removed duplicates, within a batch or across batches."""
    across: int
    """The number of duplicates across batches, which are in `_export_duplicates`."""

    rejected: int
    repaired: int
    across_by_name: tuple[tuple[str | None, int], ...]
    """The event names with the most duplicates across batches."""
    duplicates: tuple[Duplicate, ...]
    """Examples."""
    rejects: tuple[Reject, ...]
    """Examples of rejected lines and of repaired events."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a batch's time. Times are in seconds since the export's first request started to wait for the quota."""

    name: str
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """The last request of one batch, and the processing of its response."""

    batch: Batch
    phases: tuple[Phase, ...]

    def seconds(self, name: str) -> float:
        """Return the time spent in the phases named *name*."""
        return sum(phase.seconds for phase in self.phases if phase.name == name)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The batches of the last export, in the order of their requests."""

    rows: tuple[TimelineRow, ...]
    others: int
    """The number of batches that are left out."""
    started_at: datetime | None
    """When the first request started to wait for the quota, in naive UTC; None if the ledger does not have these times."""
    seconds: float
    """The time from `started_at` to the last commit."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The requests and bytes of the ledger's batches on one day, in UTC."""

    day: date
    requests: int
    bytes_read: int


@dataclass(frozen=True, slots=True)
class TableReport:
    """The report's data on one events table."""

    name: str
    zone: str
    exists: bool
    last_export: datetime | None
    """In naive UTC."""
    calendars: tuple[Calendar, ...]
    """One for each selection."""
    activity: Activity
    properties: Properties
    quality: Quality
    timeline: Timeline
    usage: tuple[Usage, ...]
    ledger: tuple[Batch, ...]
    """The newest batches, newest first."""
    batches: int
    """The number of batches in the ledger."""


@dataclass(frozen=True, slots=True)
class ProfilesReport:
    """The report's data on one table of profiles."""

    name: str
    rows: int
    """The number of profiles; 0 if no export has succeeded yet."""
    last_export: datetime | None
    """When the newest profiles were exported, in naive UTC."""
    failed: datetime | None
    """When the last export failed; None if it succeeded."""


@dataclass(frozen=True, slots=True)
class ReportData:
    """The data of a page."""

    file_name: str
    created: datetime
    """With a time zone."""
    tables: tuple[TableReport, ...]
    other_tables: tuple[str, ...]
    """Exported tables that are left out."""
    examples: bool
    """Whether the page has values that may be personal data."""
    profiles: tuple[ProfilesReport, ...] = ()
