"""Reads faults from a TOML file with a table for each fault. The keys are the fields of `Fault`.

`[[fault]]` is a failure of exports, `[[query_fault]]` of event counts, and `[[profile_fault]]` of profiles.
"""

import tomllib
from datetime import date, datetime
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mixpanel_export.simulator.faults import Fault

NONE = "none"
"""The string that means None in fields that are not strings, because TOML has no null."""

_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", date: "a date"}


TABLES = ("fault", "query_fault", "profile_fault")


def read_faults(text: str, table: str = "fault") -> list[Fault]:
    """Return the faults that are written as *table* in a file, in file order.

    Raises:
        ValueError: The file is not valid TOML, or a fault is not valid. The message gives the fault's number, counting
            from 1.
    """
    file = tomllib.loads(text)
    if unknown := [name for name in file if name not in TABLES]:
        tables = ", ".join(f"[[{name}]]" for name in TABLES)
        raise ValueError(f"unknown key {unknown[0]}; a fault file has only the tables {tables}")
    entries = file.get(table, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{table} must be written as [[{table}]] tables")
    faults = []
    for number, entry in enumerate(entries, 1):
        try:
            faults.append(_fault(entry))
        except ValueError as error:
            raise ValueError(f"{table} {number}: {error}") from error
    return faults


def _fault(entry: dict[str, Any]) -> Fault:
    fields = get_type_hints(Fault)
    if unknown := [key for key in entry if key not in fields]:
        raise ValueError(f"unknown key {unknown[0]}; the keys are {', '.join(fields)}")
    if "kind" not in entry:
        raise ValueError("kind is missing")
    return Fault(**{key: _convert_value(key, value, fields[key]) for key, value in entry.items()})


def _convert_value(key: str, value: object, hint: object) -> Any:
    """Convert *value* to *hint*, the type of the field *key*."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"unknown {key} {value!r}; must be one of {', '.join(get_args(hint))}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{key} must be a list, not {value!r}")
        return tuple(_convert_value(key, item, get_args(hint)[0]) for item in value)
    types = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    optional = NoneType in get_args(hint)
    if optional and value == NONE and str not in types:
        return None
    if date in types and isinstance(value, str):
        return _date(key, value)
    if type(value) in types or (type(value) is int and float in types):
        return value
    actual = "a date with a time" if isinstance(value, datetime) else repr(value)
    raise ValueError(f"{key} must be {_NAMES[types[0]]}, not {actual}")


def _date(key: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{key} must be a date in the form YYYY-MM-DD, not {text!r}") from None
