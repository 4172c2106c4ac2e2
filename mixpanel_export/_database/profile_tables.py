"""The tables of profiles in a file, according to the ledger."""

import json
from dataclasses import dataclass
from typing import Any

from mixpanel_export._database.connection import Connection, quoted
from mixpanel_export._database.schema import has_profile_columns
from mixpanel_export._database.snapshots import Snapshot, read_snapshots


@dataclass(frozen=True, slots=True)
class ProfileTable:
    """A table of profiles, and the exports that filled it."""

    name: str
    rows: int | None
    """The number of rows; None if the table does not exist or is not a table of profiles."""
    snapshots: tuple[Snapshot, ...]
    """The exports whose profiles are in the table, oldest first. All except the first were added with `append`."""
    failure: Snapshot | None
    """The last export, if it failed."""

    @property
    def last(self) -> Snapshot | None:
        """The newest snapshot."""
        return self.snapshots[-1] if self.snapshots else None

    @property
    def row_count_difference(self) -> int:
        """The number of rows in the table minus the number exported. It is not 0 if rows were added or deleted by hand."""
        return 0 if self.rows is None else self.rows - sum(snapshot.rows for snapshot in self.snapshots)


def profile_tables(connection: Connection) -> list[ProfileTable]:
    """Return the tables of profiles that the ledger lists, sorted by name."""
    by_name: dict[str, list[Snapshot]] = {}
    for snapshot in read_snapshots(connection):
        by_name.setdefault(snapshot.table, []).append(snapshot)
    return [
        ProfileTable(
            name,
            _rows(connection, name),
            tuple(snapshot for snapshot in snapshots if snapshot.status == "complete"),
            snapshots[-1] if snapshots[-1].status == "failed" else None,
        )
        for name, snapshots in sorted(by_name.items())
    ]


def _rows(connection: Connection, table: str) -> int | None:
    if not has_profile_columns(connection, table):
        return None
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {quoted(table)}").fetchall()
    return int(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSelection:
    """The arguments of `export_profiles` that selected the profiles of a snapshot."""

    where: str | None = None
    cohort: int | None = None
    properties: tuple[str, ...] | None = None
    distinct_ids: tuple[str, ...] | None = None
    group: str | None = None
    include_all_users: bool | None = None
    behaviors: tuple[dict[str, Any], ...] | None = None
    as_of_timestamp: int | None = None

    @classmethod
    def parsed(cls, selection: str) -> "StoredSelection":
        """Return the arguments that produced *selection*, the request parameters that the ledger stores as a JSON object."""
        form = json.loads(selection)
        values = {name: json.loads(form[key]) for name, key in _PARSED.items() if key in form}
        return cls(
            where=form.get("where"),
            cohort=values["cohort"]["id"] if "cohort" in values else None,
            properties=_tuple(values.get("properties")),
            distinct_ids=_tuple(values.get("distinct_ids")),
            group=form.get("data_group_id"),
            include_all_users=values.get("include_all_users"),
            behaviors=_tuple(values.get("behaviors")),
            as_of_timestamp=values.get("as_of_timestamp"),
        )

    @property
    def words(self) -> str:
        """The selection in words, without the project."""
        parts = [
            "" if self.where is None else f"where {self.where}",
            "" if self.cohort is None else f"cohort {self.cohort}",
            "" if self.properties is None else f"properties {', '.join(self.properties)}",
            "" if self.distinct_ids is None else f"{len(self.distinct_ids):,} ids",
            "" if self.group is None else f"group {self.group}",
            "" if self.behaviors is None else "by behaviors",
            "" if self.as_of_timestamp is None else f"as of {self.as_of_timestamp}",
        ]
        return ", ".join(filter(None, parts))


_PARSED = {
    "cohort": "filter_by_cohort",
    "properties": "output_properties",
    "distinct_ids": "distinct_ids",
    "include_all_users": "include_all_users",
    "behaviors": "behaviors",
    "as_of_timestamp": "as_of_timestamp",
}
"""The parameters whose values are JSON."""


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
