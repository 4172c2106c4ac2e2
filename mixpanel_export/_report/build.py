"""Collects the data of a report from a database."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.coverage import Coverage
from mixpanel_export._database.profile_tables import ProfileTable
from mixpanel_export._report.activity import no_activity, read_activity
from mixpanel_export._report.calendars import calendar_of
from mixpanel_export._report.model import ProfilesReport, Properties, ReportData, TableReport
from mixpanel_export._report.personal import for_report
from mixpanel_export._report.properties import read_properties
from mixpanel_export._report.quality import read_quality
from mixpanel_export._report.requests import ledger_of, timeline_of, usage_of

_MAX_TABLES = 5

_NO_PROPERTIES = Properties(rows=(), others=0, events=0, flat_table=None)


def collect(
    connection: Connection,
    path: Path,
    coverages: Iterable[Coverage],
    *,
    examples: bool,
    now: datetime,
    profiles: Iterable[ProfileTable] = (),
) -> ReportData:
    """Return the data of a report on the tables of events in *coverages*, and on tables of *profiles*.

    If *examples* is false, the data does not include values of properties, ids or lines of responses.
    """
    tables = _by_table(coverages)
    names = list(tables)
    return ReportData(
        file_name=path.name,
        created=now,
        tables=tuple(
            _table(connection, name, tables[name], examples=examples) for name in names[:_MAX_TABLES]
        ),
        other_tables=tuple(names[_MAX_TABLES:]),
        examples=examples,
        profiles=tuple(
            ProfilesReport(
                table.name,
                table.rows or 0,
                table.last.finished if table.last else None,
                table.failure.finished if table.failure else None,
            )
            for table in profiles
            if table.rows is not None or table.failure
        ),
    )


def _by_table(coverages: Iterable[Coverage]) -> Mapping[str, Sequence[Coverage]]:
    """Return the coverages of each table, the table with the most rows first."""
    tables: dict[str, list[Coverage]] = {}
    for coverage in coverages:
        tables.setdefault(coverage.table, []).append(coverage)
    rows = {name: sum(coverage.total_rows for coverage in some) for name, some in tables.items()}
    return {name: tables[name] for name in sorted(tables, key=lambda name: (-rows[name], name))}


def _table(
    connection: Connection, name: str, coverages: Sequence[Coverage], *, examples: bool
) -> TableReport:
    batches = [for_report(batch, examples=examples) for coverage in coverages for batch in coverage.batches]
    calendars = tuple(calendar_of(coverage, examples=examples) for coverage in coverages)
    exists = any(coverage.counts is not None for coverage in coverages)
    zone = coverages[0].options.zone
    days = [day.day for calendar in calendars for day in calendar.days]
    first, last = min(days), max(days)
    activity = read_activity(connection, name, zone, first, last) if exists else no_activity(first, last)
    return TableReport(
        name=name,
        zone=zone,
        exists=exists,
        last_export=max((batch.finished for batch in batches if batch.finished), default=None),
        calendars=calendars,
        activity=activity,
        properties=read_properties(connection, name, activity.events) if exists else _NO_PROPERTIES,
        quality=read_quality(connection, name, batches, examples=examples),
        timeline=timeline_of(batches),
        usage=usage_of(batches),
        ledger=ledger_of(batches),
        batches=len(batches),
    )
