"""Hints about property keys in a query: keys that begin with `$`, and mistyped keys."""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from mixpanel_export.cli.log import say

if TYPE_CHECKING:
    from mixpanel_export._local.reader import Connection

_PATH = re.compile(r"(?:->>?|\bjson_\w+\s*\([^()']*,)\s*'(\$\w+)'")
_PARAMETER = re.compile(r"(?:\bproperties\s*\.|->>?)\s*(\$\w+)")
_EMPTY = re.compile(r"\bproperties(?:\.(?=\s*(?:[,)=]|$|FROM\b|AS\b))|\s*->>?\s*'(?:\$\.)?')", re.IGNORECASE)


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


def _how_to_write(key: str) -> str:
    return f""" To read it, write properties->>'$."{key}"'."""
