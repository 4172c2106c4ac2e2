"""`mpx report`: writes an HTML page about a file."""

from pathlib import Path

import click

from mixpanel_export.cli.default_file import mention_other_default
from mixpanel_export.cli.open_database import open_read_only
from mixpanel_export.cli.options import db_argument, option, table_option, wait_option

EXAMPLES = """\b
Examples:
  mpx report --open
  mpx report app.duckdb --out app.html
  mpx report --out - | gzip > report.html.gz

Exit codes: 0 ok, 2 usage, 3 the extra is not installed, 4 no such file or table, 1 any other error.
"""


@click.command("report", short_help="Write an HTML page about a file's events and exports.", epilog=EXAMPLES)
@db_argument
@table_option
@option(
    "--out",
    section="Output",
    metavar="FILE",
    show_default="DB-report.html in this folder",
    help="File to write; - is standard output.",
)
@option("--open", "show", section="Output", is_flag=True, help="Open the page in a browser.")
@option(
    "--examples",
    section="Output",
    is_flag=True,
    help="Include values of properties, ids and lines, which may be personal data.",
)
@wait_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    db: str,
    table: str | None,
    out: str | None,
    show: bool,
    examples: bool,
    wait: float,
) -> None:
    """Write an HTML page about DB (default: MPX_DB, [defaults] db, mixpanel.duckdb).

    The page shows the status of each day, events and users over time, the properties, duplicates, rejected and
    repaired lines, the requests of the last export, all batches, and the number of profiles. It is a single file that
    works offline.

    The page always contains the names of events and properties. It contains values of properties and ids only with
    --examples. The command requires the extra report: pip install 'mpx-export[report]'.
    """
    from mixpanel_export._database.path import database_path
    from mixpanel_export._local.report import report_of

    mention_other_default(ctx)
    path = database_path(db)
    if show and out == "-":
        raise click.UsageError("--open requires a file, but --out - is standard output")
    with open_read_only(db, wait) as connection:
        report = report_of(connection, path, table, examples=examples)
    if out == "-":
        click.echo(report.html)
        return
    page = report.save(out or f"{path.stem}-report.html")
    click.echo(page)
    if show:
        click.launch(Path(page).absolute().as_uri())
