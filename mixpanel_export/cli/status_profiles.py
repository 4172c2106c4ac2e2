"""Formats the output of `mpx status` about tables of profiles."""

from collections.abc import Iterator
from datetime import UTC
from typing import TYPE_CHECKING, Any

from mixpanel_export.cli import one_line, program
from mixpanel_export.cli.event_names import event_words
from mixpanel_export.cli.report import quoted

if TYPE_CHECKING:
    from mixpanel_export._database.profile_tables import ProfileTable
    from mixpanel_export._database.snapshots import Snapshot


def profile_facts(table: "ProfileTable", ago: str) -> Iterator[tuple[str, str]]:
    """Yield names and values. *ago* is the age of the last snapshot."""
    yield "table", table.name
    for snapshot in table.snapshots[-1:] if len({_selection(each) for each in table.snapshots}) == 1 else ():
        yield "selection", _selection(snapshot)
    if table.last and table.rows is None:
        yield "dropped", "the table does not exist, or its columns have been changed"
    if table.rows is not None:
        yield "rows", f"{table.rows:,}{_changed(table)}"
    if table.last:
        yield "last export", f"{table.last.finished:%Y-%m-%d %H:%M} UTC, {ago}"
        yield from _counts(table)
    if len(table.snapshots) > 1:
        yield "exports", f"{len(table.snapshots):,}, the last of {_selection(table.snapshots[-1])}"
    if table.failure:
        at = f"{table.failure.finished:%Y-%m-%d %H:%M} UTC"
        yield "failed", f"{at}: {one_line(table.failure.error or 'no reason recorded')}"


def _changed(table: "ProfileTable") -> str:
    if not table.row_count_difference:
        return ""
    return f", {abs(table.row_count_difference):,} {'more' if table.row_count_difference > 0 else 'fewer'} than were exported"


def _counts(table: "ProfileTable") -> Iterator[tuple[str, str]]:
    for name, number, words in (
        ("rejects", sum(each.rejects for each in table.snapshots), "entries that are not profiles"),
        ("repaired", sum(each.repaired for each in table.snapshots), "profiles"),
    ):
        if number:
            yield name, f"{number:,} {words}; see _export_rejects for the original text"


def _selection(snapshot: "Snapshot") -> str:
    from mixpanel_export._database.ledger import UNKNOWN_PROJECT
    from mixpanel_export._database.profile_tables import StoredSelection

    if snapshot.project == UNKNOWN_PROJECT:
        return "imported from mixpanel_data"
    words = StoredSelection.parsed(snapshot.selection).words
    return f"{'profiles' if words else 'all profiles'} of project {snapshot.project}{words and f', {words}'}"


def export_again_command(table: "ProfileTable", db: str) -> str | None:
    """Return the command that exports the table's profiles again; None if one command cannot do that."""
    from mixpanel_export._database.ledger import UNKNOWN_PROJECT
    from mixpanel_export._database.profile_tables import StoredSelection

    latest = table.failure or table.last
    if latest is None or len({(each.project, each.selection) for each in (*table.snapshots, latest)}) > 1:
        return None
    if latest.project == UNKNOWN_PROJECT:
        return quoted([program(), "profiles", table.name, "--db", db, "--replace"])
    selection = StoredSelection.parsed(latest.selection)
    if selection.behaviors or selection.as_of_timestamp:
        return None  # `mpx profiles` has no option for these
    if selection.distinct_ids == ():
        return None  # all these people were forgotten; without --id, the command would export everyone
    words = [program(), "profiles", table.name, "--db", db, "--project-id", latest.project]
    words += ["--replace"] if table.rows is not None else []
    values = {
        "--where": selection.where,
        "--cohort": None if selection.cohort is None else str(selection.cohort),
        "--properties": None if selection.properties is None else event_words(selection.properties),
        "--group": selection.group,
    }
    for option, value in values.items():
        words += [option, value] if value else []
    for distinct_id in selection.distinct_ids or ():
        words += ["--id", distinct_id]
    if selection.include_all_users is not None:
        words.append("--include-all-users" if selection.include_all_users else "--no-include-all-users")
    return quoted(words)


def profiles_as_dict(table: "ProfileTable", db: str) -> dict[str, Any]:
    """Return the facts about a table for JSON."""
    return {
        "table": table.name,
        "rows": table.rows,
        "changed_rows": table.row_count_difference,
        "last_export": table.last and table.last.finished.replace(tzinfo=UTC).isoformat(),
        "snapshots": [
            {
                "project_id": each.project,
                "selection": each.selection,
                "exported_at": each.finished.replace(tzinfo=UTC).isoformat(),
                "rows": each.rows,
                "rejects": each.rejects,
                "repaired": each.repaired,
            }
            for each in table.snapshots
        ],
        "failure": table.failure
        and {
            "failed_at": table.failure.finished.replace(tzinfo=UTC).isoformat(),
            "error": table.failure.error,
        },
        "command": export_again_command(table, db),
    }
