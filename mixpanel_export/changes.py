"""The result of a sync, with the changes in Mixpanel since the days were last fetched."""

from dataclasses import dataclass
from datetime import date, datetime

from mixpanel_export._display import html_pairs
from mixpanel_export.results import DateRange, ParallelFetchResult


@dataclass(frozen=True, slots=True)
class DayChange:
    """The differences between a new response for a day and the events that the table had before.

    Events are compared by name, time, `$insert_id` and `distinct_id`. If only the `distinct_id` differs, for example
    after an identity merge, the event is *re-keyed*: neither added nor removed.
    """

    day: date
    old_rows: int
    """The number of events that the table had, including events hidden because another batch has a newer copy."""
    new_rows: int
    """The number of events in the new response, counted in the same way."""
    added: int
    removed: int
    rekeyed: int
    kept: bool
    """Whether the new response was rejected because of a loss (see `is_loss`). The table then keeps the old events."""
    checked_at: datetime
    """When the new response was compared, in naive UTC."""

    @property
    def is_loss(self) -> bool:
        """Whether the new response has fewer than half as many events as the table had."""
        return 2 * self.new_rows < self.old_rows

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return {
            "day": str(self.day),
            "old_rows": self.old_rows,
            "new_rows": self.new_rows,
            "added": self.added,
            "removed": self.removed,
            "rekeyed": self.rekeyed,
            "kept": self.kept,
            "checked_at": self.checked_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class SyncResult:
    """The result of a sync of one table and selection."""

    table: str
    days: DateRange
    """The first and the last day that the table should have."""
    fetched_days: int
    """The number of days that were fetched, for the first time or again."""
    requests: int
    """The number of requests that were sent, retries included."""
    changes: tuple[DayChange, ...]
    """The days of this sync whose new response differs from the events that the table had, in date order."""
    kept: tuple[DayChange, ...]
    """The days whose new response was rejected in this or an earlier sync and has not been accepted since then."""
    export: ParallelFetchResult
    """The result of the export: the rows by which the table grew, the failed days, and more."""

    @property
    def added(self) -> int:
        """The number of events added to days that were already in the table."""
        return sum(change.added for change in self.changes if not change.kept)

    @property
    def removed(self) -> int:
        """The number of events removed from days that were already in the table."""
        return sum(change.removed for change in self.changes if not change.kept)

    @property
    def rekeyed(self) -> int:
        """The number of events with a new `distinct_id`."""
        return sum(change.rekeyed for change in self.changes if not change.kept)

    @property
    def has_failures(self) -> bool:
        """Whether any day failed."""
        return self.export.has_failures

    def to_dict(self) -> dict[str, object]:
        """Return the fields and the totals, ready for JSON."""
        return {
            "table": self.table,
            "days": list(self.days),
            "fetched_days": self.fetched_days,
            "requests": self.requests,
            "total_rows": self.export.total_rows,
            "added": self.added,
            "removed": self.removed,
            "rekeyed": self.rekeyed,
            "changes": [change.to_dict() for change in self.changes],
            "kept": [change.to_dict() for change in self.kept],
            "failed_date_ranges": [list(days) for days in self.export.failed_date_ranges],
            "duration_seconds": self.export.duration_seconds,
            "fetched_at": self.export.fetched_at.isoformat(),
            "has_failures": self.has_failures,
        }

    def _repr_html_(self) -> str:
        """Return HTML for a notebook."""
        rows: list[tuple[str, object]] = [
            ("table", self.table),
            ("days", " to ".join(self.days)),
            ("days fetched", f"{self.fetched_days:,}"),
            ("rows added", f"{self.export.total_rows:,}"),
        ]
        counts = {"late events": self.added, "removed events": self.removed, "re-keyed": self.rekeyed}
        rows += [(name, f"{count:,}") for name, count in counts.items() if count]
        rows += [
            ("kept", f"{change.day}: {change.old_rows:,} rows, {change.new_rows:,} in the new response")
            for change in self.kept
        ]
        rows += [("failed", " to ".join(days)) for days in self.export.failed_date_ranges]
        return html_pairs(rows, "incomplete" if self.has_failures else "synchronized")
