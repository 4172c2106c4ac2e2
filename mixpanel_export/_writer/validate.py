"""Validates staged chunks, several at a time, while other chunks are committed.

Validators read Arrow arrays only, so they use a separate database in memory, whose settings no application can change.

A chunk with doubtful lines (see `extract`) is repaired line by line, or fetched once more.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime

import duckdb
import numpy as np

from mixpanel_export._database.connection import Connection, first_moment, last_moment
from mixpanel_export._database.settings import most_memory, validation_database
from mixpanel_export._model import Batch, Malformed, Status, Unloadable
from mixpanel_export._planning.planner import is_open
from mixpanel_export._timezones import detect_offset, in_zone, naive_utc
from mixpanel_export._writer.chunk_duplicates import duplicate_places, prepared_comparison
from mixpanel_export._writer.extract import Extraction, ExtractionStatement, LoadError, RowCounts, extract
from mixpanel_export._writer.load import UNLOADABLE, ValidatedChunk, first_line
from mixpanel_export._writer.repair import repair
from mixpanel_export._writer.staging import StagedChunk, Staging
from mixpanel_export._writer.table import EventsTable

_CLOCK_SAMPLES = 20  # chunks; a local clock shows in each of them


class ClockCheck:
    """Detects local times in the first chunks of an export."""

    def __init__(self, *, enabled: bool) -> None:
        self._samples = _CLOCK_SAMPLES if enabled else 0
        self.offset: float | None = None
        """The offset of most times from UTC in hours; None if they look like UTC so far."""

    def look_at(self, staged: StagedChunk) -> None:
        """Examine some lines of a chunk, unless enough chunks have been examined."""
        if self.offset is None and self._samples:
            self._samples -= 1
            self.offset = detect_offset(staged.first_lines())


class Validator:
    """Validates chunks for *table*, on *connection*. Only one thread may use it at a time."""

    def __init__(
        self, connection: Connection, table: EventsTable, staging: Staging, clock: ClockCheck
    ) -> None:
        self._connection = connection
        self._spec = table.spec
        self._table = table.filled
        self._errors = table.errors
        self._staging = staging
        self._clock = clock
        self._extraction = ExtractionStatement(connection, table.spec.zone)
        self._comparison = prepared_comparison(connection)

    def validate(self, staged: StagedChunk) -> ValidatedChunk | Malformed | Unloadable:
        """Return the validated chunk, or a verdict. With a verdict, the chunk's files are removed.

        A chunk with lines that are not events is `Malformed`, unless it keeps its rejects. A chunk that DuckDB cannot read
        is `Unloadable`.

        Raises:
            DatabaseError: DuckDB or the file system fails.
            InterruptedCall: `interrupt` was called.
        """
        with (
            self._errors(str(staged.chunk)),
            self._staging.writing(),
        ):
            self._clock.look_at(staged)
            return self._validated(staged)

    def interrupt(self) -> None:
        """Stop the statement that runs in another thread, if any."""
        self._connection.interrupt()

    def _validated(self, staged: StagedChunk) -> ValidatedChunk | Malformed | Unloadable:
        try:
            chunk, doubtful = self._extracted_with_enough_memory(staged)
            if chunk is not None:
                return chunk
            repaired = repair(self._connection, staged, doubtful, self._staging)
        except UNLOADABLE as error:
            self._staging.discard(staged)
            return Unloadable(staged.chunk, first_line(error))
        if repaired.rejects and not repaired.keep_rejects:
            self._staging.discard(repaired)
            return Malformed(repaired.chunk, repaired.rejects)
        return self._validated(repaired)

    def _extracted_with_enough_memory(self, staged: StagedChunk) -> tuple[ValidatedChunk | None, set[int]]:
        try:
            return self._extracted(staged)
        except duckdb.OutOfMemoryException:
            with most_memory(self._connection, staged.longest_segment):
                return self._extracted(staged)

    def _extracted(self, staged: StagedChunk) -> tuple[ValidatedChunk | None, set[int]]:
        """Return the validated chunk, or None and the numbers of its doubtful lines."""
        extraction = Extraction(self._staging.columns, self._staging.columns_file(staged))
        with ExitStack() as on_failure:
            on_failure.callback(extraction.columns.discard)
            extract(self._extraction, staged, extraction)
            if extraction.lines != staged.lines:
                raise LoadError(
                    f"{extraction.lines} of {staged.lines} staged lines of {staged.chunk} were read; please report this"
                )
            if extraction.doubtful:
                return None, extraction.doubtful
            keep = np.ones(extraction.columns.rows, np.bool_)
            if self._spec.dedupe:
                keep[duplicate_places(self._comparison, staged, extraction)] = False
            counts = extraction.count(*self._moments(staged), keep)
            on_failure.pop_all()
        return ValidatedChunk(
            staged=staged,
            batch=self._batch(staged, counts),
            properties=tuple(index.properties for index in extraction.indexes),
            columns=extraction.columns,
            keep=keep,
            longest=max((index.longest for index in extraction.indexes), default=0),
        ), set()

    def _moments(self, staged: StagedChunk) -> tuple[datetime, datetime]:
        """Return the first and the last moment of the chunk's days, in naive UTC."""
        first = first_moment(f"DATE '{staged.chunk.first}'", self._spec.zone)
        last = last_moment(f"DATE '{staged.chunk.last}'", self._spec.zone)
        ((begin, end),) = self._connection.execute(f"SELECT {first}, {last}").fetchall()
        return begin, end

    def _batch(self, staged: StagedChunk, counts: RowCounts) -> Batch:
        return Batch(
            number=staged.batch,
            days=staged.chunk,
            status=self._status(staged),
            selection=self._spec.selection,
            table=self._table,
            zone=self._spec.zone,
            deduplicated=self._spec.dedupe,
            rejects=staged.rejects,
            repaired=staged.repaired,
            bytes_read=staged.end.bytes_read,
            attempts=staged.end.attempts,
            requested_at=naive_utc(staged.end.requested_at),
            **asdict(counts),
        )

    def _status(self, staged: StagedChunk) -> Status:
        if self._spec.limited:
            return "limited"
        requested_at = in_zone(staged.end.requested_at, self._spec.zone)
        return "open" if is_open(staged.chunk.last, requested_at) else "complete"


@contextmanager
def validators_for(
    table: EventsTable, staging: Staging, clock: ClockCheck, count: int
) -> Iterator[list[Validator]]:
    """Yield *count* validators, which share a database in memory."""
    with validation_database() as database, ExitStack() as stack:
        cursors = [stack.enter_context(database.cursor()) for _ in range(count)]
        yield [Validator(cursor, table, staging, clock) for cursor in cursors]
