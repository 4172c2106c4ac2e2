"""The values that an export returns or passes to callbacks. Their first fields match mixpanel_data's."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mixpanel_export._display import data_frame, html_pairs
from mixpanel_export.errors import MixpanelDataError

if TYPE_CHECKING:
    import pandas as pd

DateRange = tuple[str, str]
"""The first and the last day, both inclusive, as `YYYY-MM-DD`."""


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """A batch that has been committed, or has failed."""

    from_date: str
    to_date: str
    batch_index: int
    """Counts from 0, in date order. Batches may finish in another order."""
    total_batches: int
    rows: int
    """The batch's rows in the table, without duplicates; 0 if the batch failed."""
    success: bool
    error: str | None = None
    """The messages of `errors`."""
    errors: tuple[MixpanelDataError, ...] = field(default=(), compare=False, repr=False)
    """One error for each part of the batch that failed. Not in `to_dict()`."""

    def __post_init__(self) -> None:
        if self.errors and self.error is None:
            object.__setattr__(self, "error", self.error_text(str))

    def error_text(self, name: Callable[[str], str]) -> str | None:
        """Return `error`. *name* converts the name of each argument.

        An error's message starts with its days if they differ from the batch's days.
        """
        days = self.from_date if self.from_date == self.to_date else f"{self.from_date} to {self.to_date}"
        texts = (error.text(days=str(error.days) != days, name=name) for error in self.errors)
        return "; ".join(texts) or self.error

    def to_dict(self) -> dict[str, object]:
        """Return mixpanel_data's keys in its order, ready for JSON."""
        return {
            "from_date": self.from_date,
            "to_date": self.to_date,
            "batch_index": self.batch_index,
            "total_batches": self.total_batches,
            "rows": self.rows,
            "success": self.success,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class BatchResult:
    """mixpanel_data's result of a batch. Nothing in this package returns it."""

    from_date: str
    to_date: str
    rows: int
    success: bool
    error: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ParallelFetchResult:
    """The result of an export. The fields after `fetched_at` are not in `to_dict()`."""

    table: str
    total_rows: int
    """The rows by which the table grew; with `mode="replace"`, the rows of the new table."""
    successful_batches: int
    failed_batches: int
    failed_date_ranges: tuple[DateRange, ...]
    duration_seconds: float
    fetched_at: datetime
    """In UTC."""
    added_date_ranges: tuple[DateRange, ...] = ()
    """Days outside the requested range that were fetched again, because they share a batch with requested days."""
    errors: tuple[MixpanelDataError, ...] = field(default=(), compare=False)
    """The error for each of `failed_date_ranges`."""
    removed_duplicates: int = 0
    rejects: int = 0
    """Lines that are not events. They are in `_export_rejects`, not in the table."""
    repaired: int = 0
    """Events whose JSON was repaired so that DuckDB accepts it. `_export_rejects` has the original lines."""
    empty_batches: int = 0
    """Batches that were requested twice, with two empty responses. Their days are treated as days without events."""

    @property
    def has_failures(self) -> bool:
        """Whether any batch failed."""
        return self.failed_batches > 0

    def to_dict(self) -> dict[str, object]:
        """Return mixpanel_data's keys in its order, ready for JSON."""
        return {
            "table": self.table,
            "total_rows": self.total_rows,
            "successful_batches": self.successful_batches,
            "failed_batches": self.failed_batches,
            "failed_date_ranges": [list(days) for days in self.failed_date_ranges],
            "duration_seconds": self.duration_seconds,
            "fetched_at": self.fetched_at.isoformat(),
            "has_failures": self.has_failures,
        }

    def _repr_html_(self) -> str:
        """Return HTML for a notebook."""
        batches = self.successful_batches + self.failed_batches
        rows: list[tuple[str, object]] = [
            ("table", self.table),
            ("rows added", f"{self.total_rows:,}"),
            ("batches", f"{self.successful_batches} of {batches}" if batches else "none to fetch"),
            ("seconds", f"{self.duration_seconds:.1f}"),
        ]
        rows += [("also fetched", " to ".join(dict.fromkeys(days))) for days in self.added_date_ranges]
        counts = {
            "duplicates removed": self.removed_duplicates,
            "rejects": self.rejects,
            "repaired": self.repaired,
        }
        rows += [(name, f"{count:,}") for name, count in counts.items() if count]
        texts = chain((error.text(days=False) for error in self.errors), repeat("failed"))
        failures = zip(self.failed_date_ranges, texts, strict=False)
        rows += [("failed", f"{' to '.join(days)}: {text}") for days, text in failures]
        remedy = "incomplete; the same call with resume=True fetches the failed days"
        return html_pairs(rows, remedy if self.has_failures else "exported")


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """The plan of an export that has not run."""

    table: str
    date_ranges: tuple[DateRange, ...]
    """The days of each request, in date order."""
    skipped_date_ranges: tuple[DateRange, ...]
    """Requested days that are already complete in the table."""
    added_date_ranges: tuple[DateRange, ...]
    """See `ParallelFetchResult`."""
    days: int
    """The number of days in `date_ranges`."""
    quota_left: int | None
    """See `Progress`. This is the value before the first request."""
    quota_wait: float
    """See `Progress`. This is the value before the first request."""
    one_request_seconds: float | None = None
    """The expected maximum duration of one request for all days, in seconds.

    This is None, unless few requests are planned because one request would be fast.
    """
    removed_days: int = 0
    """The number of days with events that `replace` would remove from the table, because they are not requested."""
    removed_events: int = 0
    """The number of events on these days."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The result of a fetch with one request."""

    table: str
    rows: int
    """The rows by which the table grew."""
    type: Literal["events", "profiles"]
    duration_seconds: float
    date_range: DateRange | None
    fetched_at: datetime

    @property
    def row_count(self) -> int:
        """The same as `rows`. mixpanel_data's examples use this name."""
        return self.rows

    @property
    def df(self) -> "pd.DataFrame":
        """An empty DataFrame, as in mixpanel_data, because the rows are in the table. Requires the `pandas` extra."""
        return data_frame((), (), instead="Workspace.sql_rows")

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return {
            "table": self.table,
            "rows": self.rows,
            "type": self.type,
            "duration_seconds": self.duration_seconds,
            "date_range": list(self.date_range) if self.date_range else None,
            "fetched_at": self.fetched_at.isoformat(),
        }

    def _repr_html_(self) -> str:
        """Return HTML for a notebook."""
        rows: list[tuple[str, object]] = [("table", self.table), ("rows added", f"{self.rows:,}")]
        if self.date_range:
            rows.append(("days", " to ".join(self.date_range)))
        rows.append(("seconds", f"{self.duration_seconds:.1f}"))
        return html_pairs(rows, f"{self.type} fetched")


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a running export. All numbers are totals since its start."""

    batches: int = 0
    batches_done: int = 0
    batches_failed: int = 0
    rows: int = 0
    """Lines received. Duplicates are included, but failed attempts are not."""
    bytes_read: int = 0
    """Compressed bytes received."""
    requests: int = 0
    retries: int = 0
    quota_left: int | None = None
    """Requests left in the rolling hour; None if unlimited."""
    quota_wait: float = 0.0
    """Seconds by which the quota will delay the remaining requests, not counting retries."""
    waiting_for: str | None = None
    """The reason for the current wait, in a few words; None if the export is not waiting."""
    waiting_seconds: float | None = None
    """Seconds until the quota allows the next request; None if the export is not waiting for the quota."""


@dataclass(frozen=True, slots=True)
class ForgottenTable:
    """The result of `Workspace.forget` for one table."""

    table: str
    events: int
    """Rows deleted from the table: events, or profiles."""
    hidden_rows: int
    """Rows deleted from `_export_duplicates`, which has duplicates of visible rows."""
    raw_lines: int
    """Lines deleted from `_export_rejects`, which has rejected lines and the originals of repaired lines."""
    replacement: bool = False
    """Whether the rows belonged to an unfinished replacement of the table."""
    type: Literal["events", "profiles"] = "events"
    """The type of the table."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ForgetResult:
    """The result of `Workspace.forget`."""

    path: Path
    tables: tuple[ForgottenTable, ...]
    """The tables that were searched, by name."""
    other_tables: tuple[str, ...] = ()
    """Tables with a `distinct_id` column that were not searched, because this package did not export them."""

    @property
    def total(self) -> int:
        """The number of deleted events, profiles, hidden rows and raw lines."""
        return sum(table.events + table.hidden_rows + table.raw_lines for table in self.tables)

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return {
            "path": str(self.path),
            "tables": [table.to_dict() for table in self.tables],
            "other_tables": list(self.other_tables),
        }


@dataclass(frozen=True, slots=True)
class FlattenResult:
    """The result of `Workspace.flatten`."""

    table: str
    """The flat table."""
    source: str
    """The events table."""
    rows: int
    """The rows of the flat table."""
    columns: int
    """The number of columns, not counting the columns of the events table."""
    new_columns: tuple[str, ...]
    """The columns that were added."""
    widened_columns: tuple[str, ...]
    """The columns whose type was widened."""
    batches_read: int
    """The number of batches that were read because they were new or had changed."""
    rest: bool = False
    """Whether some keys are in the `_other` column, because there are too many keys to give each its own column."""
    views: tuple[str, ...] = ()
    """The views, each for one event name."""
    duration_seconds: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return {
            **asdict(self),
            **{name: list(getattr(self, name)) for name in ("new_columns", "widened_columns", "views")},
        }

    def _repr_html_(self) -> str:
        """Return HTML for a notebook."""
        rows: list[tuple[str, object]] = [
            ("table", self.table),
            ("rows", f"{self.rows:,}"),
            ("columns", f"{self.columns:,}"),
            ("batches read", f"{self.batches_read:,}"),
        ]
        rows += [("new columns", ", ".join(self.new_columns))] if self.new_columns else []
        rows += [("wider columns", ", ".join(self.widened_columns))] if self.widened_columns else []
        rows += [("views", ", ".join(self.views))] if self.views else []
        return html_pairs(rows, f"flat table of {self.source}")
