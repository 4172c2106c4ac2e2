"""One publication: writes the changed parts in several threads, and records the files in the database."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import duckdb

from mixpanel_export._concurrency import InterruptedCall
from mixpanel_export._database.connection import Connection
from mixpanel_export._database.publications import Day, PublishedDay, record_days
from mixpanel_export._database.settings import with_enough_memory
from mixpanel_export._publish.data_set import DataSet
from mixpanel_export._publish.plan import Plan, StoredFile, groups
from mixpanel_export._publish.source import DayVersion, Source, content_of_file
from mixpanel_export._publish.workers import Workers
from mixpanel_export.publication import PublishError, PublishProgress, Watcher


@dataclass(frozen=True, slots=True)
class DayResult:
    """The result of publishing a changed part."""

    day: Day
    state: PublishedDay
    unchanged: bool
    """Whether the old file stayed, because its rows are the same."""


class Totals:
    """Counts the parts of a publication and reports the progress. Several threads may use it."""

    def __init__(self, days: int, on_progress: Watcher) -> None:
        self._progress = PublishProgress(days, 0, 0, 0)
        self._on_progress = on_progress
        self._lock = Lock()
        on_progress(self._progress)

    def add(self, result: DayResult) -> None:
        """Count a part."""
        with self._lock:
            before = self._progress
            rows, size = (0, 0) if result.unchanged else (result.state.rows, result.state.size)
            self._progress = PublishProgress(
                before.days, before.days_done + 1, before.rows + rows, before.bytes_written + size
            )
            self._on_progress(self._progress)


@dataclass(frozen=True, slots=True)
class Publisher:
    """Writes parts of a table to a data set."""

    destination: str
    owner: str
    """The id of the publication."""
    source: Source
    versions: Mapping[Day, DayVersion]
    published: Mapping[Day, PublishedDay]
    plan: Plan
    data_set: DataSet
    staging: Path
    workers: Workers
    totals: Totals

    def write(self, connection: Connection) -> list[DayResult]:
        """Write the changed parts of the plan, in groups.

        If readers see files at once, each group is recorded when it is written. After an error in one group, the groups
        that are being written are still completed and recorded.
        """
        results: list[DayResult] = []
        for group in self.workers.results(self._write_group, groups(self.plan.changed, self.versions)):
            if self.data_set.visible_at_once:
                record_days(connection, self.destination, {each.day: each.state for each in group})
            results += group
        return results

    def different(self, days: Mapping[Day, PublishedDay]) -> list[Day]:
        """Read the files of all parts, and return the parts whose file differs from the table."""
        files = {day: state.file for day, state in days.items()}
        work = partial(self._compare_group, files)
        return [
            day
            for different in self.workers.results(work, groups(sorted(files, key=str), self.versions))
            for day in different
        ]

    def _write_group(self, connection: Connection, days: Sequence[Day]) -> list[DayResult]:
        with self._converting_errors("read", days):
            contents = self.source.contents(connection, days)
        return [self._write(connection, day, contents[day]) for day in days]

    def _write(self, connection: Connection, day: Day, content: str) -> DayResult:
        """Write a part, unless its file is intact and has the same rows."""
        self.workers.check()
        version = self.versions[day]
        old = self.published.get(day)
        if old is not None and day in self.plan.intact and old.content_hash == content:
            state = PublishedDay(version.version, version.rows, content, old.file, old.size, old.stamp)
            result = DayResult(day, state, unchanged=True)
        else:
            name, stored = self._put(connection, day)
            state = PublishedDay(version.version, version.rows, content, name, stored.size, stored.stamp)
            result = DayResult(day, state, unchanged=False)
        self.totals.add(result)
        return result

    def _put(self, connection: Connection, day: Day) -> tuple[str, StoredFile]:
        file = self.staging / f"{self.source.parts.name(day)}.tmp"
        with self._converting_errors("write", [day]):
            try:
                with_enough_memory(connection, partial(self._copy, connection, day, file))
                return self.data_set.put(file, day)
            finally:
                file.unlink(missing_ok=True)

    def _copy(self, connection: Connection, day: Day, file: Path) -> None:
        file.unlink(missing_ok=True)  # an earlier attempt ran out of memory
        connection.execute(self.data_set.format.copy(self.source, day, self.owner, file))

    def _compare_group(
        self, files: Mapping[Day, str], connection: Connection, days: Sequence[Day]
    ) -> list[Day]:
        with self._converting_errors("read", days):
            contents = self.source.contents(connection, days)
        return [day for day in days if self._content(connection, day, files[day]) != contents[day]]

    def _content(self, connection: Connection, day: Day, file: str) -> str:
        self.workers.check()
        with self._converting_errors("read", [day]), self.data_set.store.reading(file) as path:
            return content_of_file(connection, self.data_set.format.names(self.source), path)

    @contextmanager
    def _converting_errors(self, action: str, days: Sequence[Day]) -> Iterator[None]:
        """Convert errors from the operating system and from DuckDB to a `PublishError` with the days."""
        try:
            yield
        except duckdb.InterruptException as error:
            raise InterruptedCall from error
        except (duckdb.Error, OSError) as error:
            raise publish_error(self.destination, error, action, self.source.parts.words(days)) from error


def publish_error(destination: str, error: Exception, action: str, days: str | None = None) -> PublishError:
    """Return the error for a failed *action*, such as `write`, with advice. *days* are the days that failed."""
    reason = error.strerror if isinstance(error, OSError) else None
    reason = reason or str(error).splitlines()[0]
    permission = isinstance(error, PermissionError)
    cause = "the permissions and the credentials" if permission else "the destination and the free space"
    return PublishError(
        f"cannot {action} {destination} ({reason})",
        destination=destination,
        days=days,
        advice=f"check {cause}, then publish again",
    )
