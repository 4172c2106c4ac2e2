"""The frozen values that exports and their plans give users, with mixpanel_data's names, fields and order where it has them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import chain, repeat
from typing import TYPE_CHECKING, Literal

from mixpanel_export._display import facts, frame
from mixpanel_export.errors import MixpanelDataError

if TYPE_CHECKING:
    import pandas as pd

DateRange = tuple[str, str]
"""First and last day, both inclusive, as `YYYY-MM-DD`."""


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """One batch has been decided: it is committed, or given up.

    `batch_index` counts from 0 in date order, whatever the order in which batches finish. `rows` is what
    the table holds of the batch after duplicates were removed, 0 where it failed. `errors` has one error for each
    part of the batch that failed, and is not part of `to_dict()`; `error` is their text.
    """

    from_date: str
    to_date: str
    batch_index: int
    total_batches: int
    rows: int
    success: bool
    error: str | None = None
    errors: tuple[MixpanelDataError, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.errors and self.error is None:
            object.__setattr__(self, "error", self.error_text(str))

    def error_text(self, name: Callable[[str], str]) -> str | None:
        """Return `error` with each argument called what *name* returns for it.

        The days of an error are named where they are not those of the batch.
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
    """What became of one batch, as mixpanel_data names it; nothing here returns one."""

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
    """What an export did.

    `total_rows` is the growth of the table; with `mode="replace"` the rows of the new table. The fields
    after `fetched_at` are not part of `to_dict()`: `added_date_ranges` are days outside the range asked for
    that had to be fetched again because an earlier batch holds them together with days inside it;
    `errors` says why each of `failed_date_ranges` failed; `rejects` counts lines kept out of the table
    because they are no events, `repaired` counts events whose text had to change for DuckDB, and `empty_batches`
    counts batches that Mixpanel answered twice without a body, so that they are taken as empty.
    """

    table: str
    total_rows: int
    successful_batches: int
    failed_batches: int
    failed_date_ranges: tuple[DateRange, ...]
    duration_seconds: float
    fetched_at: datetime
    added_date_ranges: tuple[DateRange, ...] = ()
    errors: tuple[MixpanelDataError, ...] = field(default=(), compare=False)
    removed_duplicates: int = 0
    rejects: int = 0
    repaired: int = 0
    empty_batches: int = 0

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
        """Return what a notebook shows of the export."""
        batches = self.successful_batches + self.failed_batches
        rows: list[tuple[str, object]] = [
            ("table", self.table),
            ("rows added", f"{self.total_rows:,}"),
            ("batches", f"{self.successful_batches} of {batches}" if batches else "none to fetch"),
            ("seconds", f"{self.duration_seconds:.1f}"),
        ]
        rows += [("days added", " to ".join(days)) for days in self.added_date_ranges]
        counts = {
            "duplicates removed": self.removed_duplicates,
            "rejects": self.rejects,
            "repaired": self.repaired,
        }
        rows += [(name, f"{count:,}") for name, count in counts.items() if count]
        texts = chain((error.text(days=False) for error in self.errors), repeat("failed"))
        failures = zip(self.failed_date_ranges, texts, strict=False)
        rows += [("failed", f"{' to '.join(days)}: {text}") for days, text in failures]
        remedy = "not complete; the same call with resume=True fetches what failed"
        return facts(rows, remedy if self.has_failures else "exported")


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What an export would do if it were run now.

    `date_ranges` are the days of each request, in date order, together so many `days`; `skipped_date_ranges` were
    asked for and are in the table for good; `added_date_ranges` as in `ParallelFetchResult`. `quota_left` and
    `quota_wait`, in seconds, are those that the first `Progress` would have.
    """

    table: str
    date_ranges: tuple[DateRange, ...]
    skipped_date_ranges: tuple[DateRange, ...]
    added_date_ranges: tuple[DateRange, ...]
    days: int
    quota_left: int | None
    quota_wait: float

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FetchResult:
    """What a fetch with one request did; `rows` is the growth of the table."""

    table: str
    rows: int
    type: Literal["events", "profiles"]
    duration_seconds: float
    date_range: DateRange | None
    fetched_at: datetime

    @property
    def df(self) -> "pd.DataFrame":
        """An empty frame, as in mixpanel_data: the rows are in the table. Needs the extra `pandas`."""
        return frame((), (), instead="Workspace.sql_rows")

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
        """Return what a notebook shows of the fetch."""
        rows: list[tuple[str, object]] = [("table", self.table), ("rows added", f"{self.rows:,}")]
        if self.date_range:
            rows.append(("days", " to ".join(self.date_range)))
        rows.append(("seconds", f"{self.duration_seconds:.1f}"))
        return facts(rows, f"{self.type} fetched")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an export has come: totals since it began, never increments.

    `bytes_read` counts the wire, so compressed bytes. `rows` counts lines received and not given up,
    before duplicates are removed. `quota_left` is how many requests the rolling hour still allows,
    None where it is unlimited; `quota_wait` is how many seconds it will hold up the requests that are still
    to be made, retries aside. `waiting_for` says in a few words what holds the export up, None while it moves;
    `waiting_seconds` is for how long yet where that is the quota, None where it is not.
    """

    batches: int = 0
    batches_done: int = 0
    batches_failed: int = 0
    rows: int = 0
    bytes_read: int = 0
    requests: int = 0
    retries: int = 0
    quota_left: int | None = None
    quota_wait: float = 0.0
    waiting_for: str | None = None
    waiting_seconds: float | None = None
