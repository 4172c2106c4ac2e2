"""The queries that read a source table: its keys and kinds, and the rows that SQL cannot read exactly."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._flat.kinds import Kind
from mixpanel_export._flat.members import Member, members
from mixpanel_export._flat.values import (
    Marks,
    doubtful,
    has_minus_zero,
    has_other_keys,
    json_values,
    kind,
    literal,
)

_PAGE_BYTES = 4_000_000  # of doubtful rows that Python holds at a time
_ROW_BYTES = 1_000  # that Python needs for a row, in addition to its text
_SAMPLE_BATCHES = 8
_SAMPLE_ROWS = 1000  # of each of these batches

Base = tuple[Any, ...]
"""The values of the columns that the flat table has in common with its source. The last one is the batch."""


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of a source table that belong to some batches and some event names."""

    table: str
    columns: Mapping[str, str]
    """See `Layout`."""
    batches: tuple[int, ...]
    events: tuple[str, ...] | None
    unparsable: bool
    """Whether to look for rows whose JSON the marks would break. If false, these rows make a query fail."""

    @property
    def base(self) -> str:
        """SQL for the columns that the flat table has in common with its source."""
        return ", ".join(self.columns)

    @property
    def sql(self) -> str:
        """SQL for the rows."""
        return self.of(self.batches)

    @property
    def doubtful(self) -> str:
        """SQL for whether a row must be read in Python."""
        return doubtful(unparsable=self.unparsable)

    def of(self, batches: Iterable[int]) -> str:
        """Return SQL for the rows of some batches."""
        condition = f"export_batch IN ({', '.join(map(str, batches))})"
        if self.events is not None:
            condition += f" AND event_name IN ({', '.join(map(literal, self.events))})"
        return f"FROM {quoted(self.table)} WHERE {condition}"


def key_counts(
    connection: Connection, source: Source, only: Iterable[str] | None, max_keys: int
) -> dict[str, int]:
    """Return the number of rows with each key in *only*, or with each of the *max_keys* most frequent keys."""
    condition = "" if only is None else f"WHERE key IN ({', '.join(map(literal, only))})"
    rows = connection.execute(
        f"SELECT key, count(*) AS rows FROM (SELECT unnest(json_keys(properties)) AS key {source.sql}) {condition} "
        f"GROUP BY key ORDER BY rows DESC, key LIMIT {max_keys}"
    ).fetchall()
    return dict(rows)


def sampled_kinds(connection: Connection, source: Source, keys: Sequence[str]) -> dict[str, Kind]:
    """Return the kinds of each key's values in some rows that are not doubtful."""
    step = -(-len(source.batches) // _SAMPLE_BATCHES)
    parts = (
        f"(SELECT properties {source.of([batch])} AND NOT {source.doubtful} LIMIT {_SAMPLE_ROWS})"
        for batch in source.batches[::step]
    )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _flat_sample AS {' UNION ALL '.join(parts)}")
    values = json_values(keys, "all")
    return _kinds_by_group(connection, f"SELECT {values} AS v FROM _flat_sample", keys)[None]


def kinds_by_batch(
    connection: Connection, source: Source, keys: Sequence[str]
) -> dict[int | None, dict[str, Kind]]:
    """Return the kinds of each key's values in each batch, without doubtful rows."""
    rows = _rows_for_kinds(source, keys, "all")
    return _kinds_by_group(connection, rows, keys, group="export_batch")


def all_kinds(connection: Connection, source: Source, keys: Sequence[str], marks: Marks) -> dict[str, Kind]:
    """Return the kinds of each key's values in all rows that are not doubtful."""
    return _kinds_by_group(connection, _rows_for_kinds(source, keys, marks), keys)[None]


def special_rows(connection: Connection, source: Source) -> tuple[bool, bool]:
    """Return whether there are doubtful rows, and whether there may be rows with the number -0."""
    ((doubtful_rows, minus_zero),) = connection.execute(
        f"SELECT coalesce(bool_or({source.doubtful}), false), coalesce(bool_or({has_minus_zero()}), false) {source.sql}"
    ).fetchall()
    return doubtful_rows, minus_zero


def _rows_for_kinds(source: Source, keys: Iterable[str], marks: Marks) -> str:
    values = json_values(keys, marks)
    return f"SELECT export_batch, {values} AS v {source.sql} AND NOT {source.doubtful}"


def _kinds_by_group(
    connection: Connection, rows: str, keys: Sequence[str], group: str = "NULL"
) -> dict[int | None, dict[str, Kind]]:
    """Return, for each group of *rows*, the kinds of each key's values. The values of a row are in its list `v`."""
    # One expression for all values is planned once. An expression for each key would take some milliseconds each.
    kinds = f"list_transform(v, lambda value: {kind('value')})"
    values = "".join(f", bit_or(kinds[{index}])" for index in range(1, len(keys) + 1))
    result = connection.execute(
        f"SELECT {group} AS g{values} FROM (SELECT *, {kinds} AS kinds FROM ({rows})) GROUP BY g"
    ).fetchall()
    by_group: dict[int | None, dict[str, Kind]] = {
        name: {key: Kind(bits or 0) for key, bits in zip(keys, kinds, strict=True)} for name, *kinds in result
    }
    return by_group or {None: dict.fromkeys(keys, Kind.NONE)}


class DoubtfulRows:
    """The rows that must be read in Python. They are copied to a temporary table."""

    def __init__(self, connection: Connection, source: Source, keys: Iterable[str] | None) -> None:
        """Find the doubtful rows. If *keys* is given, also find the rows that have other keys."""
        self.condition = source.doubtful
        if keys is not None:
            self.condition = f"({self.condition} OR {has_other_keys(keys)})"
        self._connection = connection
        self._base = source.base
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE _flat_doubtful AS "
            f"SELECT sum(strlen(properties) + {_ROW_BYTES}) OVER (ROWS UNBOUNDED PRECEDING) // {_PAGE_BYTES} AS page, "
            f"{self._base}, properties {source.sql} AND {self.condition}"
        )

    def __iter__(self) -> Iterator[list[tuple[Base, list[Member]]]]:
        """Yield the rows in pages of limited size."""
        pages = self._connection.execute("SELECT DISTINCT page FROM _flat_doubtful ORDER BY page").fetchall()
        for (page,) in pages:
            rows = self._connection.execute(
                f"SELECT {self._base}, properties::VARCHAR FROM _flat_doubtful WHERE page = {page}"
            ).fetchall()
            yield [((*base,), members(text)) for *base, text in rows]

    def kinds(self) -> dict[int | None, dict[str, Kind]]:
        """Return the kinds of each key's values in each batch."""
        result: dict[int | None, dict[str, Kind]] = defaultdict(lambda: defaultdict(lambda: Kind.NONE))
        for page in self:
            items = [(base[-1], member.key, member.marked) for base, row in page for member in row]
            rows = self._connection.execute(
                f"SELECT batch, key, bit_or({kind('value')}) FROM (SELECT unnest(?::INTEGER[]) AS batch, "
                "unnest(?::VARCHAR[]) AS key, unnest(?::VARCHAR[]) AS value) GROUP BY ALL",
                [[item[index] for item in items] for index in range(3)],
            ).fetchall()
            for batch, key, bits in rows:
                result[batch][key] |= Kind(bits)
        return result


def joined_kinds(*kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """Return the union of the kinds of each key."""
    result: dict[str, Kind] = defaultdict(lambda: Kind.NONE)
    for some in kinds:
        for key, value in some.items():
            result[key] |= value
    return dict(result)
