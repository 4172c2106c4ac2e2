"""A data set: one file for each part of the table in a store, such as a folder."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mixpanel_export._database.publications import Day
from mixpanel_export._publish.layout import FileFormat
from mixpanel_export._publish.parts import Parts
from mixpanel_export._publish.plan import StoredFile
from mixpanel_export._publish.source import Source


class Store(Protocol):
    """The files under a folder or a URL. Names are relative paths with forward slashes."""

    def files(self) -> dict[str, StoredFile]:
        """Return all files except those that readers of data sets ignore."""
        ...

    def staging(self) -> AbstractContextManager[Path]:
        """Prepare the store, and yield a local folder. Files are written there before they are `put` into the store."""
        ...

    def put(self, file: Path, name: str) -> StoredFile:
        """Store a complete local file, atomically. Several threads may call this at the same time."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        ...

    def reading(self, name: str) -> AbstractContextManager[Path]:
        """Yield a local path at which the file can be read."""
        ...


@dataclass(frozen=True, slots=True)
class DayFile:
    """A day's file that this publication has written."""

    day: Day
    name: str
    size: int
    rows: int


class DataSet(Protocol):
    """The files of a data set, and how they become visible."""

    @property
    def store(self) -> Store:
        """Where the files are."""
        ...

    @property
    def visible_at_once(self) -> bool:
        """Whether readers see each file as soon as it is stored, rather than all of them after `finish`."""
        ...

    @property
    def format(self) -> FileFormat:
        """The format of the files."""
        ...

    def files(self) -> dict[str, StoredFile]:
        """Return the files that readers see, including files that other programs wrote."""
        ...

    def owns(self, name: str) -> bool:
        """Whether a file may belong to the data set."""
        ...

    def put(self, file: Path, day: Day) -> tuple[str, StoredFile]:
        """Store a part's file. Return the name and the state of the stored file."""
        ...

    def finish(self, source: Source, written: Sequence[DayFile], obsolete: Collection[str]) -> None:
        """Make the *written* files visible, unless they already are, and remove the *obsolete* files."""
        ...


@dataclass(frozen=True, slots=True)
class PlainFiles:
    """A data set of plain files, one for each part. Each file is visible as soon as it is written."""

    store: Store
    format: FileFormat
    parts: Parts
    visible_at_once: bool = True

    def files(self) -> dict[str, StoredFile]:
        """Return all files, including those that other programs wrote."""
        return self.store.files()

    def owns(self, name: str) -> bool:
        """Whether a file has the name of a part's file."""
        return self.format.owns(self.parts, name)

    def put(self, file: Path, day: Day) -> tuple[str, StoredFile]:
        """Store a part's file, and replace the old one. Return the name and the state of the new file."""
        name = self.format.file(self.parts, day)
        return name, self.store.put(file, name)

    def finish(self, source: Source, written: Sequence[DayFile], obsolete: Collection[str]) -> None:  # noqa: ARG002
        """Delete the *obsolete* files."""
        for name in obsolete:
            self.store.delete(name)
