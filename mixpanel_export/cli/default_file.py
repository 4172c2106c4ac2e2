"""The default databases of `mpx` and of `Workspace`."""

import sys
import warnings
from pathlib import Path

import click
from click.core import ParameterSource

from mixpanel_export.cli.log import say


def say_database(ctx: click.Context) -> None:
    """On a terminal, print the file that the command uses if the user did not choose it. Mention another default file."""
    if ctx.get_parameter_source("db") is ParameterSource.DEFAULT and sys.stderr.isatty():
        say(f"Database: {ctx.params['db']}")
    mention_other_default(ctx)


def other_default_file(ctx: click.Context) -> Path | None:
    """Return the default file of `Workspace()`, if it exists and the user did not choose this command's file."""
    if ctx.get_parameter_source("db") is not ParameterSource.DEFAULT:
        return None
    return _default_file_of_python(ctx.params.get("account"), ctx.params.get("project_id"))


def mention_other_default(ctx: click.Context) -> None:
    """Print the default file of `Workspace()`, if it exists and the user did not choose this command's file."""
    other = other_default_file(ctx)
    if other is not None:
        say(f"{other} also exists: Python's Workspace() uses it. Set MPX_DB to use one file in both.")


def _default_file_of_python(account: str | None, project_id: str | None) -> Path | None:
    from mixpanel_export._compat import default_path
    from mixpanel_export._config.environment import home
    from mixpanel_export.credentials import resolve_credentials
    from mixpanel_export.errors import ConfigError

    if (folder := home()) is None or not (folder / ".mp" / "data").is_dir():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the warnings concern the secret, which is not used here
            project = resolve_credentials(account, project_id=project_id).project_id
        path = default_path(project)
    except ConfigError:
        return None
    return path if path.exists() else None
