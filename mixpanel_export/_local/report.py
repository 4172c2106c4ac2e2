"""Creates the report of `Workspace.report` and `mpx report`."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import duckdb

from mixpanel_export._config.extras import check_extra
from mixpanel_export._local.reader import interruptible, read_contents
from mixpanel_export._report.build import collect
from mixpanel_export._suggestions import did_you_mean
from mixpanel_export.errors import TableNotFoundError
from mixpanel_export.inspection import Report

_MODULES = ("altair", "jinja2", "vl_convert")


def report_of(
    connection: duckdb.DuckDBPyConnection, path: Path, table: str | None = None, *, examples: bool = False
) -> Report:
    """Return a page about the exported tables, or about one *table*.

    Raises:
        ConfigError: The `report` extra is not installed.
        TableNotFoundError: The ledger has no such table.
        TableFormatError: A newer release of this program wrote the ledger.
    """
    check_extra("a report", "report", _MODULES)
    from mixpanel_export._report.page import render  # noqa: PLC0415 - an extra

    contents = read_contents(connection)
    coverages = [coverage for coverage in contents.coverages if table in {None, coverage.table}]
    profiles = [each for each in contents.profiles if table in {None, each.name}]
    if table is not None and not (coverages or profiles):
        names = {coverage.table for coverage in contents.coverages} | {
            each.name for each in contents.profiles
        }
        raise TableNotFoundError(
            table,
            f"there is no exported table {table}",
            advice=f"{did_you_mean(table, names)}leave out $table to see all tables",
        )
    with connection.cursor() as cursor:  # with its own settings
        cursor.execute("SET enable_progress_bar = false")
        now = datetime.now(UTC)
        data = interruptible(
            cursor,
            partial(collect, cursor, path, coverages, examples=examples, now=now, profiles=profiles),
        )
    return Report(title=f"Report of {path.name}", html=render(data))
