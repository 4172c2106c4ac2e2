"""`mpx accounts add`: asks for missing values, tests the account, and stores it."""

import sys
from collections.abc import Callable
from dataclasses import replace as with_changes
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixpanel_export._config.environment import decoded, variable
from mixpanel_export.cli import in_options, program
from mixpanel_export.cli.options import api_url_option, option
from mixpanel_export.cli.report import quoted

if TYPE_CHECKING:
    from mixpanel_export.credentials import Credentials

EXAMPLES = """\b
Examples:
  mpx accounts add
  mpx accounts add main --username svc.ab12cd.mp-service-account --project-id 12345
  mpx accounts add eu --username svc.ab12cd.mp-service-account --project-id 678 --region eu --secret-stdin

On a terminal, the command asks for values that were not passed as options. The secret is read from MP_SECRET or the
file MP_SECRET_FILE if one of them is set, or else from a hidden prompt. With --secret-stdin, it is read from standard input:
`pass show mixpanel | mpx accounts add main --secret-stdin`.

The account is tested with one request, which counts against the hourly quota if Mixpanel accepts the account. If
Mixpanel rejects it, nothing is stored. If it cannot be tested now, it is stored anyway.
"""

_REGIONS = click.Choice(["us", "eu", "in"], case_sensitive=False)
_SAMPLE = 100  # number of yesterday's events that are checked for times in UTC
_MAX_ATTEMPTS = 3  # maximum number of requests that test an account
_FORBIDDEN = 403  # the status if the account has no access to the project


def _username(text: str) -> str:
    """Return the user name. Raises `click.BadParameter` if it is not valid."""
    name = text.strip()
    if not name or ":" in name:
        raise click.BadParameter("a user name must not be empty or contain a colon")
    return name


def _project_id(text: str) -> str:
    """Return the project id. Raises `click.BadParameter` if it is not a number."""
    number = text.strip()
    if not (number.isascii() and number.isdecimal()):
        raise click.BadParameter(f"{number!r} is not a project id; use a number such as 12345")
    return number


def _checking(
    check: Callable[[str], str],
) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Return a callback that checks an option's value with *check*."""

    def callback(_ctx: click.Context, _option: click.Parameter, value: str | None) -> str | None:
        return None if value is None else check(value)

    return callback


@click.command("add", short_help="Add or replace an account.", epilog=EXAMPLES)
@click.argument("name", required=False)
@option(
    "--username",
    envvar="MP_USERNAME",
    metavar="NAME",
    show_envvar=True,
    callback=_checking(_username),
    help="User name of the service account.",
)
@option(
    "--project-id",
    envvar="MP_PROJECT_ID",
    metavar="ID",
    show_envvar=True,
    callback=_checking(_project_id),
    help="Number of the project.",
)
@option(
    "--region",
    type=_REGIONS,
    envvar="MP_REGION",
    show_envvar=True,
    show_default="us",
    help="Region of the project's data.",
)
@option(
    "--project-timezone",
    envvar="MPX_PROJECT_TIMEZONE",
    metavar="ZONE",
    show_envvar=True,
    help="Time zone of a project created before 2023, whose times are local, such as US/Pacific.",
)
@click.option("--secret-stdin", is_flag=True, help="Read the secret from standard input.")
@click.option("--keyring", is_flag=True, help="Store the secret in the system's keyring (extra `keyring`).")
@click.option("--replace", is_flag=True, help="Replace the account if it already exists.")
@click.option(
    "--default", is_flag=True, help="Make it the default account. The first account is always the default."
)
@click.option("--no-test", is_flag=True, help="Do not test the account.")
@api_url_option
def add(
    *,
    name: str | None,
    username: str | None,
    project_id: str | None,
    region: str | None,
    project_timezone: str | None,
    secret_stdin: bool,
    keyring: bool,
    replace: bool,
    default: bool,
    no_test: bool,
    api_url: str | None,
) -> None:
    """Add a service account to the configuration file, which only its owner can then read. NAME is the name for --account."""
    from mixpanel_export._config.config_file import config_file
    from mixpanel_export._local.accounts import add_account
    from mixpanel_export.credentials import Credentials

    path = config_file()
    name = _checked_name(path, name, replace=replace)  # before any other prompt
    username = username or _prompt("User name of the service account", "--username", _username)
    project_id = project_id or _prompt("Project id", "--project-id", _project_id)
    secret = _secret(from_stdin=secret_stdin)
    credentials = Credentials(
        username,
        _typed_secret() if secret is None else secret,
        project_id,
        (region or _asked_region()).lower(),
        project_timezone or _asked_zone(),
    )
    tried = ""
    if not no_test:
        credentials, tried = _tried(credentials, api_url, secret_typed=secret is None)
    is_default = add_account(path, name, credentials, replace=replace, default=default, keyring=keyring)
    facts = f"project {credentials.project_id}, {credentials.region}" + (
        ", the default" if is_default else ""
    )
    click.echo(f"Added {name} ({facts}) to {path}. {tried or _advice(name)}")
    _offer_defaults(path)
    account = [] if is_default else ["--account", name]
    click.echo(f"Next: {quoted([program(), 'export', *account, '--from', 'yesterday'])}")


def _advice(name: str) -> str:
    return f"To test it: `{quoted([program(), 'accounts', 'test', name])}`."


def _checked_name(path: Path, name: str | None, *, replace: bool) -> str:
    """Return the account's name. If it is None, ask for it.

    Raises:
        AccountExistsError, ConfigError: See `check_new`.
    """
    from mixpanel_export._local.accounts import check_new
    from mixpanel_export.credentials import read_accounts

    if name is None:
        taken = "main" in read_accounts(path)[1]
        check = partial(_new_name, path, replace=replace)
        return _prompt("Name for the account", "NAME", check, default=None if taken else "main")
    check_new(path, name, replace=replace)
    return name


def _new_name(path: Path, text: str, *, replace: bool) -> str:
    from mixpanel_export._local.accounts import check_new
    from mixpanel_export.errors import AccountExistsError, ConfigError

    try:
        check_new(path, text, replace=replace)
    except (AccountExistsError, ConfigError) as error:
        raise click.BadParameter(in_options(error)) from error
    return text


def _prompt(text: str, option: str, check: Callable[[str], str], default: str | None = None) -> str:
    """Ask on the terminal until *check* accepts the answer."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{option} is missing, and there is no terminal for a prompt")
    return str(click.prompt(text, default=default, value_proc=check, err=True))


def _typed_secret(text: str = "Secret (not shown)") -> str:
    from mixpanel_export._config.masking import cleaned_secret

    def check(answer: str) -> str:
        secret = cleaned_secret(answer)
        if not secret:
            raise click.BadParameter("the secret is empty")
        return secret

    return cleaned_secret(click.prompt(text, hide_input=True, value_proc=check, err=True))


def _secret(*, from_stdin: bool) -> str | None:
    """Return the secret from the environment or standard input; None if it must be typed on the terminal."""
    from mixpanel_export._config.masking import cleaned_secret
    from mixpanel_export._config.secret_variable import secret_variable

    secret = secret_variable()
    if secret and not from_stdin:
        name = "MP_SECRET" if variable("MP_SECRET") else "MP_SECRET_FILE"
        click.echo(f"Using the secret in {name}.", err=True)
        return secret
    if sys.stdin.isatty():
        return None
    if from_stdin:
        return cleaned_secret(_first_line(sys.stdin.buffer.read()))
    raise click.UsageError(
        "the secret is missing, and there is no terminal for a prompt; use --secret-stdin or MP_SECRET"
    )


def _first_line(content: bytes) -> str:
    try:
        return decoded(content).partition("\n")[0]
    except UnicodeDecodeError as error:
        raise click.UsageError("the secret on standard input is not text in UTF-8") from error


def _asked_region() -> str:
    if not sys.stdin.isatty():
        return "us"
    return str(click.prompt("Region of the project's data", type=_REGIONS, default="us", err=True))


def _asked_zone() -> str | None:
    """Ask for the time zone of a legacy project, whose times are local. Return None for other projects."""
    if not sys.stdin.isatty() or not click.confirm("Was the project created before 2023?", err=True):
        return None
    return str(click.prompt("Its time zone, such as US/Pacific, or UTC", value_proc=_zone, err=True))


def _zone(text: str) -> str:
    from mixpanel_export._timezones import checked_zone

    try:
        return checked_zone(text.strip())
    except ValueError as error:
        raise click.BadParameter(f"there is no time zone {text!r}") from error


def _tried(
    credentials: "Credentials", api_url: str | None, *, secret_typed: bool
) -> tuple["Credentials", str]:
    """Test the account, and return the accepted credentials and the result as a sentence.

    If Mixpanel rejects the account, the user is asked for the project id or the secret again, at most twice. A secret
    that was not typed is not asked for.

    Raises:
        AuthenticationError, ConfigError: See `_try`.
    """
    from mixpanel_export.errors import AuthenticationError

    for _ in range(_MAX_ATTEMPTS - 1):
        try:
            return credentials, _try(credentials, api_url)
        except AuthenticationError as error:
            wrong_project = error.status_code == _FORBIDDEN
            if not (sys.stdin.isatty() if wrong_project else secret_typed):
                raise
            click.echo(f"Error: {in_options(error, days=False)}", err=True)
        if wrong_project:
            project_id = _prompt("Project id again", "--project-id", _project_id)
            credentials = with_changes(credentials, project_id=project_id)
        else:
            credentials = with_changes(credentials, secret=_typed_secret("Secret again (not shown)"))
    return credentials, _try(credentials, api_url)


def _try(credentials: "Credentials", api_url: str | None) -> str:
    """Test the account, and return the result as a sentence.

    Raises:
        AuthenticationError: Mixpanel does not accept the account, or the account has no access to the project (403).
        ConfigError: The account has a time zone, but the project's times are in UTC.
    """
    from mixpanel_export._source.check import check_credentials
    from mixpanel_export.errors import APIError, AuthenticationError
    from mixpanel_export.sync import run_sync

    try:
        events = run_sync(check_credentials, credentials, limit=_SAMPLE, api_url=api_url)
    except AuthenticationError:
        raise
    except APIError as error:
        if error.status_code == _FORBIDDEN:
            raise AuthenticationError(
                f"the account has no access to project {credentials.project_id}",
                advice="check $project_id, and the account's role in the project",
                status_code=_FORBIDDEN,
                response_body=error.response_body,
            ) from error
        return f"It could not be tested: {in_options(error)}."
    _check_zone(credentials.project_timezone, events)
    return f"Mixpanel accepts it; yesterday (UTC) has {'events' if events else 'no events'}."


def _check_zone(zone: str | None, events: list[bytes]) -> None:
    from mixpanel_export._timezones import in_zone, times_are_utc
    from mixpanel_export.errors import ConfigError

    if zone and in_zone(datetime.now(UTC), zone).utcoffset() and times_are_utc(events):
        raise ConfigError(
            f"the times of the project's events are in UTC, so the time zone {zone} would shift them",
            advice="leave out $project_timezone",
            argument="project_timezone",
        )


def _offer_defaults(path: Path) -> None:
    """Offer to add `parallel` and `mode` to `[defaults]`, unless the file already sets them."""
    from mixpanel_export._config.config_file import read_defaults
    from mixpanel_export._local.accounts import set_defaults

    defaults = read_defaults(path)
    if not sys.stdin.isatty() or defaults.parallel is not None or defaults.mode is not None:
        return
    question = "Should every export run with --parallel --resume by default?"
    if click.confirm(question, default=True, err=True):
        set_defaults(path, parallel=True, mode="resume")
        click.echo(f'[defaults] in {path} has parallel = true and mode = "resume".')
