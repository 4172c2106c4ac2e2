"""Code that all `mpx mp` commands share: the options before the command, groups, and the workspace."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixpanel_export._error_base import ARGUMENTS
from mixpanel_export.cli import option_of
from mixpanel_export.cli.mp.missing import missing_command
from mixpanel_export.cli.options import option

if TYPE_CHECKING:
    from mixpanel_export.workspace import Workspace

_ONLY_IN_EXPORT = ARGUMENTS - {
    "append", "chunk_days", "events", "force", "from_date", "limit", "max_workers", "parallel", "path", "replace",
    "to_date", "where",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """The options before the command."""

    account: str | None = None
    db: Path | None = None
    quiet: bool = False
    verbose: bool = False


class Group(click.Group):
    """A command group of `mp`. A command without a counterpart prints an alternative."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        group = "" if self.name == "mp" else self.name or ""
        return super().get_command(ctx, cmd_name) or missing_command(group, cmd_name)


def settings_of(ctx: click.Context) -> Settings:
    """Return the options before the command."""
    return ctx.ensure_object(Settings)


def db_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--db`, which overrides a `--db` before the command."""
    return option(
        "--db",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        show_default="MPX_DB, or ~/.mp/data/PROJECT.db",
        expose_value=False,
        callback=_set_db,
        help="DuckDB file.",
    )(command)


def _set_db(ctx: click.Context, _parameter: click.Parameter, db: Path | None) -> None:
    if db is not None:
        ctx.obj = replace(settings_of(ctx), db=db)


def workspace_of(ctx: click.Context, *, read_only: bool = True) -> "Workspace":
    """Return the workspace that the options select, and print its file."""
    from mixpanel_export.workspace import Workspace

    settings = settings_of(ctx)
    workspace = Workspace(settings.account, path=settings.db, read_only=read_only)
    if not settings.quiet:
        click.echo(f"Database: {workspace.db_path}", err=True)
    return workspace


def option_in_mp(argument: str) -> str:
    """Return the `mpx mp` option for a Python *argument*, or the `mpx export` option if `mp` has none."""
    option = option_of(argument)
    return f"{option} of `mpx export`" if argument in _ONLY_IN_EXPORT else option
