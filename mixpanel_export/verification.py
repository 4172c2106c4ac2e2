"""The values that `verify_events` returns."""

from dataclasses import asdict, dataclass
from typing import Literal

from mixpanel_export._display import html_pairs

Explanation = Literal["open", "duplicates", "merged", "untimed", "hidden", "old"]
"""Why the counts of an event on a day may differ although the table is correct.

- `open`: the day was exported less than 48 hours after its end, and Mixpanel has received more events since then. The
  next `resume` fetches the day again.
- `duplicates`: Mixpanel counts duplicates that the export removed. The numbers match exactly.
- `merged`: the table has events that differ only in their time within the day. Mixpanel's compaction merges them.
- `untimed`: the table has rows of this event without a time, so they belong to no day. They are enough to account for
  the difference.
- `hidden`: Mixpanel counts the event but does not export it.
- `old`: the day is over 30 days old, so Mixpanel may have changed it since. This explains nothing if rows of the day's
  batch were added or deleted by hand.
"""


@dataclass(frozen=True, slots=True)
class CountDifference:
    """An event name and a day whose counts differ."""

    event: str
    day: str
    """As `YYYY-MM-DD`, in the reporting time zone."""
    table_rows: int
    mixpanel_events: int
    explanation: Explanation | None
    """None if nothing explains the difference. The table then lacks events, or has too many."""

    @property
    def difference(self) -> int:
        """How many more events Mixpanel counts than the table has; negative if the table has more."""
        return self.mixpanel_events - self.table_rows


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """The result of comparing a table with Mixpanel's own counts."""

    table: str
    from_date: str
    to_date: str
    timezone: str
    """The reporting time zone, in which the days start and end."""
    days: int
    """The number of days that were compared."""
    events: int
    """The number of event names that were compared."""
    table_rows: int
    """The rows of the table on these days."""
    mixpanel_events: int
    """The events that Mixpanel counts on these days."""
    differences: tuple[CountDifference, ...]
    """All differences, ordered by day."""
    failed_days: tuple[str, ...]
    """Days whose unexplained differences exceed the tolerance."""
    skipped_date_ranges: tuple[tuple[str, str], ...]
    """Days that were not compared, because the table does not have them, or only has them with a `limit`."""
    refetch_date_ranges: tuple[tuple[str, str], ...]
    """The days to export again: the table's days, in its own time zone, that overlap `failed_days`."""
    utc_offset: float | None
    """The offset from UTC, in hours, at which almost all unexplained differences disappear; None if there is none.

    If there is one, the project's reporting time zone probably has this offset, and `timezone` is wrong.
    """
    requests: int
    """The number of requests to the Query API."""
    duration_seconds: float

    @property
    def verified(self) -> bool:
        """Whether no day failed."""
        return not self.failed_days

    @property
    def unexplained(self) -> tuple[CountDifference, ...]:
        """The differences that nothing explains."""
        return tuple(difference for difference in self.differences if difference.explanation is None)

    def to_dict(self) -> dict[str, object]:
        """Return `verified` and the fields in order, ready for JSON."""
        return {
            "verified": self.verified,
            **asdict(self),
            "differences": [asdict(difference) for difference in self.differences],
            "failed_days": list(self.failed_days),
            "skipped_date_ranges": [list(days) for days in self.skipped_date_ranges],
            "refetch_date_ranges": [list(days) for days in self.refetch_date_ranges],
        }

    def _repr_html_(self) -> str:
        """Return HTML for a notebook."""
        rows: list[tuple[str, object]] = [
            ("table", self.table),
            ("days", f"{self.from_date} to {self.to_date} ({self.timezone})"),
            ("rows", f"{self.table_rows:,}"),
            ("events at Mixpanel", f"{self.mixpanel_events:,}"),
            ("differences", f"{len(self.differences):,}, {len(self.unexplained):,} of them unexplained"),
        ]
        rows += [("failed days", ", ".join(self.failed_days))] if self.failed_days else []
        return html_pairs(rows, "verified" if self.verified else "not verified")
