"""`mpx accounts`: who exports, kept in the configuration file. No secret is ever an argument or printed."""

import sys
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from pathlib import Path

import click

from mixpanel_export._environment import variable
from mixpanel_export.cli import complete, print_json, program
from mixpanel_export.cli.options import api_url_option
from mixpanel_export.cli.report import quoted

EXAMPLES = """\b
Examples:
  mpx accounts add main --username svc.ab12cd.mp-service-account --project-id 12345
  mpx accounts test main
  mpx accounts list

\b
The file is MP_CONFIG_PATH, else ~/.mp/config.toml; what else is in it stays. MP_USERNAME and MP_SECRET go
before its default account, and --account NAME goes before both.
"""

ADD_EXAMPLES = """\b
Examples:
  mpx accounts add main --username svc.ab12cd.mp-service-account --project-id 12345
  mpx accounts add eu --username svc.ab12cd.mp-service-account --project-id 678 --region eu --secret-stdin

\b
The secret is asked for without showing it, read from MP_SECRET if that is set, or with --secret-stdin from
standard input: `pass show mixpanel | mpx accounts add main --secret-stdin`. The account is not tried: see `mpx accounts test`.
"""

TEST_EXAMPLES = """\b
Examples:
  mpx accounts test
  mpx accounts test eu --json

\b
Mixpanel is asked for one event of yesterday. That takes one of the hour's requests if the account is accepted,
and none if it is refused. Exit codes: 0 accepted, 3 refused, 5 no request left to tell, 1 anything else.
"""


@click.group("accounts", short_help="Keep service accounts in a file.", epilog=EXAMPLES)
def command() -> None:
    """Keep service accounts, each with its project and region, in the configuration file."""


@command.command("list", short_help="List the accounts.", epilog="\b\nExample:\n  mpx accounts list --json\n")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def list_accounts(*, as_json: bool) -> None:
    """List the accounts, the default with a star. Secrets are not shown."""
    from mixpanel_export.credentials import config_file, read_accounts

    path = config_file()
    default, accounts = read_accounts(path)
    if as_json:
        print_json([_as_dict(name, entry, default=name == default) for name, entry in accounts.items()])
    elif accounts:
        click.echo("\n".join(_lines(default, accounts)))
    else:
        click.echo(f"There are no accounts in {path}; `{_command('add', 'NAME')}` adds one.", err=True)
    if any(map(variable, ("MP_USERNAME", "MP_SECRET"))):
        click.echo("MP_USERNAME or MP_SECRET is set and goes before the default account.", err=True)


def _as_dict(name: str, entry: Mapping[str, str], *, default: bool) -> dict[str, object]:
    return {
        "name": name,
        "username": entry.get("username") or None,
        "project_id": entry.get("project_id") or None,
        "region": entry.get("region", "").lower() or "us",
        "project_timezone": entry.get("project_timezone") or None,
        "default": default,
    }


def _lines(default: str, accounts: Mapping[str, Mapping[str, str]]) -> list[str]:
    head = ["", "account", "user name", "project", "region", "time zone"]
    rows = [head]
    for name, entry in accounts.items():
        shown = _as_dict(name, entry, default=False)
        cells = [
            shown["username"] or "(project secret)",
            shown["project_id"],
            shown["region"],
            shown["project_timezone"],
        ]
        rows.append(["*" if name == default else "", name, *(str(cell or "") for cell in cells)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


@command.command("add", short_help="Add or replace an account.", epilog=ADD_EXAMPLES)
@click.argument("name")
@click.option("--username", envvar="MP_USERNAME", metavar="NAME", help="Of the service account; MP_USERNAME.")
@click.option(
    "--project-id", envvar="MP_PROJECT_ID", metavar="ID", help="The project's number; MP_PROJECT_ID."
)
@click.option(
    "--region",
    type=click.Choice(["us", "eu", "in"], case_sensitive=False),
    envvar="MP_REGION",
    default="us",
    help="Where the project's data is kept; MP_REGION.",
)
@click.option(
    "--project-timezone",
    envvar="MPX_PROJECT_TIMEZONE",
    metavar="ZONE",
    help="Zone of a project whose times are local, such as US/Pacific; MPX_PROJECT_TIMEZONE.",
)
@click.option("--secret-stdin", is_flag=True, help="Read the secret from standard input.")
@click.option("--replace", is_flag=True, help="Overwrite an account of that name.")
@click.option("--default", is_flag=True, help="Make it the default account; the first one is.")
def add(
    *,
    name: str,
    username: str | None,
    project_id: str | None,
    region: str,
    project_timezone: str | None,
    secret_stdin: bool,
    replace: bool,
    default: bool,
) -> None:
    """Add the service account NAME to the file, which only its owner may read then."""
    from mixpanel_export._config_file import add_account, check_new
    from mixpanel_export.credentials import Credentials, config_file

    path = config_file()
    check_new(path, name, replace=replace)  # before anything is asked
    username = username or _asked("User name of the service account", "--username")
    project_id = project_id or _asked("Project id", "--project-id")
    credentials = Credentials(
        username.strip(),
        _secret(from_stdin=secret_stdin),
        project_id.strip(),
        region.lower(),
        project_timezone or None,
    )
    is_default = add_account(path, name, credentials, replace=replace, default=default)
    what = f"project {credentials.project_id}, {credentials.region}" + (", the default" if is_default else "")
    click.echo(f"{name} ({what}) is in {path}; `{_command('test', name)}` tries it.")


def _command(*words: str) -> str:
    return quoted([program(), "accounts", *words])


def _asked(what: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{option} is missing, and there is no terminal to ask on")
    return str(click.prompt(what, err=True))


def _secret(*, from_stdin: bool) -> str:
    from mixpanel_export.credentials import cleaned_secret

    secret = variable("MP_SECRET")
    if secret and not from_stdin:
        click.echo("The secret is that of MP_SECRET.", err=True)
        return cleaned_secret(secret)
    if sys.stdin.isatty():
        return cleaned_secret(click.prompt("Secret (not shown)", hide_input=True, err=True))
    if from_stdin:
        return cleaned_secret(_first_line(sys.stdin.buffer.read()))
    raise click.UsageError(
        "the secret is missing, and there is no terminal to ask on; use --secret-stdin or MP_SECRET"
    )


def _first_line(content: bytes) -> str:
    """Return the first line of a secret's file; PowerShell writes UTF-16 with a byte order mark."""
    encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    return content.decode(encoding, "surrogateescape" if encoding != "utf-16" else "replace").partition("\n")[
        0
    ]


@command.command("test", short_help="Ask Mixpanel whether it accepts an account.", epilog=TEST_EXAMPLES)
@click.argument("name", required=False, shell_complete=complete.accounts)
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@api_url_option
def test(*, name: str | None, as_json: bool, api_url: str | None) -> None:
    """Ask Mixpanel whether it accepts the account NAME; without one, what an export would use."""
    from mixpanel_export.cli.watch import messages
    from mixpanel_export.workspace import Workspace

    with messages(quiet=False, verbose=False):
        found = Workspace.test_credentials(name, api_url=api_url)
    if as_json:
        print_json(found)
        return
    who = f"account {found['account']}" if found["account"] else "the account of the environment"
    seen = "yesterday has events" if found["events_found"] else "yesterday has no events"
    click.echo(f"Mixpanel accepts {who}: project {found['project_id']}, {found['region']}; {seen} (UTC).")


@command.command(
    "remove", short_help="Remove an account.", epilog="\b\nExample:\n  mpx accounts remove old --yes\n"
)
@click.argument("name", shell_complete=complete.accounts)
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(*, name: str, yes: bool) -> None:
    """Remove the account NAME from the file; Mixpanel shows a secret only once, so keep it elsewhere."""
    from mixpanel_export._config_file import check_known, remove_account
    from mixpanel_export.credentials import config_file

    path = config_file()
    check_known(path, name)
    if not yes:
        _confirm(name, path)
    if remove_account(path, name):
        click.echo(
            f"{name} is removed. It was the default, and now none is: `{_command('default', 'NAME')}` makes one."
        )
    else:
        click.echo(f"{name} is removed.")


def _confirm(name: str, path: Path) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; use --yes")
    click.confirm(f"Remove {name} and its secret from {path}?", abort=True, err=True)


@command.command(
    "default",
    short_help="Choose or name the default account.",
    epilog="\b\nExamples:\n  mpx accounts default\n  mpx accounts default eu\n",
)
@click.argument("name", required=False, shell_complete=complete.accounts)
def default_account(*, name: str | None) -> None:
    """Make NAME the default account; without one, say which it is."""
    from mixpanel_export._config_file import set_default
    from mixpanel_export.credentials import config_file, read_accounts
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
