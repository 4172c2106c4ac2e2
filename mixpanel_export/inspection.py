"""The results of inspecting or upgrading a database. Those that also exist in mixpanel_data have the same names.

The values in `to_dict()` can be converted to JSON, except for values read from a table, which have DuckDB's Python
types. `df` requires the `pandas` extra and raises `ImportError` without it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mixpanel_export._display import data_frame, html_frame, html_pairs, html_table
from mixpanel_export._files import replacing
from mixpanel_export.results import DateRange

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class SQLResult:
    """The rows of a query. Iterating over it yields the rows."""

    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def to_dicts(self) -> list[dict[str, object]]:
        """Return one dictionary per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: the first rows."""
        return html_table(self.columns, self.rows)

    def to_dict(self) -> dict[str, object]:
        """Return columns, rows and row_count. Values keep DuckDB's Python types."""
        return {
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
            "row_count": len(self.rows),
        }


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table of the database."""

    name: str
    type: str | None
    """`events` or `profiles`; None if the table was not exported."""
    row_count: int
    fetched_at: datetime | None
    """Time of the last export, in UTC; None if the table was not exported."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {"fetched_at": _iso(self.fetched_at)}


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column of a table."""

    name: str
    type: str
    """DuckDB's name of the type."""
    nullable: bool
    primary_key: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of a table, in order."""

    table_name: str
    columns: list[ColumnInfo]

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: one row per column."""
        return _grid(ColumnInfo, self.columns, f"columns of {self.table_name}")


@dataclass(frozen=True, slots=True)
class WorkspaceInfo:
    """A workspace and its file."""

    path: Path | None
    project_id: str
    """`unknown` if there are no credentials."""
    region: str
    """`unknown` if there are no credentials."""
    account: str | None
    """The account that the workspace was created with."""
    tables: list[str]
    """The exported tables, by name."""
    size_mb: float
    """Size of the file, in millions of bytes."""
    created_at: datetime | None
    """In UTC; None if the file system does not record it."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {
            "path": None if self.path is None else str(self.path),
            "created_at": _iso(self.created_at),
        }

    def _repr_html_(self) -> str:
        """Return HTML for a notebook."""
        rows = self.to_dict() | {"tables": ", ".join(self.tables)}
        return html_pairs(rows.items(), "workspace")


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """A column as DuckDB's SUMMARIZE describes it. `min`, `max` and the quartiles are strings."""

    column_name: str
    column_type: str
    min: Any
    max: Any
    approx_unique: int
    avg: float | None
    """None for columns without numbers. The same is true of `std`."""
    std: float | None
    q25: Any
    """None for types without quartiles. The same is true of `q50` and `q75`."""
    q50: Any
    q75: Any
    count: int
    """The number of rows, including those with NULL."""
    null_percentage: float
    """From 0 to 100."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SummaryResult:
    """A summary of each column of a table."""

    table: str
    row_count: int
    columns: list[ColumnSummary] = field(default_factory=list)

    @property
    def df(self) -> "pd.DataFrame":
        """One row per column."""
        return _framed(ColumnSummary, self.columns, "columns")

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: one row per column."""
        return _grid(ColumnSummary, self.columns, f"{self.table}: {self.row_count:,} rows")


@dataclass(frozen=True, slots=True)
class EventStats:
    """The events with one name."""

    event_name: str
    count: int
    unique_users: int
    first_seen: datetime | None
    """Naive, in UTC; None if none of the events has a time."""
    last_seen: datetime | None
    """Naive, in UTC; None if none of the events has a time."""
    pct_of_total: float
    """From 0 to 100."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {
            "first_seen": _iso(self.first_seen),
            "last_seen": _iso(self.last_seen),
        }


@dataclass(frozen=True, slots=True)
class EventBreakdownResult:
    """The events of a table by name, the most frequent first."""

    table: str
    total_events: int
    total_users: int
    date_range: tuple[datetime, datetime]
    """The earliest and latest time, naive, in UTC. Both are `datetime.min` if no event has a time."""
    events: list[EventStats] = field(default_factory=list)

    @property
    def df(self) -> "pd.DataFrame":
        """One row per name."""
        return _framed(EventStats, self.events, "events")

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {
            "date_range": [_iso(moment) for moment in self.date_range],
            "events": [event.to_dict() for event in self.events],
        }

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: one row per name."""
        caption = f"{self.table}: {self.total_events:,} events of {self.total_users:,} users"
        return _grid(EventStats, self.events, caption)


@dataclass(frozen=True, slots=True)
class ColumnStatsResult:
    """Statistics of a column or an SQL expression."""

    table: str
    column: str
    dtype: str
    """DuckDB's name of the type."""
    count: int
    """Values that are not NULL."""
    null_count: int
    null_pct: float
    """From 0 to 100."""
    unique_count: int
    """Estimated number of distinct values, accurate to a few percent."""
    unique_pct: float
    """From 0 to 100."""
    top_values: list[tuple[Any, int]] = field(default_factory=list)
    """The most frequent values, each with its count."""
    min: float | None = None
    """None if the values are not numbers. The same is true of `max`, `mean` and `std`."""
    max: float | None = None
    mean: float | None = None
    std: float | None = None

    @property
    def df(self) -> "pd.DataFrame":
        """One row per frequent value, with the columns value and count."""
        return data_frame(("value", "count"), self.top_values, instead="top_values")

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order."""
        return asdict(self) | {"top_values": [list(pair) for pair in self.top_values]}

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: the statistics, then the most frequent values."""
        numbers = [
            (name, value) for name, value in asdict(self).items() if name not in {"table", "top_values"}
        ]
        rows = [(name, value) for name, value in numbers if value is not None]
        return html_pairs(rows, f"a column of {self.table}") + html_table(("value", "count"), self.top_values)


@dataclass(frozen=True, slots=True)
class UpgradedTable:
    """A table of mixpanel_data that was converted."""

    name: str
    row_count: int
    date_ranges: tuple[DateRange, ...]
    """The days of the table's events, and the days that mixpanel_data recorded; empty for profiles."""
    type: Literal["events", "profiles"] = "events"

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class UpgradeResult:
    """The result of an upgrade."""

    path: Path
    tables: tuple[UpgradedTable, ...]
    """Empty if there was nothing to convert. In this case, the file is unchanged."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {"path": str(self.path)}


def _framed(kind: type[Any], values: Sequence[object], instead: str) -> "pd.DataFrame":
    return data_frame(*_rows(kind, values), instead=instead)


def _grid(kind: type[Any], values: Sequence[object], caption: str) -> str:
    return html_table(*_rows(kind, values), caption)


def _rows(kind: type[Any], values: Sequence[object]) -> tuple[list[str], list[list[object]]]:
    """Return the field names of *kind*, and the fields of each value."""
    names = [column.name for column in fields(kind)]
    return names, [[getattr(value, name) for name in names] for value in values]


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


@dataclass(frozen=True, slots=True)
class Report:
    """An HTML page about a database: its days, events, properties and requests. A notebook shows it in a frame."""

    title: str
    html: str = field(repr=False)
    """The whole page. It can be shown without other files and without a network."""

    def save(self, path: str | Path) -> Path:
        """Write the page to the file *path*, and return the path. An existing file is replaced. Raises `OSError`.

        Example:
            workspace.report().save("events.html")
        """
        with replacing(Path(path)) as new:
            new.write_text(self.html, encoding="utf-8")
        return Path(path)

    def _repr_html_(self) -> str:
        """Return HTML for a notebook. The frame separates the page's styles and scripts from the notebook's."""
        return html_frame(self.html, self.title)
