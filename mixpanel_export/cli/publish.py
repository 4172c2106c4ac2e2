"""`mpx publish`: writes a table to a data set of Parquet files, and keeps the data set up to date."""

from functools import partial
from typing import TYPE_CHECKING

import click

from mixpanel_export.cli import Interrupted, complete, print_json, report_error
from mixpanel_export.cli.default_file import say_database
from mixpanel_export.cli.duration import parse_duration
from mixpanel_export.cli.help import SectionedCommand
from mixpanel_export.cli.log import log_event, log_format_option, logs_json
from mixpanel_export.cli.open_database import explained
from mixpanel_export.cli.options import db_option, option, wait_option
from mixpanel_export.cli.report import aligned
from mixpanel_export.cli.run_export import Output
from mixpanel_export.cli.status_json import publish_command
from mixpanel_export.cli.watch import messages
from mixpanel_export.errors import DatabaseLockedError, MixpanelDataError

if TYPE_CHECKING:
    from mixpanel_export.publication import CopyResult, PublishResult

EXAMPLES = """\b
Examples:
  mpx publish lake/events
  mpx publish lake/flat --flat --db app.duckdb
  mpx publish lake/profiles --table profiles
  mpx publish s3://bucket/events --format delta
  mpx publish dashboard.duckdb
  mpx publish lake/events --verify --json | jq '.different_days'

\b
To read the data set, in DuckDB:
  SELECT * FROM read_parquet('lake/events/*/*.parquet', hive_partitioning = true)
  SELECT * FROM 'lake/profiles/data.parquet'

\b
Exit codes:
  0  the data set equals the table
  1  a day differs from the table (--verify), or another error occurred
  2  wrong usage, or the data set at DEST has a different table or format
  3  the extra lake is not installed
  4  there is no such file or table
"""

_MAX_DAYS = 10  # days on one line


@click.command(
    "publish",
    cls=SectionedCommand,
    short_help="Keep a data set of Parquet files up to date with a table.",
    epilog=EXAMPLES,
)
@click.argument("destination", metavar="DEST", shell_complete=complete.files)
@option(
    "--table",
    section="What",
    metavar="NAME",
    show_default="the table that was published to DEST before, or events",
    shell_complete=complete.tables,
    help="Exported table or flat table to publish.",
)
@option("--flat", section="What", is_flag=True, help="Publish the flat table, which is updated first.")
@option(
    "--format",
    section="What",
    type=click.Choice(["parquet", "delta"]),
    show_default="the format of the data set at DEST, or parquet",
    help="Format of the data set; delta needs the extra lake.",
)
@option(
    "--overwrite",
    section="What",
    is_flag=True,
    help="Replace a data set that another database has published to DEST.",
)
@option(
    "--verify", section="What", is_flag=True, help="Read all files again and compare them with the table."
)
@option(
    "--prune-after",
    section="What",
    callback=parse_duration,
    default="7d",
    metavar="DURATION",
    help="Age at which files of old versions of a Delta table are deleted.",
)
@option("--endpoint", section="Connection", metavar="URL", help="Server of the object store.")
@option("--allow-http", section="Connection", is_flag=True, help="Allow connections without TLS.")
@db_option
@wait_option
@option("--json", "as_json", section="Output", is_flag=True, help="Print the result as JSON.")
@option("-q", "--quiet", section="Output", is_flag=True, help="Print only errors.")
@option("--no-progress", section="Output", is_flag=True, help="Hide the bar.")
@log_format_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    destination: str,
    table: str | None,
    flat: bool,
    format: str | None,  # noqa: A002 - the name of the option
    overwrite: bool,
    verify: bool,
    endpoint: str | None,
    allow_http: bool,
    prune_after: float,
    db: str,
    wait: float,
    as_json: bool,
    quiet: bool,
    no_progress: bool,
) -> None:
    """Write a table to DEST, one file for each UTC day. Later runs update the files.

    DEST is a folder, or a URL that begins with s3://, gs:// or az://. URLs need the extra lake: pip install
    'mpx-export[lake]'. Credentials and other settings come from the environment, such as AWS_ACCESS_KEY_ID, AWS_REGION and
    AWS_ENDPOINT_URL.

    The first run writes every day, for example to date=2024-01-31/data.parquet. Later runs write only the days that
    have changed, and delete days that the table no longer has. Rows without a time are in
    date=__HIVE_DEFAULT_PARTITION__. Each file is replaced atomically, but a query that reads several files during a run
    can see a mix of old and new days. With --format delta, the data set is a Delta table. Each run then changes it in
    one commit, so a query sees either the old or the new data set. If two runs overlap, one of them fails.

    The files have all columns of the table except export_batch. If the columns of a flat table change, all days are
    written again. A column named date is renamed to date_2, because readers add a column date from the folder names. polars
    reads properties as bytes, because it does not know Parquet's type JSON; cast the column to pl.String.

    A table of profiles has no days. All its rows are in data.parquet, which is replaced if the table has changed.

    If DEST ends with .duckdb, all tables are copied to a new file, which then replaces DEST in one step. Dashboards can read
    DEST while an export locks the database.

    After an interruption, each day has its old or its new file. The next run writes the remaining days.
    """
    from mixpanel_export._publish.publish import publish_table
    from mixpanel_export._publish.read_copy import is_database
    from mixpanel_export.progress import draw_days
    from mixpanel_export.sync import run_sync

    if is_database(destination):
        copy(ctx, destination, db, wait, as_json=as_json, quiet=quiet)
        return
    with messages(quiet=quiet, verbose=False), draw_days(enabled=not (quiet or no_progress)) as watch:
        if not quiet:
            say_database(ctx)
        publish = partial(publish_table, on_progress=watch, wait=wait)
        try:
            result = run_sync(
                publish,
                db,
                destination,
                table,
                format=format,
                flat=flat,
                overwrite=overwrite,
                verify=verify,
                endpoint=endpoint,
                allow_http=allow_http,
                prune_after=prune_after,
            )
        except DatabaseLockedError as error:
            raise explained(error, db, wait) from error
        except KeyboardInterrupt as interrupt:
            again = publish_command(destination, db)
            raise Interrupted(f"Interrupted; complete days are kept. To continue: {again}") from interrupt
    if as_json:
        print_json(result.to_dict())
    elif not quiet or result.different_days:
        click.echo("\n".join(aligned(summary(result))))
    ctx.exit(1 if result.different_days else 0)


def copy(ctx: click.Context, destination: str, db: str, wait: float, *, as_json: bool, quiet: bool) -> None:
    """Copy the database to a file, and print its size."""
    from mixpanel_export._publish.read_copy import copy_database
    from mixpanel_export.sync import run_sync

    if not quiet:
        say_database(ctx)
    try:
        result = run_sync(copy_database, db, destination, wait=wait)
    except DatabaseLockedError as error:
        raise explained(error, db, wait) from error
    if as_json:
        print_json(result.to_dict())
    elif not quiet:
        click.echo(copied(result))


def copied(result: "CopyResult") -> str:
    """Return a line about a read copy."""
    return f"copied  {result.tables:,} tables, {result.bytes_written / 1e6:,.1f} MB, to {result.destination}"


def publish_after_export(
    ctx: click.Context, db: str, destination: str | None, table: str, output: Output
) -> int:
    """Update the data set at *destination* after an export into *table*. None is no destination.

    Return the exit code: 1 if the update failed. A failure does not undo the export.
    """
    if destination is None:
        return 0
    from mixpanel_export._publish import publish
    from mixpanel_export._publish.read_copy import copy_database, is_database
    from mixpanel_export.progress import draw_days
    from mixpanel_export.sync import run_sync

    result: PublishResult | CopyResult
    try:
        if is_database(destination):
            result = run_sync(copy_database, db, destination)
            words = copied(result)
        else:
            with draw_days(enabled=not (output.quiet or output.no_progress)) as watch:
                publish_exported = partial(publish.publish_after_export, on_progress=watch)
                result = run_sync(publish_exported, db, destination, table)
            words = "\n".join(aligned(summary(result)))
    except (MixpanelDataError, ValueError, OSError) as error:
        report_error(ctx, error, f"Table {table} is exported, but not published")
        return 1
    except KeyboardInterrupt as interrupt:
        again = publish_command(destination, db, table)
        raise Interrupted(f"Interrupted; table {table} is exported. To publish it: {again}") from interrupt
    if logs_json() and not output.quiet:
        log_event("published", **result.to_dict())
    elif not (output.quiet or output.as_json):
        click.echo(words)
    return 0


def summary(result: "PublishResult") -> list[tuple[str, str]]:
    """Return titles and values that describe the result."""
    rows = [
        ("published", f"{result.table} to {result.destination}, {result.format}"),
        ("data set", f"{result.rows:,} rows" + (f" in {result.days:,} days" if result.by_day else "")),
        ("written", _written(result)),
    ]
    if result.removed_days:
        rows.append(("removed", _list(result.removed_days)))
    if result.different_days is not None:
        days = f", these days differ: {_list(result.different_days)}" if result.by_day else ""
        different = f"no{days}; to write them again, run mpx publish again"
        rows.append(("verified", different if result.different_days else "yes"))
    return rows


def _written(result: "PublishResult") -> str:
    if not result.written_days:
        return f"nothing, because {'no day' if result.by_day else 'nothing'} has changed"
    days = f"{len(result.written_days):,} days, " if result.by_day else ""
    return f"{days}{result.bytes_written / 1e6:,.1f} MB"


def _list(days: tuple[str, ...]) -> str:
    more = f" and {len(days) - _MAX_DAYS:,} more" if len(days) > _MAX_DAYS else ""
    return ", ".join(days[:_MAX_DAYS]) + more
