"""What to use instead of the commands of `mp` that have no counterpart here."""

import click

_QUERY_API = "Mixpanel's Query API or its web interface"
_IN_SQL = "`mpx mp query sql` on exported events"

# The path of a command, and what to use instead.
INSTEAD = {
    "auth list": "`mpx accounts list`",
    "auth show": "`mpx accounts list`",
    "auth add": "`mpx accounts add`",
    "auth remove": "`mpx accounts remove`",
    "auth switch": "`mpx accounts default`",
    "auth test": "`mpx accounts test`",
    "auth": "`mpx accounts add` with a service account, since there is no OAuth",
    "fetch profiles": "Mixpanel's Engage API or the package mixpanel-utils",
    "query jql": _IN_SQL,
    "query segmentation": _IN_SQL,
    "query event-counts": _IN_SQL,
    "query property-counts": _IN_SQL,
    "query activity-feed": _IN_SQL,
    "query": _QUERY_API,
    "inspect events": "`mpx mp inspect breakdown` on exported events",
    "inspect top-events": "`mpx mp inspect breakdown` on exported events",
    "inspect properties": "`mpx mp inspect keys` on exported events",
    "inspect values": "`mpx mp inspect column` on exported events",
    "inspect distribution": "`mpx mp inspect column` on exported events",
    "inspect numeric": "`mpx mp inspect column` on exported events",
    "inspect coverage": "`mpx mp inspect column` on exported events",
    "inspect daily": _IN_SQL,
    "inspect engagement": _IN_SQL,
    "inspect": _QUERY_API,
    "": "Mixpanel's app API or its web interface",
}

COMMANDS = {
    "": (
        "auth", "dashboards", "reports", "cohorts", "experiments", "flags", "alerts", "annotations", "webhooks",
        "lexicon", "drop-filters", "custom-properties", "custom-events", "lookup-tables", "schemas",
    ),
    "fetch": ("profiles",),
    "query": (
        "jql", "segmentation", "funnel", "retention", "event-counts", "property-counts", "activity-feed",
        "saved-report", "flows", "frequency", "segmentation-numeric", "segmentation-sum", "segmentation-average",
    ),
    "inspect": (
        "events", "properties", "values", "funnels", "cohorts", "top-events", "bookmarks", "lexicon-schemas",
        "lexicon-schema", "distribution", "numeric", "daily", "engagement", "coverage",
    ),
}  # fmt: skip
"""The commands of `mp` that are missing here, by group."""


def missing_command(group: str, name: str) -> click.Command | None:
    """Return a command that says what to use instead of `mp GROUP NAME`; None if `mp` has no such command."""
    if name not in COMMANDS.get(group, ()):
        return None

    def refuse(arguments: tuple[str, ...]) -> None:
        path = " ".join(filter(None, (group, name)))
        more = f"{path} {arguments[0]}" if arguments else path
        instead = next(INSTEAD[key] for key in (more, path, group, "") if key in INSTEAD)
        raise click.ClickException(f"`mp {path}` is not in this program; use {instead}")

    return click.Command(
        name,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        callback=refuse,
        hidden=True,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
