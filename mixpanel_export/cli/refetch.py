"""The commands that fetch days again. Every command that reports changed or wrong days suggests the same ones."""

from collections.abc import Iterable, Iterator
from datetime import date
from typing import TYPE_CHECKING

from mixpanel_export.cli import program
from mixpanel_export.cli.report import export_command, quoted

if TYPE_CHECKING:
    from mixpanel_export._database.coverage import Coverage
    from mixpanel_export._model import Chunk


def command_for(coverage: "Coverage", db: str, days: "Chunk", mode: str = "--resume") -> str:
    """Return the command that fetches *days*, with the options from `Coverage.options_for`."""
    options = coverage.options_for(days)
    return export_command(
        coverage.table,
        days,
        db,
        coverage.selection,
        zone=options.zone,
        deduped=options.deduplicated,
        mode=mode,
    )


def refetch_command(coverage: "Coverage", db: str, days: "Chunk") -> str:
    """Return the command that replaces the rows of *days*, which must be whole batches."""
    return command_for(coverage, db, days, "--append")


def refetch_commands(coverage: "Coverage", db: str, days: Iterable[date]) -> Iterator[str]:
    """Yield the commands that replace the rows of *days*, and of the other days of their batches."""
    for each in coverage.with_whole_batches(days):
        yield refetch_command(coverage, db, each)


def unknown_rows_line(table: str, number: int) -> str:
    """Return the line before `doctor_command`, for a table with rows of no batch. An export does not replace these rows."""
    return f"Table {table} has {number:,} rows that do not belong to a batch, so events may be duplicated. For advice:"


def doctor_command(db: str) -> str:
    """Return the command that finds problems in a file."""
    return quoted([program(), "doctor", db])
