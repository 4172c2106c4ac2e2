"""Shell completion for accounts, files and tables. If an error occurs, the list of completions is empty.

The help text of an item must not contain a comma, because click's fish script cuts the text off there.
"""

from pathlib import Path

import click
from click.shell_completion import CompletionItem

DEFAULT_DB = "mixpanel.duckdb"
"""The database that a command uses by default."""


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
    """Leave the completion of files to the shell."""
    return [CompletionItem(incomplete, type="file")]


def tables(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the database's tables, unless another process holds the file."""
    from mixpanel_export._config.config_file import chosen_database
    from mixpanel_export.errors import MixpanelDataError
    from mixpanel_export.workspace import Workspace

    # While the value of an option is being completed, click has not parsed the arguments yet. They are still in
    # `ctx.args`, and the first one may be the database.
    database = next(iter(ctx.args), None) or ctx.params.get("db")
    try:
        path = Path(database or chosen_database() or DEFAULT_DB)
        with Workspace(path=path, read_only=True) as workspace:
            return [
                CompletionItem(table.name, help=f"{table.row_count} rows")
                for table in workspace.tables()
                if table.name.startswith(incomplete)
            ]
    except MixpanelDataError:
        return []
