"""The kinds of JSON values, and the type of a column that holds every value of a key. Pure functions."""

from enum import IntFlag


class Kind(IntFlag):
    """The kinds of a key's values, as a set. `null` has no kind."""

    NONE = 0
    BOOLEAN = 1
    SAFE_INTEGER = 2
    """An integer of up to 15 characters, which a double represents exactly."""
    BIG_INTEGER = 4
    """Any other integer that fits into 64 bits."""
    REAL = 8
    """A number with a fraction or an exponent that a double preserves: the double's shortest text is the same number,
    though it may be written in another way, such as 1.5 instead of 1.50."""
    OTHER_NUMBER = 16
    """Any other number, such as one of 20 digits, or -0."""
    TIME = 32
    """A string such as `2024-01-31T12:00:00`."""
    TEXT = 64
    NESTED = 128
    """A list or an object."""


_TYPES = (
    (Kind.BOOLEAN, "BOOLEAN"),
    (Kind.SAFE_INTEGER | Kind.BIG_INTEGER, "BIGINT"),
    (Kind.SAFE_INTEGER | Kind.REAL, "DOUBLE"),
    (Kind.TIME, "TIMESTAMP"),
    (Kind.NESTED, "JSON"),
)


def column_type(kinds: Kind) -> str:
    """Return the narrowest type that holds all values of these *kinds* without changing any of them.

    More kinds never lead to a narrower type. If there are no values, the type is VARCHAR.
    """
    if not kinds:
        return "VARCHAR"
    return next((name for allowed, name in _TYPES if not kinds & ~allowed), "VARCHAR")


def is_final(kinds: Kind) -> bool:
    """Whether the type of the column is the widest, so that more values cannot change it."""
    return bool(kinds) and column_type(kinds) == "VARCHAR"


def widening_sql(old: str, new: str, column: str) -> str | None:
    """Return SQL that converts *column* from type *old* to the wider type *new*.

    The result is None if the original JSON must be read again, because a double does not preserve how its number was
    written.
    """
    if (old, new) == ("BIGINT", "DOUBLE"):
        return f"{column}::DOUBLE"
    if old == "TIMESTAMP":
        return time_text(column)
    return None if old == "DOUBLE" else f"{column}::VARCHAR"


def time_text(time: str) -> str:
    """Return SQL that converts the SQL timestamp *time* back to the text it was parsed from (see `Kind.TIME`)."""
    return f"replace(({time})::VARCHAR, ' ', 'T')"
