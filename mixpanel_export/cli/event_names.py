"""Event names on the command line: the values of `--events`."""

import json
from collections.abc import Sequence

import click


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
        names = [name.strip() for name in value.split(",")]
        if any(names) and not all(names):
            raise click.BadParameter(
                f"{value!r} has an empty name; write names that start with $ in single quotes, because a shell replaces $x"
            )
        return [name for name in names if name]
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
