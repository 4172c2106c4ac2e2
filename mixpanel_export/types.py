"""Re-exports the classes of `results`, `inspection` and `profiles` under the module name that mixpanel_data uses.

Nothing in this package returns `TableMetadata`. It is defined for scripts that import it.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from mixpanel_export.inspection import (
    ColumnInfo,
    ColumnStatsResult,
    ColumnSummary,
    EventBreakdownResult,
    EventStats,
    SQLResult,
    SummaryResult,
    TableInfo,
    TableSchema,
    WorkspaceInfo,
)
from mixpanel_export.profiles import ParallelProfileResult, ProfileProgress
from mixpanel_export.results import BatchProgress, BatchResult, FetchResult, ParallelFetchResult

__all__ = [
    "BatchProgress",
    "BatchResult",
    "ColumnInfo",
    "ColumnStatsResult",
    "ColumnSummary",
    "EventBreakdownResult",
    "EventStats",
    "FetchResult",
    "ParallelFetchResult",
    "ParallelProfileResult",
    "ProfileProgress",
    "SQLResult",
    "SummaryResult",
    "TableInfo",
    "TableMetadata",
    "TableSchema",
    "TableType",
    "WorkspaceInfo",
]

TableType = Literal["events", "profiles"]
"""The type of an exported table."""


@dataclass(frozen=True, slots=True)
class TableMetadata:
    """mixpanel_data's record of a table. This package has a ledger (`_export_batches`) instead."""

    type: TableType
    fetched_at: datetime
    from_date: str | None = None
    to_date: str | None = None
    filter_events: list[str] | None = None
    filter_where: str | None = None
    filter_cohort_id: str | None = None
    filter_output_properties: list[str] | None = None
    filter_group_id: str | None = None
    filter_behaviors: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self) | {"fetched_at": self.fetched_at.isoformat()}
