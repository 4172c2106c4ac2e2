"""The results and the error of publications. A publication is a data set, outside the database, that copies a table."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Unpack

from mixpanel_export._display import html_pairs
from mixpanel_export._error_base import Context
from mixpanel_export.errors import MixpanelDataError


class PublishError(MixpanelDataError):
    """The data set at `destination` cannot be read or written, or has files that this database did not publish."""

    code = "PUBLISH_FAILED"

    def __init__(self, message: str, *, destination: str, **context: Unpack[Context]) -> None:
        super().__init__(message, destination=destination, **context)
        self.destination = destination


@dataclass(frozen=True, slots=True)
class PublishProgress:
    """The totals of a running publication."""

    days: int
    """The number of days to write. Some of them may prove to be unchanged."""
    days_done: int
    rows: int
    """The number of rows that have been written."""
    bytes_written: int


@dataclass(frozen=True, slots=True)
class PublishResult:
    """The result of a publication.

    A day is a string such as `2024-01-31`, or `__HIVE_DEFAULT_PARTITION__` for rows without a time.
    """

    destination: str
    table: str
    format: str
    by_day: bool
    """Whether each day has a file. If false, one file has all rows, and the lists of days have the name `all` for it."""
    days: int
    """The number of days in the data set; 1 if *by_day* is false."""
    rows: int
    """The number of rows in the data set."""
    written_days: tuple[str, ...]
    """The days that were new or had changed."""
    removed_days: tuple[str, ...]
    """The days that the table no longer has."""
    bytes_written: int
    different_days: tuple[str, ...] | None
    """The days whose files differ from the table; None if the data set was not read back."""
    duration_seconds: float

    @property
    def verified(self) -> bool | None:
        """Whether the data set equals the table; None if it was not read back."""
        return None if self.different_days is None else not self.different_days

    def to_dict(self) -> dict[str, object]:
        """Return `verified` and the fields in order, ready for JSON."""
        different = None if self.different_days is None else list(self.different_days)
        return {
            "verified": self.verified,
            **asdict(self),
            "written_days": list(self.written_days),
            "removed_days": list(self.removed_days),
            "different_days": different,
        }

    def _repr_html_(self) -> str:
        """Return HTML for a notebook."""
        days = f"{self.days:,} days, " if self.by_day else ""
        written = f"{len(self.written_days):,} days, " if self.by_day else ""
        rows: list[tuple[str, object]] = [
            ("table", self.table),
            ("destination", self.destination),
            ("format", self.format),
            ("data set", f"{days}{self.rows:,} rows"),
            ("written", f"{written}{self.bytes_written:,} bytes"),
        ]
        if self.by_day:
            rows.append(("removed", f"{len(self.removed_days):,} days"))
        if self.different_days is not None:
            rows.append(("different days", ", ".join(self.different_days) or "none"))
        return html_pairs(rows, "published")


@dataclass(frozen=True, slots=True)
class CopyResult:
    """The result of copying a database for readers."""

    destination: str
    tables: int
    """The number of tables, not counting internal tables."""
    bytes_written: int
    duration_seconds: float

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


Watcher = Callable[[PublishProgress], object]
"""Receives the current totals of a publication."""
