"""The names of the files in a data set, and the SQL that writes them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType

from mixpanel_export._database.connection import quoted
from mixpanel_export._database.publications import Day
from mixpanel_export._publish.source import PARTITION, Source, on_day

NO_DAY = "__HIVE_DEFAULT_PARTITION__"
"""The partition of rows without a time. Readers convert this name to NULL, and the column keeps the type DATE."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A format of the files."""

    name: str
    suffix: str
    options: str
    """The options of DuckDB's COPY."""
    strict: bool = False
    """Whether JSON is written as text, and characters that Delta does not allow in column names are replaced."""

    def file(self, day: Day) -> str:
        """Return the path of a day's file, relative to the destination."""
        return f"{partition(day)}/data{self.suffix}"

    def owns(self, file: str) -> bool:
        """Whether `file` returns this path for some day."""
        folder, _, name = file.partition("/")
        return name == f"data{self.suffix}" and is_partition(folder)

    def names(self, source: Source) -> list[str]:
        """Return the names of the columns in the data set."""
        return published_names((name for name, _ in source.columns), strict=self.strict)

    def copy(self, source: Source, day: Day, target: Path) -> str:
        """Return the statement that writes a day's rows to the file *target*."""
        literal = "'" + str(target).replace("'", "''") + "'"
        columns = (
            f"{quoted(name)}{'::VARCHAR' if self.strict and kind == 'JSON' else ''} AS {quoted(published)}"
            for (name, kind), published in zip(source.columns, self.names(source), strict=True)
        )
        rows = f"SELECT {', '.join(columns)} FROM {quoted(source.table)} WHERE {on_day(day)}"
        return f"COPY ({rows}) TO {literal} ({self.options})"


PARQUET = FileFormat("parquet", ".parquet", "FORMAT parquet, COMPRESSION zstd")
DELTA = FileFormat("delta", ".parquet", PARQUET.options, strict=True)
FORMATS: Mapping[str, FileFormat] = MappingProxyType({each.name: each for each in (PARQUET, DELTA)})


def published_names(names: Iterable[str], *, strict: bool = False) -> list[str]:
    """Return the names of the columns in the data set. Two names never differ only in case, because readers ignore case.

    The column `date` gets a number, because readers take `date` from the names of the folders. If *strict* is true,
    characters that Delta does not allow become `_`, and the new name gets a number if another column has that name.
    """
    names = list(names)
    allowed = [re.sub(r"[ ,;{}()\n\t=]", "_", name) if strict else name for name in names]
    used = {PARTITION, *(name.lower() for name in names)}
    published: list[str] = []
    for old, name in zip(names, allowed, strict=True):
        numbered, number = name, 2
        while numbered.lower() in used and (numbered != old or numbered.lower() == PARTITION):
            numbered, number = f"{name}_{number}", number + 1
        used.add(numbered.lower())
        published.append(numbered)
    return published


def partition(day: Day) -> str:
    """Return the folder of a day."""
    return f"{PARTITION}={day or NO_DAY}"


def is_partition(folder: str) -> bool:
    """Whether `partition` returns *folder* for some day."""
    match = re.fullmatch(rf"{PARTITION}=(\d{{4}}-\d\d-\d\d|{NO_DAY})", folder, re.ASCII)
    if match is None:
        return False
    try:
        return match[1] == NO_DAY or bool(date.fromisoformat(match[1]))
    except ValueError:
        return False
