"""Event names on the command line: the values of `--events`."""

import json
from collections.abc import Sequence

import click

from mixpanel_export._suggestions import closest
from mixpanel_export.cli.log import say
from mixpanel_export.cli.open_database import open_read_only


def parse_events(_ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """Return the event names from all `--events` options, in order and without repetition, or None."""
    if not values:
        return None
    names = [name for value in values for name in names_in(value)]
    if not names:
        raise click.BadParameter("the list has no event names; leave the option out to export all events")
    return list(dict.fromkeys(names))


def names_in(value: str) -> list[str]:
    """Return the names in an option's value, which is a JSON list or names separated by commas."""
    if not value.lstrip().startswith("["):
        return [name.strip() for name in value.split(",") if name.strip()]
    try:
        names = json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value} is not a JSON list ({error})") from error
    if not all(isinstance(name, str) and name for name in names):
        raise click.BadParameter(f"{value} is not a JSON list of event names")
    return list(names)


def event_words(events: Sequence[str]) -> str:
    """Return *events* as one value of `--events`: separated by commas, or as a JSON list if a name requires it."""
    plain = all("," not in name and name == name.strip() and not name.startswith("[") for name in events)
    return ",".join(events) if plain else json.dumps(list(events), ensure_ascii=False)


def suggest_names(events: Sequence[str], db: str) -> None:
    """Print a suggestion for each of *events* that is not in the file but resembles an event that is."""
    known = _known_names(db)
    for name in events:
        match = None if name in known else closest(name, known)
        if match:
            say(f"{db} has no event {name!r}; did you mean {match!r}?")


def _known_names(db: str) -> set[str]:
    """Return the event names in the file's exported tables and in its ledger."""
    from mixpanel_export._database.connection import quoted
    from mixpanel_export._database.ledger import read_batches
    from mixpanel_export._database.path import database_path, has_content
    from mixpanel_export._database.schema import table_names

    if not has_content(database_path(db)):
        return set()
    with open_read_only(db) as connection:
        batches = read_batches(connection)
        names = {name for batch in batches for name in batch.selection.events or ()}
        for table in {batch.table for batch in batches} & set(table_names(connection)):
            rows = connection.execute(f"SELECT DISTINCT event_name FROM {quoted(table)}").fetchall()
            names.update(name for (name,) in rows if name)
    return names
