"""`mpx accounts`: accounts in the configuration file. Secrets are never arguments and never printed."""

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from mixpanel_export._config.environment import variable
from mixpanel_export.cli import SuggestingGroup, complete, print_json, program
from mixpanel_export.cli.add_account import add
from mixpanel_export.cli.options import api_url_option
from mixpanel_export.cli.report import quoted

EXAMPLES = """\b
Examples:
  mpx accounts add main --username svc.ab12cd.mp-service-account --project-id 12345
  mpx accounts test main
  mpx accounts list

MP_CONFIG_PATH sets the path of the configuration file; the default is ~/.mp/config.toml. Other contents of the file are
preserved. MP_USERNAME and MP_SECRET take precedence over the default account, and --account NAME takes precedence over both.
"""

TEST_EXAMPLES = """\b
Examples:
  mpx accounts test
  mpx accounts test eu --json

The command requests one of yesterday's events. The request counts against the hourly quota only if Mixpanel accepts the
account.

\b
Exit codes:
  0  accepted
  3  not accepted
  5  not tested, because the quota is used up
  1  any other error
"""


@click.group(
    "accounts", cls=SuggestingGroup, short_help="Manage accounts in the configuration file.", epilog=EXAMPLES
)
def command() -> None:
    """Manage service accounts, each with its project and region, in the configuration file."""


command.add_command(add)


@command.command("list", short_help="List the accounts.", epilog="\b\nExample:\n  mpx accounts list --json\n")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_accounts(*, as_json: bool) -> None:
    """List the accounts, with a star next to the default. Secrets are not printed."""
    from mixpanel_export._config.config_file import config_file
    from mixpanel_export.credentials import read_accounts

    path = config_file()
    default, accounts = read_accounts(path)
    if as_json:
        print_json([_as_dict(name, entry, default=name == default) for name, entry in accounts.items()])
    elif accounts:
        click.echo("\n".join(_account_lines(default, accounts)))
    else:
        click.echo(f"{path} has no accounts; `{_command('add', 'NAME')}` adds one.", err=True)
    if any(map(variable, ("MP_USERNAME", "MP_SECRET", "MP_SECRET_FILE"))):
        click.echo("MP_USERNAME or MP_SECRET is set and takes precedence over the default account.", err=True)


def _as_dict(name: str, entry: Mapping[str, str], *, default: bool) -> dict[str, object]:
    return {
        "name": name,
        "username": entry.get("username") or None,
        "project_id": entry.get("project_id") or None,
        "region": entry.get("region", "").lower() or "us",
        "project_timezone": entry.get("project_timezone") or None,
        "default": default,
    }


def _account_lines(default: str, accounts: Mapping[str, Mapping[str, str]]) -> list[str]:
    head = ["", "account", "user name", "project", "region", "time zone"]
    rows = [head]
    for name, entry in accounts.items():
        values = _as_dict(name, entry, default=False)
        cells = [
            values["username"] or "(project secret)",
            values["project_id"],
            values["region"],
            values["project_timezone"],
        ]
        rows.append(["*" if name == default else "", name, *(str(cell or "") for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _command(*words: str) -> str:
    return quoted([program(), "accounts", *words])


@command.command("test", short_help="Test whether Mixpanel accepts an account.", epilog=TEST_EXAMPLES)
@click.argument("name", required=False, shell_complete=complete.accounts)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@api_url_option
def test(*, name: str | None, as_json: bool, api_url: str | None) -> None:
    """Test whether Mixpanel accepts the account NAME (default: the credentials that mpx export would use)."""
    from mixpanel_export.cli.watch import messages
    from mixpanel_export.workspace import Workspace

    with messages(quiet=False, verbose=False):
        result = Workspace.test_credentials(name, api_url=api_url)
    if as_json:
        print_json(result)
        return
    who = f"account {result['account']}" if result["account"] else "the credentials in the environment"
    events = "events" if result["events_found"] else "no events"
    click.echo(
        f"Mixpanel accepts {who}: project {result['project_id']}, {result['region']}; yesterday (UTC) has {events}."
    )


@command.command(
    "remove", short_help="Remove an account.", epilog="\b\nExample:\n  mpx accounts remove old --yes\n"
)
@click.argument("name", shell_complete=complete.accounts)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def remove(*, name: str, yes: bool) -> None:
    """Remove the account NAME and its secret from the configuration file. Mixpanel will not show the secret again."""
    from mixpanel_export._config.config_file import config_file
    from mixpanel_export._local.accounts import check_known, remove_account

    path = config_file()
    check_known(path, name)
    if not yes:
        _confirm(name, path)
    if remove_account(path, name):
        click.echo(
            f"Removed {name}, which was the default account. To set another: `{_command('default', 'NAME')}`."
        )
    else:
        click.echo(f"Removed {name}.")


def _confirm(name: str, path: Path) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal for a prompt; use --yes")
    click.confirm(f"Remove {name} and its secret from {path}?", abort=True, err=True)


@command.command(
    "default",
    short_help="Set or print the default account.",
    epilog="\b\nExamples:\n  mpx accounts default\n  mpx accounts default eu\n",
)
@click.argument("name", required=False, shell_complete=complete.accounts)
def default_account(*, name: str | None) -> None:
    """Make NAME the default account. Without NAME, print the default account."""
    from mixpanel_export._config.config_file import config_file
    from mixpanel_export._local.accounts import set_default
    from mixpanel_export.credentials import read_accounts
    from mixpanel_export.errors import ConfigError

    path = config_file()
    if name is not None:
        set_default(path, name)
        click.echo(f"{name} is the default account.")
        return
    default, _ = read_accounts(path)
    if not default:
        raise ConfigError(f"{path} has no default account", advice=f"`{_command('default', 'NAME')}` sets it")
    click.echo(default)
