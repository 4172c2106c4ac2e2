"""Suggests a replacement for each `mp` command that has no counterpart here."""

import click

_ACCOUNTS = {
    "add": "`mpx accounts add`",
    "list": "`mpx accounts list`",
    "remove": "`mpx accounts remove`",
    "show": "`mpx accounts list`",
    "switch": "`mpx accounts default`",
    "test": "`mpx accounts test`",
}
_APP = "Mixpanel's app API or its web interface"
_QUERY_API = "Mixpanel's Query API or its web interface"
_SQL = "`mpx mp query sql` on exported events"
_BREAKDOWN = "`mpx mp inspect breakdown` on exported events"
_COLUMN = "`mpx mp inspect column` on exported events"

MISSING = {
    "": {
        "auth": "`mpx accounts` with a service account, since there is no OAuth",
        **dict.fromkeys((
            "alerts", "annotations", "cohorts", "custom-events", "custom-properties", "dashboards", "drop-filters",
            "experiments", "flags", "lexicon", "lookup-tables", "reports", "schemas", "webhooks",
        ), _APP),
    },
    "query": {
        **dict.fromkeys(("activity-feed", "event-counts", "jql", "property-counts", "segmentation"), _SQL),
        **dict.fromkeys((
            "flows", "frequency", "funnel", "retention", "saved-report", "segmentation-average",
            "segmentation-numeric", "segmentation-sum",
        ), _QUERY_API),
    },
    "inspect": {
        **dict.fromkeys(("events", "top-events"), _BREAKDOWN),
        **dict.fromkeys(("coverage", "distribution", "numeric", "values"), _COLUMN),
        **dict.fromkeys(("daily", "engagement"), _SQL),
        **dict.fromkeys(("bookmarks", "cohorts", "funnels", "lexicon-schema", "lexicon-schemas"), _QUERY_API),
        "properties": "`mpx mp inspect keys` on exported events",
    },
}  # fmt: skip
"""Maps each command group to its missing commands and their replacements."""


def missing_command(group: str, name: str) -> click.Command | None:
    """Return a command that prints the replacement for `mp GROUP NAME`; None if `mp` has no such command."""
    replacement = MISSING.get(group, {}).get(name)
    if replacement is None:
        return None

    def fail(arguments: tuple[str, ...]) -> None:
        account_command = _ACCOUNTS.get(arguments[0]) if name == "auth" and arguments else None
        path = f"{group} {name}".strip()
        raise click.ClickException(
            f"`mp {path}` is not available in mpx; use {account_command or replacement}"
        )

    return click.Command(
        name,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        callback=fail,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
