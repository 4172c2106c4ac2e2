"""The JSON of `mpx status`, and the commands that it suggests."""

from datetime import UTC
from typing import TYPE_CHECKING, Any

from mixpanel_export.cli import program
from mixpanel_export.cli.refetch import command_for, refetch_command
from mixpanel_export.cli.report import export_command, quoted
from mixpanel_export.cli.status_profiles import profiles_as_dict

if TYPE_CHECKING:
    from mixpanel_export._database.coverage import Coverage
    from mixpanel_export._database.profile_tables import ProfileTable
    from mixpanel_export._flat.state import FlatTable
    from mixpanel_export._local.reader import Contents, Replacement
    from mixpanel_export._publish.status import PublicationState


def status_as_dict(
    db: str,
    selected: "list[Coverage]",
    profiles: "list[ProfileTable]",
    contents: "Contents",
    publications: "list[PublicationState]",
) -> dict[str, Any]:
    """Return the contents of the file, with the commands that fetch the remaining days."""
    return {
        "database": db,
        "tables": [_table_as_dict(coverage, db) for coverage in selected],
        "profiles": [profiles_as_dict(table, db) for table in profiles],
        "replacements": [
            {
                "table": replacement.spec.table,
                "kept": replacement.complete_batches,
                "command": continue_command(replacement, db),
            }
            for replacement in contents.replacements
        ],
        "other_tables": list(contents.others),
        "unknown_rows": dict(contents.unknown),
        "outdated_flat_tables": [
            {"table": flat.name, "source": flat.source, "command": flatten_command(flat, db)}
            for flat in contents.outdated_flat_tables
        ],
        "publications": [_publication_as_dict(state, db) for state in publications],
        "command": command_for_rest(selected, contents, db),
    }


def _table_as_dict(coverage: "Coverage", db: str) -> dict[str, Any]:
    last = coverage.last_export
    return {
        "table": coverage.table,
        "project_id": coverage.selection.project,
        "events": coverage.selection.events and list(coverage.selection.events),
        "where": coverage.selection.where,
        "timezone": coverage.options.zone,
        "dropped": coverage.dropped,
        "from_date": str(coverage.days[0].day),
        "to_date": str(coverage.days[-1].day),
        "rows": coverage.total_rows,
        "outside_rows": coverage.rows_without_day,
        "last_export": last and last.replace(tzinfo=UTC).isoformat(),
        "removed_duplicates": sum(row.removed_duplicates for row in coverage.batches),
        "rejects": sum(row.rejects for row in coverage.batches),
        "repaired": sum(row.repaired for row in coverage.batches),
        "target": coverage.target
        and {"from_date": str(coverage.target.days.first), "to_date": str(coverage.target.days.last)},
        "empty_answers": [
            {"from_date": str(days.first), "to_date": str(days.last)} for days in coverage.empty_responses
        ],
        "statuses": dict(coverage.statuses),
        "calendar": [{"day": str(day.day), "status": day.status, "rows": day.rows} for day in coverage.days],
        "failures": [
            {
                "from_date": str(failure.days.first),
                "to_date": str(failure.days.last),
                "error": failure.error,
                "command": command_for(coverage, db, failure.days),
            }
            for failure in coverage.failures
        ],
        "mismatches": [
            {
                "batch": mismatch.batch,
                "from_date": str(mismatch.days.first),
                "to_date": str(mismatch.days.last),
                "rows_in_ledger": mismatch.ledger_rows,
                "rows_in_table": mismatch.table_rows,
                "command": refetch_command(coverage, db, changed.days),
            }
            for changed in coverage.changed_days
            for mismatch in changed.batches
        ],
    }


def _publication_as_dict(state: "PublicationState", db: str) -> dict[str, Any]:
    publication = state.publication
    at = publication.published_at
    return {
        "destination": publication.destination,
        "table": publication.table,
        "format": publication.format,
        "published_at": at and at.replace(tzinfo=UTC).isoformat(),
        "by_day": state.by_day,
        "days": state.days,
        "days_behind": state.behind,
        "command": publish_command(publication.destination, db),
    }


def command_for_rest(selected: "list[Coverage]", contents: "Contents", db: str) -> str | None:
    """Return the command that fetches the remaining days of the *selected* tables, or None."""
    if not any(coverage.to_fetch and not coverage.dropped for coverage in selected):
        return None
    tables = {coverage.table for coverage in selected}
    only = [] if tables == {coverage.table for coverage in contents.coverages} else ["--table", *tables]
    return quoted([program(), "retry", db, *only])


def continue_command(replacement: "Replacement", db: str) -> str:
    """Return the command that continues an unfinished replacement."""
    spec = replacement.spec
    return export_command(
        spec.table,
        spec.days,
        db,
        spec.selection,
        zone=spec.zone,
        deduped=spec.dedupe,
        mode="--replace",
    )


def flatten_command(flat: "FlatTable", db: str) -> str:
    """Return the command that updates a flat table."""
    return quoted([program(), "flatten", flat.source, "--into", flat.name, "--db", db])


def publish_command(destination: str, db: str, table: str = "events") -> str:
    """Return the command that updates a data set. *table* matters only for the first publication."""
    words = [] if table == "events" else ["--table", table]
    return quoted([program(), "publish", destination, *words, "--db", db])
