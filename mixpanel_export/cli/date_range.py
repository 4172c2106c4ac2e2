"""Determines the days that `mpx export` requests, from `--from`, `--to`, `--days` and the ledger."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixpanel_export.cli import program
from mixpanel_export.cli.open_database import open_read_only

if TYPE_CHECKING:
    from mixpanel_export._model import Chunk, Selection
    from mixpanel_export.credentials import Credentials

_FIRST_DAY = "the first day to export, such as yesterday, 2024-01-31 or -30d"


@dataclass(frozen=True, slots=True)
class RangeOptions:
    """The options that determine the days of an export."""

    first: str | None
    last: str | None
    number: int | None
    db: str
    table: str
    events: list[str] | None
    where: str | None
    project_timezone: str | None
    may_ask: bool
    other_file: Callable[[], Path | None] = lambda: None
    """Returns another file that the user may have meant."""


def days_to_export(options: RangeOptions, credentials: "Credentials") -> "Chunk | None":
    """Return the days that the *options* select; None if no day is left to fetch.

    If neither the options nor the ledger determines the first day, the user is asked, provided there is a terminal.

    Raises:
        ArgumentError: See `chosen_days`.
        UsageError: See `chosen_days`; or the first day is unknown and there is no terminal.
    """
    from mixpanel_export._compat import text_or_none
    from mixpanel_export._model import Selection
    from mixpanel_export._source.parameters import checked_names
    from mixpanel_export._timezones import checked_zone, in_zone

    zone = checked_zone(options.project_timezone, credentials.project_timezone)
    today = in_zone(datetime.now(UTC), zone).date()

    def first_missing() -> date:
        selection = Selection(
            credentials.project_id, checked_names(options.events), text_or_none(options.where)
        )
        day = first_missing_day(options.db, options.table, selection)
        if day is not None:
            return day
        if options.may_ask and sys.stdin.isatty() and sys.stderr.isatty():
            return _prompted_first_day(today)
        raise click.UsageError(
            f"--from is required, because {_why_unknown(options)}; add --days 30 or --from yesterday, choose another file with --db, "
            f"or use `{program()} sync --since DATE`; later runs of `{program()} sync` then keep the table up to date"
        )

    return chosen_days(options.first, options.last, options.number, today, first_missing)


def chosen_days(
    first: str | None,
    last: str | None,
    number: int | None,
    today: date,
    first_missing: Callable[[], date],
) -> "Chunk | None":
    """Return the days from *first* to *last*, or the *number* of days that end on *last*; None if no day is left to fetch.

    If *last* is None, the range ends yesterday, or on *first* if that is later. If *first* and *number* are None, it
    starts on the day that *first_missing* returns.

    Raises:
        ArgumentError: A day is invalid, or *last* is before *first*.
        UsageError: Both *first* and *number* are given, or *first_missing* raises this error.
    """
    from mixpanel_export._model import Chunk
    from mixpanel_export._planning.days import checked_days, resolve_day

    if first and number:
        raise click.UsageError("--days and --from cannot be combined; choose one")
    end = resolve_day(last or "yesterday", "to_date", today, last=True)
    if number:
        return Chunk(resolve_day(f"{number - 1}d", "days", end), end)
    if first is None:
        missing = first_missing()
        return Chunk(missing, end) if missing <= end else None
    if last is None:
        end = max(end, resolve_day(first, "from_date", today))
    return checked_days(first, end, today)


def first_missing_day(db: str, table: str, selection: "Selection") -> date | None:
    """Return the first missing, failed or open day of a table or, if there is none, the day after its last day.

    Return None if the table has been dropped, or if the ledger has no days of *selection* for the table.
    """
    from mixpanel_export._database.coverage import coverages
    from mixpanel_export._database.ledger import read_batches
    from mixpanel_export._database.path import database_path, has_content
    from mixpanel_export._database.schema import check_ledger, table_names
    from mixpanel_export._database.target_days import read_targets

    if not has_content(database_path(db)):
        return None
    with open_read_only(db) as connection:
        check_ledger(connection)
        tables = table_names(connection)
        all_coverages = coverages(read_batches(connection), {}, read_targets(connection))
    for coverage in all_coverages:
        same_table = coverage.table.lower() == table.lower()
        exists = coverage.table in tables or not coverage.dropped
        if same_table and coverage.selection == selection and exists:
            days = coverage.to_fetch
            return days[0].first if days else coverage.days[-1].day + timedelta(days=1)
    return None


def _why_unknown(options: RangeOptions) -> str:
    """Return why the ledger does not determine the first day."""
    from mixpanel_export._database.path import database_path, has_content
    from mixpanel_export._database.schema import table_names

    path = database_path(options.db).absolute()
    if has_content(path):
        with open_read_only(options.db) as connection:
            exists = options.table.lower() in map(str.lower, table_names(connection))
        reason = (
            f"table {options.table} in {path} has no days for this project, --events and --where"
            if exists
            else f"{path} has no table {options.table}"
        )
    else:
        reason = f"there is no file {path}"
    other = options.other_file()
    return f"{reason} (but {other} exists)" if other else reason


def _prompted_first_day(today: date) -> date:
    """Ask on the terminal for the first day to export."""
    from mixpanel_export._planning.days import resolve_day

    return resolve_day(
        click.prompt(_FIRST_DAY.capitalize(), default="yesterday", err=True), "from_date", today
    )
