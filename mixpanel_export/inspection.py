"""The values that looking into a database, or taking one over, returns: mixpanel_data's where it has them.

`to_dict()` is ready for JSON, but for values that were read from the table, which are as DuckDB gives them.
`df` needs the extra `pandas`, and raises `ImportError` without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixpanel_export._display import facts, frame, grid
from mixpanel_export.results import DateRange

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class SQLResult:
    """Rows of a query with their column names; iterating over it is iterating over the rows."""

    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def to_dicts(self) -> list[dict[str, object]]:
        """Return one dictionary a row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the first rows."""
        return grid(self.columns, self.rows)

    def to_dict(self) -> dict[str, object]:
        """Return columns, rows and row_count; the values are as DuckDB gives them."""
        return {
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
            "row_count": len(self.rows),
        }


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table of the database; `type` and `fetched_at` (UTC) are None for tables that no export made."""

    name: str
    type: str | None
    row_count: int
    fetched_at: datetime | None

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {"fetched_at": _iso(self.fetched_at)}


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column of a table; `type` is DuckDB's name of it."""

    name: str
    type: str
    nullable: bool
    primary_key: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of a table, in its order."""

    table_name: str
    columns: list[ColumnInfo]

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a row for each column."""
        return _grid(ColumnInfo, self.columns, f"columns of {self.table_name}")


@dataclass(frozen=True, slots=True)
class WorkspaceInfo:
    """A workspace and its file.

    `project_id` and `region` are "unknown" where there are no credentials; `account` is the one that the workspace
    was made with. `size_mb` counts millions of bytes. `created_at` is in UTC, None where the file system does not
    keep it.
    """

    path: Path | None
    project_id: str
    region: str
    account: str | None
    tables: list[str]
    size_mb: float
    created_at: datetime | None

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {
            "path": None if self.path is None else str(self.path),
            "created_at": _iso(self.created_at),
        }

    def _repr_html_(self) -> str:
        """Return what a notebook shows of the workspace."""
        rows = self.to_dict() | {"tables": ", ".join(self.tables)}
        return facts(rows.items(), "workspace")


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """A column as DuckDB's SUMMARIZE sees it.

    `min`, `max` and the quartiles are text; `avg` and `std` are None for columns that hold no numbers, the
    quartiles where there is no order to measure. `count` includes NULLs, `null_percentage` is of 100.
    """

    column_name: str
    column_type: str
    min: Any
    max: Any
    approx_unique: int
    avg: float | None
    std: float | None
    q25: Any
    q50: Any
    q75: Any
    count: int
    null_percentage: float

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SummaryResult:
    """The columns of a table, summarized."""

    table: str
    row_count: int
    columns: list[ColumnSummary] = field(default_factory=list)

    @property
    def df(self) -> "pd.DataFrame":
        """A row for each column."""
        return _framed(ColumnSummary, self.columns, "columns")

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a row for each column."""
        return _grid(ColumnSummary, self.columns, f"{self.table}: {self.row_count:,} rows")


@dataclass(frozen=True, slots=True)
class EventStats:
    """The events of one name; the times are naive UTC, None where none of them has a time."""

    event_name: str
    count: int
    unique_users: int
    first_seen: datetime | None
    last_seen: datetime | None
    pct_of_total: float

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {
            "first_seen": _iso(self.first_seen),
            "last_seen": _iso(self.last_seen),
        }


@dataclass(frozen=True, slots=True)
class EventBreakdownResult:
    """The events of a table by name, the most frequent first.

    `date_range` has the first and the last time, naive UTC; as in mixpanel_data both are `datetime.min` where
    there is none.
    """

    table: str
    total_events: int
    total_users: int
    date_range: tuple[datetime, datetime]
    events: list[EventStats] = field(default_factory=list)

    @property
    def df(self) -> "pd.DataFrame":
        """A row for each name."""
        return _framed(EventStats, self.events, "events")

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {
            "date_range": [_iso(moment) for moment in self.date_range],
            "events": [event.to_dict() for event in self.events],
        }

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a row for each name."""
        caption = f"{self.table}: {self.total_events:,} events of {self.total_users:,} users"
        return _grid(EventStats, self.events, caption)


@dataclass(frozen=True, slots=True)
class ColumnStatsResult:
    """What one column, or an expression of columns, holds.

    `count` is of values that are not NULL, `unique_count` an estimate of how many different ones there are, within
    a few per cent. `top_values` has the most frequent ones with their counts. The last four are None where the
    values are no numbers, or where there are none.
    """

    table: str
    column: str
    dtype: str
    count: int
    null_count: int
    null_pct: float
    unique_count: int
    unique_pct: float
    top_values: list[tuple[Any, int]] = field(default_factory=list)
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None

    @property
    def df(self) -> "pd.DataFrame":
        """A row for each of the most frequent values: value, count."""
        return frame(("value", "count"), self.top_values, instead="top_values")

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order."""
        return asdict(self) | {"top_values": [list(pair) for pair in self.top_values]}

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the numbers, and the most frequent values below them."""
        numbers = [
            (name, value) for name, value in asdict(self).items() if name not in {"table", "top_values"}
        ]
        known = [(name, value) for name, value in numbers if value is not None]
        return facts(known, f"a column of {self.table}") + grid(("value", "count"), self.top_values)


@dataclass(frozen=True, slots=True)
class UpgradedTable:
    """A table that was mixpanel_data's; `date_ranges` are the days that it had, or claimed to have."""

    name: str
    row_count: int
    date_ranges: tuple[DateRange, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class UpgradeResult:
    """What became of a file; without `tables` there was nothing left to do, and it is as it was."""

    path: Path
    tables: tuple[UpgradedTable, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {"path": str(self.path)}


def _framed(kind: type[Any], values: Sequence[object], instead: str) -> "pd.DataFrame":
    return frame(*_rows(kind, values), instead=instead)


def _grid(kind: type[Any], values: Sequence[object], caption: str) -> str:
    return grid(*_rows(kind, values), caption)


def _rows(kind: type[Any], values: Sequence[object]) -> tuple[list[str], list[list[object]]]:
    """Return the fields of the *kind*, and their values."""
    names = [column.name for column in fields(kind)]
    return names, [[getattr(value, name) for name in names] for value in values]


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
