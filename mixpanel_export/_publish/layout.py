"""The names of the files in a data set, and the SQL that writes them."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mixpanel_export._database.connection import quoted
from mixpanel_export._database.publications import Day
from mixpanel_export._publish.parts import Parts
from mixpanel_export._publish.source import Source

OWNER = "mpx_publication"
"""The key in the metadata of a Parquet file whose value is the id of the publication."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A format of the files."""

    name: str
    suffix: str
    options: str
    """The options of DuckDB's COPY."""
    strict: bool = False
    """Whether JSON is written as text, and characters that Delta does not allow in column names are replaced."""

    def file(self, parts: Parts, day: Day) -> str:
        """Return the path of a part's file, relative to the destination."""
        return f"{parts.folder(day)}data{self.suffix}"

    def owns(self, parts: Parts, file: str) -> bool:
        """Whether `file` returns this path for some day."""
        name = f"data{self.suffix}"
        return file.endswith(name) and parts.has_folder(file.removesuffix(name))

    def names(self, source: Source) -> list[str]:
        """Return the names of the columns in the data set."""
        names = [name for name, _ in source.columns]
        return published_names(names, source.parts.columns, strict=self.strict)

    def copy(self, source: Source, day: Day, owner: str, target: Path) -> str:
        """Return the statement that writes a part's rows, and the id of the publication, to the file *target*."""
        literal = "'" + str(target).replace("'", "''") + "'"
        columns = (
            f"{quoted(name)}{'::VARCHAR' if self.strict and kind == 'JSON' else ''} AS {quoted(published)}"
            for (name, kind), published in zip(source.columns, self.names(source), strict=True)
        )
        rows = (
            f"SELECT {', '.join(columns)} FROM {quoted(source.table)} WHERE {source.parts.condition([day])}"
        )
        return f"COPY ({rows}) TO {literal} ({self.options}, KV_METADATA {{{OWNER}: '{owner}'}})"


PARQUET = FileFormat("parquet", ".parquet", "FORMAT parquet, COMPRESSION zstd")
DELTA = FileFormat("delta", ".parquet", PARQUET.options, strict=True)
FORMATS: Mapping[str, FileFormat] = MappingProxyType({each.name: each for each in (PARQUET, DELTA)})


def published_names(
    names: Sequence[str], reserved: Collection[str] = (), *, strict: bool = False
) -> list[str]:
    """Return the names of the columns in the data set. Two names never differ only in case, because readers ignore case.

    A *reserved* column gets a number, because readers take it from the names of the folders. If *strict* is true, characters
    that Delta does not allow become `_`, and the new name gets a number if another column has that name.
    """
    allowed = [re.sub(r"[ ,;{}()\n\t=]", "_", name) if strict else name for name in names]
    used = {*reserved, *(name.lower() for name in names)}
    published: list[str] = []
    for old, name in zip(names, allowed, strict=True):
        numbered, number = name, 2
        while numbered.lower() in used and (numbered != old or numbered.lower() in reserved):
            numbered, number = f"{name}_{number}", number + 1
        used.add(numbered.lower())
        published.append(numbered)
    return published
