"""Faults as a TOML file: one `[[fault]]` table each, whose keys are the fields of `Fault`."""

import tomllib
from datetime import date, datetime
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mixpanel_export.simulator.faults import Fault

NONE = "none"
"""What stands for None, which TOML lacks, where a text is not meant."""

_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", date: "a date"}


def read_faults(text: str) -> list[Fault]:
    """Return the faults of a file, in its order.

    Raises:
        ValueError: The file is no TOML, or an entry is wrong; the message names it, counted from 1.
    """
    file = tomllib.loads(text)
    entries = file.pop("fault", [])
    if file:
        raise ValueError(f"unknown key {next(iter(file))}; a fault file has [[fault]] tables only")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("fault must be written as [[fault]] tables")
    faults = []
    for number, entry in enumerate(entries, 1):
        try:
            faults.append(_fault(entry))
        except ValueError as error:
            raise ValueError(f"fault {number}: {error}") from error
    return faults


def _fault(entry: dict[str, Any]) -> Fault:
    fields = get_type_hints(Fault)
    if unknown := [key for key in entry if key not in fields]:
        raise ValueError(f"unknown key {unknown[0]}; there are {', '.join(fields)}")
    if "kind" not in entry:
        raise ValueError("kind is missing")
    return Fault(**{key: _value(key, value, fields[key]) for key, value in entry.items()})


def _value(key: str, value: object, hint: object) -> Any:
    """Return *value* as a field of type *hint* takes it."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"unknown {key} {value!r}; there are {', '.join(get_args(hint))}")
        return value
    wanted = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    optional = NoneType in get_args(hint)
    if optional and value == NONE and str not in wanted:
        return None
    if date in wanted and isinstance(value, str):
        return _date(key, value)
    if type(value) in wanted or (type(value) is int and float in wanted):
        return value
    given = "a date with a time" if isinstance(value, datetime) else repr(value)
    raise ValueError(f"{key} must be {_NAMES[wanted[0]]}, not {given}")


def _date(key: str, given: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise ValueError(f"{key} must be a date as YYYY-MM-DD, not {given!r}") from None
