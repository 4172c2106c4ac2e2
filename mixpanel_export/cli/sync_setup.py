"""`mpx sync --init`: asks for a table and its days, and writes them into the configuration file."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mixpanel_export._config.environment import cleaned
from mixpanel_export.cli import program
from mixpanel_export.cli.complete import DEFAULT_DB
from mixpanel_export.cli.event_names import names_in
from mixpanel_export.cli.report import quoted


def add_section(names: Sequence[str]) -> None:
    """Ask for the values of a section, and write the section. *names* contains the section's name if the user gave one.

    Raises:
        UsageError: There is no terminal, or *names* contains several names.
        ConfigError: The file cannot be read or written.
        DatabaseError: The answer for the DuckDB file is not a valid path.
    """
    from mixpanel_export._config.config_file import chosen_database, config_file
    from mixpanel_export._config.sync_sections import read_sync_sections
    from mixpanel_export._database.path import database_path
    from mixpanel_export._local.accounts import set_sync_section
    from mixpanel_export.credentials import read_accounts

    if len(names) > 1:
        raise click.UsageError("--init writes one section; specify at most one name")
    if not sys.stdin.isatty():
        raise click.UsageError(
            "--init asks questions and needs a terminal; add a [sync.NAME] section to the configuration file instead"
        )
    path = config_file()
    sections = read_sync_sections(path)
    default, accounts = read_accounts(path)
    name = names[0] if names else _ask("Name of the section", "events")
    if name in sections:
        click.confirm(f"{path} already has [sync.{name}]. Replace it?", abort=True, err=True)
    values: dict[str, Any] = {
        "account": _ask("Account", default, choices=sorted(accounts)) if accounts else None,
        "db": str(database_path(_ask("DuckDB file", chosen_database() or DEFAULT_DB)).absolute()),
        "table": _ask("Table", "events"),
        "events": names_in(_ask("Events, separated by commas (empty: all)", "")) or None,
        "since": _ask("First day", "-30d"),
        "lookback": int(
            click.prompt(
                "Number of recent days to refetch each time", default=5, type=click.IntRange(0), err=True
            )
        ),
        "profiles": click.confirm("Also replace the `profiles` table on each run?", err=True) or None,
    }
    set_sync_section(path, name, {key: value for key, value in values.items() if value is not None})
    click.echo(f"Wrote [sync.{name}] to {path}. To run it: `{quoted([program(), 'sync', name])}`.")
    if line := _crontab_line(name):
        click.echo(f"To run it every day at 06:00, add this line with `crontab -e`:\n{line}")


def _crontab_line(name: str) -> str | None:
    """Return the line for a crontab; None if the path of `mpx` is unknown.

    The line has absolute paths, because cron runs commands in a different folder and with a different PATH.
    """
    script = Path(sys.argv[0])
    program_file = script if script.stem == "mpx" and script.is_file() else shutil.which("mpx")
    if program_file is None:
        return None
    words = quoted([str(Path(program_file).absolute()), "sync", name])
    return f"0 6 * * * {words}".replace("%", r"\%")  # in a crontab, % is a line break


def _ask(question: str, default: str, choices: Sequence[str] = ()) -> str:
    kind = click.Choice(choices) if choices else None
    shown = (
        None if choices and not default else default
    )  # without a default account, the user must choose one
    return cleaned(
        str(click.prompt(question, default=shown, show_default=bool(default), type=kind, err=True))
    )
