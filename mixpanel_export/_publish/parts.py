"""How a table is divided into the files of its data set: by UTC day, or not at all if its rows have no days."""

import re
from collections.abc import Sequence
from datetime import date
from typing import Protocol

from mixpanel_export._database.publications import Day

PARTITION = "date"
"""The column that readers take from the names of the folders."""

NO_DAY = "__HIVE_DEFAULT_PARTITION__"
"""The partition of rows without a time. Readers convert this name to NULL, and the column keeps the type DATE."""


class Parts(Protocol):
    """A division of a table. Each part has one file. The day None is the part of rows without a day."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that readers take from the names of the folders."""
        ...

    @property
    def key(self) -> str:
        """SQL for the day of a row."""
        ...

    @property
    def outside(self) -> str:
        """An SQL condition for rows that belong to no part."""
        ...

    @property
    def always(self) -> tuple[Day, ...]:
        """The parts that have a file even if they have no rows."""
        ...

    def condition(self, days: Sequence[Day]) -> str:
        """Return an SQL condition for the rows of some parts, which are in order."""
        ...

    def folder(self, day: Day) -> str:
        """Return the folder of a part's file, which ends with a slash, or an empty string."""
        ...

    def has_folder(self, folder: str) -> bool:
        """Whether `folder` returns *folder* for some day."""
        ...

    def name(self, day: Day) -> str:
        """Return the name of a part in results."""
        ...

    def words(self, days: Sequence[Day]) -> str | None:
        """Return the first and the last of some parts for an error message; None if there is only one part."""
        ...


class ByDay:
    """Parts by UTC day of `event_time`. The day None has the rows without a time."""

    columns = (PARTITION,)
    key = "event_time::DATE"
    always = ()

    @property
    def outside(self) -> str:
        """An SQL condition for times before year 1 or after year 9999. Exports never write these, but a user's SQL can."""
        return f"NOT ({_between(date.min, date.max)})"

    def condition(self, days: Sequence[Day]) -> str:
        """Return an SQL condition for the rows of some days."""
        dates = [day for day in days if day is not None]
        times = ["event_time IS NULL"] if None in days else []
        if dates:
            listed = ", ".join(f"DATE '{day}'" for day in dates)
            others = f" AND {self.key} IN ({listed})" if len(dates) > 1 else ""
            times.append(f"({_between(dates[0], dates[-1])}{others})")
        return " OR ".join(times)

    def folder(self, day: Day) -> str:
        """Return the folder of a day."""
        return f"{PARTITION}={self.name(day)}/"

    def has_folder(self, folder: str) -> bool:
        """Whether *folder* belongs to a day."""
        match = re.fullmatch(rf"{PARTITION}=(\d{{4}}-\d\d-\d\d|{NO_DAY})/", folder, re.ASCII)
        if match is None:
            return False
        try:
            return match[1] == NO_DAY or bool(date.fromisoformat(match[1]))
        except ValueError:
            return False

    def name(self, day: Day) -> str:
        """Return the value of the partition column."""
        return str(day or NO_DAY)

    def words(self, days: Sequence[Day]) -> str | None:
        """Return the range of days, such as `2024-01-01 to 2024-01-05`."""
        names = ["rows without a time" if day is None else str(day) for day in days]
        return " to ".join(dict.fromkeys([names[0], names[-1]])) if names else None


class Whole:
    """A single part with all rows. It always has a file, so that readers find the columns of an empty table."""

    columns = ()
    key = "NULL::DATE"
    outside = "false"
    always = (None,)

    def condition(self, _: Sequence[Day]) -> str:
        """Return an SQL condition for all rows."""
        return "true"

    def folder(self, _: Day) -> str:
        """Return no folder."""
        return ""

    def has_folder(self, folder: str) -> bool:
        """Whether there is no folder."""
        return not folder

    def name(self, _: Day) -> str:
        """Return the name in results."""
        return "all"

    def words(self, _: Sequence[Day]) -> None:
        """Return nothing, because there is only one part."""


BY_DAY = ByDay()
WHOLE = Whole()


def _between(first: date, last: date) -> str:
    """Return an SQL condition for the times of some days. Unlike a cast to a date, it lets DuckDB skip row groups."""
    return f"event_time BETWEEN TIMESTAMP '{first}' AND TIMESTAMP '{last} 23:59:59.999999'"
