"""The questions of `mpx accounts add`. A question is asked again until the answer is valid."""

import sys
from collections.abc import Callable

import click

from mixpanel_export._config.environment import decoded, variable

REGIONS = click.Choice(["us", "eu", "in"], case_sensitive=False)


def checked_username(text: str) -> str:
    """Return the user name without surrounding whitespace. Raises `click.BadParameter` if it is invalid."""
    name = text.strip()
    if not name or ":" in name:
        raise click.BadParameter("a user name must not be empty or contain a colon")
    return name


def checked_project_id(text: str) -> str:
    """Return the project id. Raises `click.BadParameter` if it is not a number."""
    number = text.strip()
    if not (number.isascii() and number.isdecimal()):
        raise click.BadParameter(f"{number!r} is not a project id; use a number such as 12345")
    return number


def prompt(text: str, option: str, check: Callable[[str], str], default: str | None = None) -> str:
    """Ask on the terminal until *check* accepts the answer."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{option} is missing, and there is no terminal for a prompt")
    return str(click.prompt(text, default=default, value_proc=check, err=True))


def prompt_secret(text: str = "Secret (not shown)") -> str:
    """Ask for the secret, which the terminal does not show."""
    from mixpanel_export._config.masking import cleaned_secret

    def check(answer: str) -> str:
        secret = cleaned_secret(answer)
        if not secret:
            raise click.BadParameter("the secret is empty")
        return secret

    return cleaned_secret(click.prompt(text, hide_input=True, value_proc=check, err=True))


def secret_from_input(*, from_stdin: bool) -> str | None:
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


def prompt_region(default: str = "us") -> str:
    """Ask for the region. Without a terminal, return *default*."""
    if not sys.stdin.isatty():
        return default
    return str(click.prompt("Region of the project's data", type=REGIONS, default=default, err=True))


def prompt_zone() -> str | None:
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
