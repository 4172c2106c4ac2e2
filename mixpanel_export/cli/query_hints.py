"""Hints about property keys in a query: keys that begin with `$`, mistyped keys, and keys that are used as columns."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mixpanel_export.cli.log import say

if TYPE_CHECKING:
    from mixpanel_export._local.reader import Connection

_PATH = re.compile(r"(?:->>?|\bjson_\w+\s*\([^()']*,)\s*'(\$\w+)'")
_PARAMETER = re.compile(r"(?:\bproperties\s*\.|->>?)\s*(\$\w+)")
_EMPTY = re.compile(r"\bproperties(?:\.(?=\s*(?:[,)=]|$|FROM\b|AS\b))|\s*->>?\s*'(?:\$\.)?')", re.IGNORECASE)

_COLUMN = re.compile(
    r"""Referenced column "((?:[^"]|"")+)" not found|does not have a column named "((?:[^"]|"")+)\""""
)


def say_how_to_write_keys(sql: str, parameters: Collection[str]) -> None:
    """Print how to write keys that begin with `$`, if DuckDB or the shell would interpret them differently."""
    keys = {match[1]: f"'{match[1]}' as a path" for match in _PATH.finditer(sql)}
    for match in _PARAMETER.finditer(sql):
        if match[1].removeprefix("$") not in parameters:
            keys[match[1]] = f"{match[1]} as a parameter"
    for key, interpretation in keys.items():
        say(
            f"""DuckDB reads {interpretation}. To read the key {key}, write properties->>'$."{key}"' for text """
            f"""or properties."{key}" for JSON."""
        )
    if _EMPTY.search(sql):
        say("A key is missing after properties. The shell replaces $name in double quotes, so use --file.")


def say_unknown_keys(connection: "Connection", sql: str) -> None:
    """Print a suggestion for each unknown key of `properties` that resembles an existing key."""
    from mixpanel_export._local.property_keys import unknown_keys

    for unknown in unknown_keys(connection, sql):
        rows = "No row" if unknown.sampled is None else f"None of {unknown.sampled:,} sampled rows"
        hint = _how_to_write(unknown.similar) if unknown.similar.startswith("$") else ""
        say(f"{rows} has the property {unknown.key!r}; did you mean {unknown.similar!r}?{hint}")


@contextmanager
def hints_about_columns(connection: "Connection", sql: str) -> Iterator[None]:
    """If *sql* fails because a property is used as a column, print how to write the property."""
    try:
        yield
    except ValueError as error:
        if match := _COLUMN.search(str(error)):
            _say_if_property(connection, sql, (match[1] or match[2]).replace('""', '"'))
        raise


def _say_if_property(connection: "Connection", sql: str, name: str) -> None:
    from mixpanel_export._local.property_keys import flat_column, is_key

    if not is_key(connection, sql, name):
        return
    column = flat_column(connection, sql, name)
    flat = (
        f'{column[0]} has the column "{column[1]}".'
        if column
        else "mpx flatten creates columns for properties."
    )
    say(f"{name} is a property, not a column.{_how_to_write(name)} {flat}")


def _how_to_write(key: str) -> str:
    text = key.replace("'", "''")
    path = f'$."{text}"' if key.startswith("$") else text
    return f" To read it, write properties->>'{path}'."
