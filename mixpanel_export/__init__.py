"""Export a Mixpanel project's raw events into DuckDB: complete, exact, and as fast as the quota allows."""

from importlib import import_module

# Importing `typing` would take longer than everything else in this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mixpanel_export._export.engine import export_events
    from mixpanel_export._export.sync_events import sync_events
    from mixpanel_export._flat.flatten import flatten_events
    from mixpanel_export._local.upgrade import upgrade_database
    from mixpanel_export._planning.planner import split_date_range
    from mixpanel_export._profiles.engine import export_profiles
    from mixpanel_export._publish.publish import publish_table
    from mixpanel_export._publish.read_copy import copy_database
    from mixpanel_export._source.parameters import Timeouts
    from mixpanel_export._verify.verify import verify_events
    from mixpanel_export.batches import BatchStream, EventBatch, stream_batches
    from mixpanel_export.changes import DayChange, SyncResult
    from mixpanel_export.credentials import Credentials
    from mixpanel_export.errors import (
        AccountExistsError,
        AccountNotFoundError,
        APIError,
        ArgumentError,
        AuthenticationError,
        ConfigError,
        DatabaseError,
        DatabaseLockedError,
        DatabaseNotFoundError,
        DateRangeTooLargeError,
        ExportRunningError,
        FutureDateError,
        LedgerMismatchError,
        LineTooLongError,
        MixpanelDataError,
        NetworkError,
        QueryError,
        RateLimitError,
        RegionError,
        SelectionError,
        ServerError,
        SnapshotError,
        TableError,
        TableExistsError,
        TableFormatError,
        TableNotFoundError,
        TruncatedError,
    )
    from mixpanel_export.inspection import (
        ColumnInfo,
        ColumnStatsResult,
        ColumnSummary,
        EventBreakdownResult,
        EventStats,
        Report,
        SQLResult,
        SummaryResult,
        TableInfo,
        TableSchema,
        UpgradedTable,
        UpgradeResult,
        WorkspaceInfo,
    )
    from mixpanel_export.profiles import ParallelProfileResult, ProfileProgress
    from mixpanel_export.publication import CopyResult, PublishError, PublishProgress, PublishResult
    from mixpanel_export.results import (
        BatchProgress,
        BatchResult,
        FetchResult,
        FlattenResult,
        ForgetResult,
        ForgottenTable,
        ParallelFetchResult,
        Progress,
    )
    from mixpanel_export.sync import run_sync
    from mixpanel_export.verification import CountDifference, VerifyResult
    from mixpanel_export.workspace import Workspace

    __version__: str

__all__ = [
    "APIError",
    "AccountExistsError",
    "AccountNotFoundError",
    "ArgumentError",
    "AuthenticationError",
    "BatchProgress",
    "BatchResult",
    "BatchStream",
    "ColumnInfo",
    "ColumnStatsResult",
    "ColumnSummary",
    "ConfigError",
    "CopyResult",
    "CountDifference",
    "Credentials",
    "DatabaseError",
    "DatabaseLockedError",
    "DatabaseNotFoundError",
    "DateRangeTooLargeError",
    "DayChange",
    "EventBatch",
    "EventBreakdownResult",
    "EventStats",
    "ExportRunningError",
    "FetchResult",
    "FlattenResult",
    "ForgetResult",
    "ForgottenTable",
    "FutureDateError",
    "LedgerMismatchError",
    "LineTooLongError",
    "MixpanelDataError",
    "NetworkError",
    "ParallelFetchResult",
    "ParallelProfileResult",
    "ProfileProgress",
    "Progress",
    "PublishError",
    "PublishProgress",
    "PublishResult",
    "QueryError",
    "RateLimitError",
    "RegionError",
    "Report",
    "SQLResult",
    "SelectionError",
    "ServerError",
    "SnapshotError",
    "SummaryResult",
    "SyncResult",
    "TableError",
    "TableExistsError",
    "TableFormatError",
    "TableInfo",
    "TableNotFoundError",
    "TableSchema",
    "Timeouts",
    "TruncatedError",
    "UpgradeResult",
    "UpgradedTable",
    "VerifyResult",
    "Workspace",
    "WorkspaceInfo",
    "__version__",
    "copy_database",
    "export_events",
    "export_profiles",
    "flatten_events",
    "publish_table",
    "run_sync",
    "split_date_range",
    "stream_batches",
    "sync_events",
    "upgrade_database",
    "verify_events",
]

# These are imported on first use, so that importing the package is quick and loads no other library.
_HOMES = {
    "APIError": "errors",
    "AccountExistsError": "errors",
    "AccountNotFoundError": "errors",
    "ArgumentError": "errors",
    "AuthenticationError": "errors",
    "BatchProgress": "results",
    "BatchResult": "results",
    "BatchStream": "batches",
    "ColumnInfo": "inspection",
    "ColumnStatsResult": "inspection",
    "ColumnSummary": "inspection",
    "ConfigError": "errors",
    "CopyResult": "publication",
    "CountDifference": "verification",
    "Credentials": "credentials",
    "DatabaseError": "errors",
    "DatabaseLockedError": "errors",
    "DatabaseNotFoundError": "errors",
    "DateRangeTooLargeError": "errors",
    "DayChange": "changes",
    "EventBatch": "batches",
    "EventBreakdownResult": "inspection",
    "EventStats": "inspection",
    "ExportRunningError": "errors",
    "FetchResult": "results",
    "FlattenResult": "results",
    "ForgetResult": "results",
    "ForgottenTable": "results",
    "FutureDateError": "errors",
    "LedgerMismatchError": "errors",
    "LineTooLongError": "errors",
    "MixpanelDataError": "errors",
    "NetworkError": "errors",
    "ParallelFetchResult": "results",
    "ParallelProfileResult": "profiles",
    "ProfileProgress": "profiles",
    "Progress": "results",
    "PublishError": "publication",
    "PublishProgress": "publication",
    "PublishResult": "publication",
    "QueryError": "errors",
    "RateLimitError": "errors",
    "RegionError": "errors",
    "Report": "inspection",
    "SQLResult": "inspection",
    "SelectionError": "errors",
    "ServerError": "errors",
    "SnapshotError": "errors",
    "SummaryResult": "inspection",
    "SyncResult": "changes",
    "TableError": "errors",
    "TableExistsError": "errors",
    "TableFormatError": "errors",
    "TableInfo": "inspection",
    "TableNotFoundError": "errors",
    "TableSchema": "inspection",
    "Timeouts": "_source.parameters",
    "TruncatedError": "errors",
    "UpgradeResult": "inspection",
    "UpgradedTable": "inspection",
    "VerifyResult": "verification",
    "Workspace": "workspace",
    "WorkspaceInfo": "inspection",
    "copy_database": "_publish.read_copy",
    "export_events": "_export.engine",
    "export_profiles": "_profiles.engine",
    "flatten_events": "_flat.flatten",
    "publish_table": "_publish.publish",
    "run_sync": "sync",
    "split_date_range": "_planning.planner",
    "stream_batches": "batches",
    "sync_events": "_export.sync_events",
    "upgrade_database": "_local.upgrade",
    "verify_events": "_verify.verify",
}

# Names that exist only because scripts written for mixpanel_data may import them. They are not in `__all__`.
_ALIASES = {
    "EventNotFoundError": "exceptions",
    "JQLSyntaxError": "exceptions",
    "OAuthError": "exceptions",
    "TableMetadata": "types",
    "TableType": "types",
    "WorkspaceScopeError": "exceptions",
}
_MODULES = {"auth", "errors", "exceptions", "profiles", "results", "types"}


def __getattr__(name: str) -> "Any":
    if name == "__version__":
        return import_module("importlib.metadata").version("mpx-export")
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _ALIASES:
        return getattr(import_module(f"{__name__}.{_ALIASES[name]}"), name)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
