"""Converts mixpanel_data's arguments to arguments of `export_events`, and results to mixpanel_data's types."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn, Required, TypedDict

from mixpanel_export._config.environment import home
from mixpanel_export._error_base import Advice
from mixpanel_export._model import Chunk
from mixpanel_export._planning.days import check_has_begun, checked_days
from mixpanel_export._planning.planner import split_date_range
from mixpanel_export._timezones import in_zone
from mixpanel_export.errors import (
    ArgumentError,
    ConfigError,
    DateRangeTooLargeError,
    MixpanelDataError,
)
from mixpanel_export.profiles import ParallelProfileResult, ProfileProgress
from mixpanel_export.results import BatchProgress, FetchResult, ParallelFetchResult, Progress

MAX_DAYS = 100
"""The maximum number of days that one request can cover. A chunk cannot be longer."""

_STREAM_ARGUMENTS = frozenset({
    "events", "from_date", "limit", "max_wait", "project_id", "project_timezone", "region", "to_date", "where",
})  # fmt: skip


class FetchOptions(TypedDict, total=False):
    """The arguments that all overloads of `Workspace.fetch_events` share."""

    from_date: Required[str | date]
    to_date: Required[str | date]
    events: list[str] | None
    where: str | None
    progress: bool
    append: bool
    batch_size: int
    max_workers: int | None
    on_batch_complete: Callable[[BatchProgress], object] | None
    chunk_days: int | None
    resume: bool
    replace: bool
    dedupe: bool
    allow_empty: bool
    retries: int
    on_progress: Callable[[Progress], object] | None
    max_wait: float
    flatten: bool
    wait: float


class FetchProfileOptions(TypedDict, total=False):
    """The arguments that all overloads of `Workspace.fetch_profiles` share."""

    where: str | None
    cohort_id: str | None
    output_properties: list[str] | None
    distinct_id: str | None
    distinct_ids: list[str] | None
    group_id: str | None
    behaviors: list[dict[str, Any]] | None
    as_of_timestamp: int | None
    include_all_users: bool
    progress: bool
    append: bool
    batch_size: int
    max_workers: int | None
    on_page_complete: Callable[[ProfileProgress], object] | None
    replace: bool
    allow_empty: bool
    retries: int
    on_progress: Callable[[Progress], object] | None
    max_wait: float
    flatten: bool
    wait: float


class ProfileFilters(TypedDict):
    """The arguments of `export_profiles` that select profiles."""

    where: str | None
    cohort: str | None
    properties: list[str] | None
    distinct_ids: list[str] | None
    group: str | None
    behaviors: list[dict[str, Any]] | None
    as_of_timestamp: int | None
    include_all_users: bool | None


def profile_filters(
    *,
    where: str | None,
    cohort_id: str | None,
    output_properties: list[str] | None,
    distinct_id: str | None,
    distinct_ids: list[str] | None,
    group_id: str | None,
    behaviors: list[dict[str, Any]] | None,
    as_of_timestamp: int | None,
    include_all_users: bool,
) -> ProfileFilters:
    """Return the filters for `export_profiles`. An empty list or string selects all profiles, like None.

    Raises:
        ArgumentError: *distinct_id* is used with *distinct_ids*, or *include_all_users* without a cohort.
    """
    if distinct_id and distinct_ids:
        raise ArgumentError("distinct_id", "cannot be used with distinct_ids", advice="choose one")
    if include_all_users and not cohort_id:
        raise ArgumentError("include_all_users", "can only be used with cohort_id")
    return {
        "where": text_or_none(where),
        "cohort": cohort_id or None,
        "properties": output_properties or None,
        "distinct_ids": [distinct_id] if distinct_id else distinct_ids or None,
        "group": group_id or None,
        "behaviors": behaviors or None,
        "as_of_timestamp": as_of_timestamp,
        "include_all_users": include_all_users if cohort_id else None,
    }


def default_path(project_id: str) -> Path:
    """Return the path of a project's mixpanel_data database.

    Raises:
        ConfigError: *project_id* is empty, or there is no home directory.
    """
    if not project_id:
        raise ConfigError(
            "the default file is named after the project, but no project is configured",
            advice="set MP_PROJECT_ID, or pass $path",
            argument="path",
        )
    folder = home()
    if folder is None:
        raise ConfigError(
            "the default file is in the home directory, but there is no home directory",
            advice="set HOME, or pass $path",
            argument="path",
        )
    return folder / ".mp" / "data" / f"{project_id}.db"


def check(name: str, value: int | None, minimum: int, maximum: int | None = None) -> None:
    """Check that *value* is None, or is from *minimum* to *maximum*.

    Raises:
        ArgumentError: *value* is out of range. The message is the same as in mixpanel_data.
    """
    if value is not None and value < minimum:
        positive = name in {"chunk_days", "max_workers"}
        raise ArgumentError(
            name, "must be positive" if positive else f"must be at least {minimum}, got {value}"
        )
    if value is not None and maximum is not None and value > maximum:
        raise ArgumentError(name, f"must be at most {maximum}, got {value}")


def check_limit(limit: int | None, *, parallel: bool = False) -> None:
    """Check *limit*, the maximum number of events in one request.

    Raises:
        ArgumentError: *limit* is out of range, or cannot be used with *parallel*.
    """
    check("limit", limit, 1, 100_000)
    if parallel and limit is not None:
        raise ArgumentError(
            "limit", "cannot be used with parallel, because it would limit each request, not the export"
        )


def filters_of(events: list[str] | None, where: str | None) -> tuple[list[str] | None, str | None]:
    """Return the filters for `export_events`. As in mixpanel_data, an empty list or string selects all events.

    Other empty iterables are returned unchanged and are rejected later, because an iterator may be empty by mistake.
    """
    return None if isinstance(events, list | tuple) and not events else events, text_or_none(where)


def text_or_none(where: str | None) -> str | None:
    """Return *where*; None if it is empty or blank, because an empty expression is not a filter."""
    return where if where and where.strip() else None


def mode_of(*, append: bool, replace: bool, resume: bool) -> Literal["create", "append", "replace", "resume"]:
    """Return the mode of `export_events` that corresponds to mixpanel_data's three flags.

    Raises:
        ArgumentError: More than one flag is true.
    """
    if append + replace + resume > 1:
        flags = {"append": append, "replace": replace, "resume": resume}
        used = [name for name, is_set in flags.items() if is_set]
        raise ArgumentError(used[0], f"cannot be used with {' or '.join(used[1:])}", advice="choose one")
    return "append" if append else "replace" if replace else "resume" if resume else "create"


def profile_mode_of(*, append: bool, replace: bool) -> Literal["create", "append", "replace"]:
    """Return the mode of `export_profiles` that corresponds to the two flags.

    Raises:
        ArgumentError: Both flags are true.
    """
    if append and replace:
        raise ArgumentError("append", "cannot be used with replace", advice="choose one")
    return "append" if append else "replace" if replace else "create"


def resolved_days(from_date: str | date, to_date: str | date, zone: str) -> Chunk:
    """Return the days of the range. Words such as "yesterday" are relative to the current day in *zone*.

    Raises:
        ArgumentError: A date is invalid, or *to_date* is before *from_date*.
    """
    return checked_days(from_date, to_date, in_zone(datetime.now(UTC), zone).date())


def stream_chunks(from_date: str | date, to_date: str | date, zone: str) -> list[Chunk]:
    """Split the range into chunks of `MAX_DAYS` days. Only the last chunk may be shorter.

    Raises:
        ArgumentError: A date is invalid (see `resolved_days`), or the last day has not begun in any time zone.
    """
    days = resolved_days(from_date, to_date, zone)
    check_has_begun(days.last, "to_date", datetime.now(UTC))
    parts = split_date_range(str(days.first), str(days.last), MAX_DAYS)
    return [Chunk(date.fromisoformat(first), date.fromisoformat(last)) for first, last in parts]


@contextmanager
def stream_advice() -> Iterator[None]:
    """Call `set_stream_advice` for each error that the block raises."""
    try:
        yield
    except MixpanelDataError as error:
        set_stream_advice(error)
        raise


def set_stream_advice(error: MixpanelDataError) -> None:
    """Replace the error's advice if the advice mentions an argument that streams do not have."""
    if error.advice is not None and not error.advice.arguments <= _STREAM_ARGUMENTS:
        error.advice = Advice("try again later, or stream fewer days or $events at a time")
        error.details["suggestion"] = str(error.advice)


def check_one_request(days: Chunk) -> None:
    """Check that one request can cover *days*.

    Raises:
        DateRangeTooLargeError: The range is too long for one request.
    """
    if days.length > MAX_DAYS:
        raise DateRangeTooLargeError(
            str(days.first),
            str(days.last),
            days.length,
            MAX_DAYS,
            advice="send several requests with $parallel, or request fewer days at a time",
            argument="parallel",
        )


def result_of_one_request(result: ParallelFetchResult, days: Chunk) -> FetchResult:
    """Convert the result of an export with one request to mixpanel_data's type.

    If the request failed, raise its error.
    """
    if result.errors:
        raise result.errors[0]
    return FetchResult(
        table=result.table,
        rows=result.total_rows,
        type="events",
        duration_seconds=result.duration_seconds,
        date_range=(str(days.first), str(days.last)),
        fetched_at=result.fetched_at,
    )


def sequential_profile_result(result: ParallelProfileResult) -> FetchResult:
    """Convert a result of `export_profiles` to the type that mixpanel_data returns if `parallel` is false."""
    return FetchResult(
        table=result.table,
        rows=result.total_rows,
        type="profiles",
        duration_seconds=result.duration_seconds,
        date_range=None,
        fetched_at=result.fetched_at,
    )


class NotImplementedHere:
    """The parts of mixpanel_data's `Workspace` that this package does not have."""

    @property
    def api(self) -> NoReturn:
        """Raise `NotImplementedError`: there is no client for Mixpanel's other APIs."""
        raise NotImplementedError(
            "there is no client for Mixpanel's other APIs; use fetch_events, stream_events or an HTTP client"
        )

    @property
    def storage(self) -> NoReturn:
        """Raise `NotImplementedError`: there is no storage object."""
        raise NotImplementedError(
            "there is no storage object; use sql, tables, table_schema and drop, or the DuckDB connection"
        )
