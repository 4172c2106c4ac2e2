"""Shell completion for accounts, files and tables. On any error it offers nothing.

The help of an item has no commas, because click's script for fish cuts it there.
"""

from pathlib import Path

import click
from click.shell_completion import CompletionItem

DEFAULT_DB = "mixpanel.duckdb"
"""The database that a command uses if none is given."""


def accounts(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the accounts in the configuration file, with project and region as help."""
    from mixpanel_export._config.config_file import config_file
    from mixpanel_export.credentials import read_accounts
    from mixpanel_export.errors import ConfigError

    try:
        _, entries = read_accounts(config_file())
    except ConfigError:
        return []
    return [
        CompletionItem(name, help=f"project {entry.get('project_id', '')} in {entry.get('region') or 'us'}")
        for name, entry in entries.items()
        if name.startswith(incomplete)
    ]


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the files that the shell offers."""
    return [CompletionItem(incomplete, type="file")]


def tables(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the tables of the database, unless another process holds it."""
    from mixpanel_export._config.config_file import chosen_database
    from mixpanel_export.errors import MixpanelDataError
    from mixpanel_export.workspace import Workspace

    # While an option lacks its value, click has not parsed the arguments, so they are still in `ctx.args`, and the first
    # may be the database.
    named = next(iter(ctx.args), None) or ctx.params.get("db")
    try:
        path = Path(named or chosen_database() or DEFAULT_DB)
        with Workspace(path=path, read_only=True) as workspace:
            return [
                CompletionItem(table.name, help=f"{table.row_count} rows")
                for table in workspace.tables()
                if table.name.startswith(incomplete)
            ]
    except MixpanelDataError:
        return []
