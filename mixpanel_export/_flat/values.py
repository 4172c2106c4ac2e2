"""SQL that reads properties without losing the text of a number.

DuckDB's JSON functions parse numbers and format them again: 1E5 becomes 100000.0, and 0.1000000000000000055 becomes
0.1. A *suspect* number is one that this conversion may change. Before the text is parsed, each suspect number is
*marked*: it becomes a string that starts with the character U+0001. Afterwards the string becomes a number again.

Text inside a string that looks like a suspect number would be marked, too. The text of the row is then no longer JSON,
because the quote before U+0001 ends the string. Rows with such text, and rows that already have an escaped U+0001, are
*doubtful*: `members` reads them in Python. In a list, a trailing zero does not make a number suspect, because lists are
compared as JSON, not as text.
"""

from collections.abc import Iterable
from typing import Literal

from mixpanel_export._flat.kinds import Kind, time_text

Marks = Literal["all", "inexact", "none"]
"""The numbers that are marked: all suspect ones, only numbers that a double may not represent, or none."""

MARK = r"\u0001"
"""The mark, as a JSON escape."""

_EXPONENT = r"-?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]+\b"
_MANY_DIGITS = r"-?[0-9]+\.[0-9]{9,}|-?[0-9]{8,}\.[0-9]+"
# DuckDB may drop a trailing zero or rewrite several zeros after the point, and it does not parse -0 as a number.
# The pattern for -0 includes the next character, so that a mark in a string breaks the JSON.
_REWRITTEN = r"-?[0-9]+\.[0-9]+0\b|-?0\.0000[0-9]+|-0\s*[,}]"
_SUSPECT = rf'("\s*:\s*)({_EXPONENT}|{_MANY_DIGITS}|{_REWRITTEN})|([\[,]\s*)({_EXPONENT}|{_MANY_DIGITS})'
_RAW = "properties::VARCHAR"
_MARKED = rf"""regexp_replace({_RAW}, '{_SUSPECT}', '\1\3"\\u0001\2\4"', 'g')"""
# These marks are sufficient to find kinds if there is no -0, because a dropped trailing zero does not change the kind.
_INEXACT_MARKED = (
    rf"""regexp_replace({_RAW}, '("\s*:\s*)({_EXPONENT}|{_MANY_DIGITS})', '\1"\\u0001\2"', 'g')"""
)
_OWN_MARK = f"contains({_RAW}, '{MARK}')"


def doubtful(*, unparsable: bool) -> str:
    """Return SQL for whether a row must be read in Python.

    If *unparsable* is true, the SQL also checks whether marks break the JSON.
    """
    broken = f"regexp_matches({_RAW}, '{_SUSPECT}') AND NOT json_valid({_MARKED})"
    condition = f"{_OWN_MARK} OR ({broken})" if unparsable else _OWN_MARK
    return f"coalesce({condition}, false)"


def json_values(keys: Iterable[str], marks: Marks) -> str:
    """Return SQL for the list of the values of *keys* as JSON."""
    text = {"all": _MARKED, "inexact": _INEXACT_MARKED, "none": _RAW}[marks]
    return f"json_extract({text}, {_pointers(keys)})::VARCHAR[]"


def has_minus_zero() -> str:
    """Return SQL for whether a row may have the number -0, which DuckDB reads as 0."""
    return f"regexp_matches({_RAW}, '-0\\s*[,}}]')"


def texts(keys: Iterable[str]) -> str:
    """Return SQL for the list of the values of *keys* as text, with marks. Strings are decoded, and `null` is NULL."""
    return f"json_extract_string({_MARKED}, {_pointers(keys)})"


def kind(value: str) -> str:
    """Return SQL for the `Kind` of *value*, which is SQL for a value as JSON.

    If suspect numbers are not marked, the kind of a number may be REAL or SAFE_INTEGER instead of OTHER_NUMBER.
    """
    text = f"{value}[2:-2]"
    return f"""CASE
        WHEN {value} < '#' THEN CASE
            WHEN starts_with({value}, '"{MARK}') THEN {_marked_kind(f"{value}[8:-2]")}
            WHEN {value} LIKE '"____-__-__T__:__:__"' AND {time_text(f"TRY_CAST({text} AS TIMESTAMP)")} = {text}
            THEN {Kind.TIME:d} ELSE {Kind.TEXT:d} END
        WHEN {value} < ':' THEN CASE
            WHEN contains({value}, '.') OR contains({value}, 'e') OR contains({value}, 'E') THEN {Kind.REAL:d}
            WHEN strlen({value}) <= 15 AND ({value} >= '0' OR {value} < '-:') THEN {Kind.SAFE_INTEGER:d}
            WHEN TRY_CAST({value} AS BIGINT)::VARCHAR = {value} THEN {Kind.BIG_INTEGER:d}
            ELSE {Kind.OTHER_NUMBER:d} END
        WHEN {value} = 'null' THEN {Kind.NONE:d}
        WHEN {value} IN ('true', 'false') THEN {Kind.BOOLEAN:d}
        WHEN {value} >= '{{' OR ({value} >= '[' AND {value} < '\\') THEN {Kind.NESTED:d}
        WHEN {value} IS NOT NULL THEN {Kind.OTHER_NUMBER:d} END"""


def _marked_kind(number: str) -> str:
    """Return SQL for the kind of a suspect number, which has a fraction or an exponent, or is -0.

    Every decimal number of up to 15 digits is the shortest text of a double, unless its exponent is extreme.
    """
    short = (
        f"strlen(regexp_replace({number}, '[eE].*|[^0-9]', '', 'g')) <= 15 "
        f"AND NOT regexp_matches({number}, '[eE][-+]?[0-9]{{3}}')"
    )
    return f"""CASE WHEN NOT regexp_matches({number}, '[.eE]') THEN {Kind.OTHER_NUMBER:d}
        WHEN {short} THEN {Kind.REAL:d}
        WHEN to_json(TRY_CAST({number} AS DOUBLE))::VARCHAR = {number} THEN {Kind.REAL:d} ELSE {Kind.OTHER_NUMBER:d} END"""


def conversion(text: str, column_type: str) -> str:
    """Return SQL that converts *text*, which is SQL for an item of `texts`, to the column's type."""
    if column_type in {"BOOLEAN", "BIGINT", "TIMESTAMP"}:
        return f"{text}::{column_type}"
    number = f"CASE WHEN starts_with({text}, chr(1)) THEN {text}[2:]"
    if column_type == "DOUBLE":
        return f"({number} ELSE {text} END)::DOUBLE"
    nested = (
        f"""WHEN contains({text}, '"{MARK}') THEN regexp_replace({text}, '"\\\\u0001([^"]*)"', '\\1', 'g')"""
    )
    return f"({number} {nested} ELSE {text} END)::{column_type}"


def has_other_keys(keys: Iterable[str]) -> str:
    """Return SQL for whether a row has a key that is not among *keys*."""
    others = f"list_filter(json_keys(properties), lambda name: name NOT IN {_sql_list(map(literal, keys))})"
    return f"coalesce(len({others}), 0) > 0"


def literal(text: str) -> str:
    """Return *text* as an SQL literal. The character NUL becomes `chr(0)`, because SQL text cannot contain it."""
    quoted = "'" + text.replace("'", "''") + "'"
    return "(" + quoted.replace("\0", "' || chr(0) || '") + ")" if "\0" in text else quoted


def _pointers(keys: Iterable[str]) -> str:
    """Return SQL for the list of JSON pointers to *keys*. Unlike paths, pointers support every key, even the empty one."""
    escaped = (key.replace("~", "~0").replace("/", "~1") for key in keys)
    return f"[{', '.join(literal(f'/{key}') for key in escaped)}]::VARCHAR[]"


def _sql_list(items: Iterable[str]) -> str:
    return f"({', '.join(items)})"
