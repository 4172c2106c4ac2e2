"""The names of the files in a data set, and the SQL that writes them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType

from mixpanel_export._database.publications import Day
from mixpanel_export._publish.source import PARTITION, Source

NO_DAY = "__HIVE_DEFAULT_PARTITION__"
"""The partition of rows without a time. Readers return NULL for this name, and keep the type DATE."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A format of the files."""

    name: str
    suffix: str
    options: str
    """The options of DuckDB's COPY."""

    def file(self, day: Day) -> str:
        """Return the path of a day's file, relative to the destination."""
        return f"{partition(day)}/data{self.suffix}"

    def owns(self, file: str) -> bool:
        """Whether a path has the form of `file`."""
        folder, _, name = file.partition("/")
        return name == f"data{self.suffix}" and is_partition(folder)

    def copy(self, source: Source, day: Day, target: Path) -> str:
        """Return the statement that writes a day's rows to the file *target*."""
        literal = "'" + str(target).replace("'", "''") + "'"
        return f"COPY ({source.select(day)}) TO {literal} ({self.options})"


PARQUET = FileFormat("parquet", ".parquet", "FORMAT parquet, COMPRESSION zstd")
FORMATS: Mapping[str, FileFormat] = MappingProxyType({PARQUET.name: PARQUET})


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
