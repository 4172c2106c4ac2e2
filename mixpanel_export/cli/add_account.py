"""`mpx accounts add`: asks for missing values, tests the account, and stores it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as with_changes
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixpanel_export.cli import in_options, program
from mixpanel_export.cli.account_questions import (
    REGIONS,
    checked_project_id,
    checked_username,
    prompt,
    prompt_region,
    prompt_secret,
    prompt_zone,
    secret_from_input,
)
from mixpanel_export.cli.options import api_url_option, option
from mixpanel_export.cli.report import quoted

if TYPE_CHECKING:
    from mixpanel_export.credentials import Credentials
    from mixpanel_export.errors import MixpanelDataError

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

_SAMPLE = 100  # number of yesterday's events that are checked for times in UTC
_MAX_ATTEMPTS = 3  # maximum number of requests that test an account
_FORBIDDEN = 403  # Mixpanel's status if the account cannot access the project


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
    callback=_checking(checked_username),
    help="User name of the service account.",
)
@option(
    "--project-id",
    envvar="MP_PROJECT_ID",
    metavar="ID",
    show_envvar=True,
    callback=_checking(checked_project_id),
    help="Number of the project.",
)
@option(
    "--region",
    type=REGIONS,
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
@click.option(
    "--keyring", is_flag=True, help="Store the secret in the system's keyring (needs the `keyring` extra)."
)
@click.option("--replace", is_flag=True, help="Replace the account if it already exists.")
@click.option(
    "--default", is_flag=True, help="Make this the default account. The first account is always the default."
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
    """Add a service account to the configuration file, and make the file readable only by its owner.

    Other commands use the account if --account NAME is given.
    """
    from mixpanel_export._config.config_file import config_file
    from mixpanel_export._local.accounts import add_account
    from mixpanel_export.credentials import Credentials

    path = config_file()
    name = _checked_name(path, name, replace=replace)  # before any other prompt
    username = username or prompt("User name of the service account", "--username", checked_username)
    secret = secret_from_input(from_stdin=secret_stdin)
    typed = _TypedAnswers(secret is None, region is None, project_timezone is None)
    credentials = Credentials(
        username,
        prompt_secret() if secret is None else secret,
        project_id or prompt("Project id", "--project-id", checked_project_id),
        (region or prompt_region()).lower(),
        project_timezone or prompt_zone(),
    )
    test_result = ""
    if not no_test:
        credentials, test_result = _test_until_accepted(credentials, api_url, typed)
    is_default = add_account(path, name, credentials, replace=replace, default=default, keyring=keyring)
    _offer_defaults(path)
    facts = f"project {credentials.project_id}, {credentials.region}" + (
        ", the default" if is_default else ""
    )
    click.echo(f"Added {name} ({facts}) to {path}. {test_result or _advice(name)}")
    if api_url:
        click.echo(f"{api_url} is not stored; the account is used with it only while MPX_API_URL is set.")
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
        return prompt("Name for the account", "NAME", check, default=None if taken else "main")
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


@dataclass(frozen=True, slots=True)
class _TypedAnswers:
    """For each answer, whether the user typed it on the terminal. Only typed answers can be asked for again."""

    secret: bool
    region: bool
    zone: bool


def _test_until_accepted(
    credentials: "Credentials", api_url: str | None, typed: _TypedAnswers
) -> tuple["Credentials", str]:
    """Test the account. Return the accepted credentials, and the result of the test as a sentence.

    If Mixpanel rejects the account, the user is asked again, at most twice, for an answer that may be wrong.

    Raises:
        AuthenticationError, ConfigError: See `_test`.
    """
    from mixpanel_export.errors import AuthenticationError, ConfigError

    for _ in range(_MAX_ATTEMPTS - 1):
        try:
            return credentials, _test(credentials, api_url)
        except (AuthenticationError, ConfigError) as error:
            credentials = _ask_again(error, credentials, typed)
    return credentials, _test(credentials, api_url)


def _ask_again(error: "MixpanelDataError", credentials: "Credentials", typed: _TypedAnswers) -> "Credentials":
    """Report *error* and ask again for the answer that is probably wrong. Return the corrected credentials.

    If Mixpanel does not accept the account, the region is asked for, and then the secret if the region stays the same.
    Values that come from an option or the environment are not asked for.

    Raises:
        MixpanelDataError: *error*, if that answer was not typed on the terminal.
    """
    from mixpanel_export.errors import AuthenticationError

    is_rejected = isinstance(error, AuthenticationError)
    is_forbidden = isinstance(error, AuthenticationError) and error.status_code == _FORBIDDEN
    is_zone = error.argument == "project_timezone" and typed.zone
    may_ask = is_forbidden or typed.secret or typed.region if is_rejected else is_zone
    if not (may_ask and sys.stdin.isatty()):
        raise error
    click.echo(f"Error: {in_options(error, days=False)}", err=True)
    if not is_rejected:
        return with_changes(credentials, project_timezone=prompt_zone())
    if is_forbidden:
        project_id = prompt("Project id again", "--project-id", checked_project_id)
        return with_changes(credentials, project_id=project_id)
    region = prompt_region(credentials.region) if typed.region else credentials.region
    if typed.secret and region == credentials.region:
        return with_changes(credentials, secret=prompt_secret("Secret again (not shown)"))
    return with_changes(credentials, region=region)


def _test(credentials: "Credentials", api_url: str | None) -> str:
    """Test the account once. Return the result as a sentence.

    Raises:
        AuthenticationError: Mixpanel does not accept the account, or the account cannot access the project (403).
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
        click.echo(f'[defaults] in {path} now has parallel = true and mode = "resume".')
