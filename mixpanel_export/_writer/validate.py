"""Validates staged chunks, several at a time, while other chunks are committed.

Validators read only Arrow arrays, so they can use a separate in-memory database. Applications cannot change the settings
of this database.

A chunk with doubtful lines (see `extract`) is either repaired line by line or fetched again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import cache, partial
from typing import Any, TypeVar

import duckdb
import numpy as np

from mixpanel_export._database.connection import Connection, first_moment, last_moment
from mixpanel_export._database.settings import maximum_memory, validation_database
from mixpanel_export._model import Batch, Chunk, Malformed, Status, Unloadable
from mixpanel_export._planning.planner import is_open
from mixpanel_export._timezones import detect_offset, in_zone, naive_utc
from mixpanel_export._writer.arrow import LINE, ExtractedColumns
from mixpanel_export._writer.chunk_duplicates import comparison, duplicate_positions
from mixpanel_export._writer.destination import Destination
from mixpanel_export._writer.extract import (
    ExtractedSegment,
    Extraction,
    ExtractionStatement,
    LoadError,
    RowCounts,
)
from mixpanel_export._writer.load import UNLOADABLE, ValidatedChunk, first_line
from mixpanel_export._writer.prepared import ArrowTable
from mixpanel_export._writer.repair import repair
from mixpanel_export._writer.staging import Segment, StagedChunk, Staging

T = TypeVar("T")

_CLOCK_SAMPLES = 20  # the number of chunks that are examined for local times


class ClockCheck:
    """Detects local times in an export's first chunks."""

    def __init__(self, *, enabled: bool) -> None:
        self._samples = _CLOCK_SAMPLES if enabled else 0
        self.offset: float | None = None
        """The offset of most times from UTC, in hours; None if they have looked like UTC so far."""

    def look_at(self, staged: StagedChunk) -> None:
        """Examine some lines of a chunk, unless enough chunks have been examined."""
        if self.offset is None and self._samples:
            self._samples -= 1
            self.offset = detect_offset(staged.first_lines())


class Validator:
    """Validates chunks for *destination*, using *connection*. Only one thread at a time may use a validator."""

    def __init__(
        self, connection: Connection, destination: Destination, staging: Staging, clock: ClockCheck
    ) -> None:
        self._connection = connection
        self._spec = destination.spec
        self._table = destination.target_table
        self._converting_errors = destination.converting_errors
        self._staging = staging
        self._clock = clock
        lines = ArrowTable(connection, LINE)
        self._extraction = ExtractionStatement(lines, destination.spec.zone)
        self._comparison = comparison(lines)
        self._days = cache(self._first_and_last_moment)

    def extract(self, segment: Segment, chunk: Chunk) -> ExtractedSegment | Unloadable:
        """Return the columns of a segment of *chunk*, or `Unloadable` if DuckDB cannot read the segment.

        Raises:
            DatabaseError: DuckDB or the file system fails.
            InterruptedCall: `interrupt` was called.
        """
        with self._converting_errors(str(chunk)), self._staging.writing():
            try:
                return self._extract(segment, self._days(chunk))
            except UNLOADABLE as error:
                return Unloadable(chunk, first_line(error))

    def validate(
        self, staged: StagedChunk, segments: Sequence[ExtractedSegment | Unloadable]
    ) -> ValidatedChunk | Malformed | Unloadable:
        """Return the validated chunk or a verdict. If a verdict is returned, the chunk's files have been removed.

        *segments* contains the results of `extract` for the chunk's segments. A chunk with lines that are not events is
        `Malformed`, unless its rejects should be stored. A chunk that DuckDB cannot read is `Unloadable`.

        Raises:
            DatabaseError: DuckDB or the file system fails.
            InterruptedCall: `interrupt` was called.
        """
        with self._converting_errors(str(staged.chunk)), self._staging.writing():
            self._clock.look_at(staged)
            extracted = [segment for segment in segments if isinstance(segment, ExtractedSegment)]
            unloadable = next((segment for segment in segments if isinstance(segment, Unloadable)), None)
            if unloadable is None:
                return self._validate_segments(staged, extracted)
            discard(extracted)
            self._staging.discard(staged)
            return unloadable

    def interrupt(self) -> None:
        """Stop the statement that runs in another thread, if any."""
        self._connection.interrupt()

    def _extract(self, segment: Segment, days: tuple[datetime, datetime]) -> ExtractedSegment:
        text = segment.text()

        def store(arrays: Sequence[Any]) -> ExtractedColumns:
            return ExtractedColumns(arrays, self._staging.columns, self._staging.columns_file())

        return self._with_enough_memory(segment.size, partial(self._extraction.extract, text, days, store))

    def _validate_segments(
        self, staged: StagedChunk, segments: Sequence[ExtractedSegment]
    ) -> ValidatedChunk | Malformed | Unloadable:
        try:
            with ExitStack() as on_failure:
                on_failure.callback(discard, segments)
                extraction = Extraction(segments)
                if extraction.lines != staged.lines:
                    raise LoadError(
                        f"{extraction.lines} of {staged.lines} staged lines of {staged.chunk} were read; please report this"
                    )
                doubtful = extraction.doubtful()
                if not doubtful:
                    chunk = self._without_duplicates(staged, extraction)
                    on_failure.pop_all()
                    return chunk
            repaired = repair(self._connection, staged, doubtful, self._staging)
            if repaired.rejects and not repaired.keep_rejects:
                self._staging.discard(repaired)
                return Malformed(repaired.chunk, repaired.rejects)
            staged = repaired
            return self._validate_segments(repaired, self._extract_all(repaired))
        except UNLOADABLE as error:
            self._staging.discard(staged)
            return Unloadable(staged.chunk, first_line(error))

    def _extract_all(self, staged: StagedChunk) -> list[ExtractedSegment]:
        extracted: list[ExtractedSegment] = []
        with ExitStack() as on_failure:
            on_failure.callback(discard, extracted)
            days = self._days(staged.chunk)
            extracted.extend(self._extract(segment, days) for segment in staged.segments)
            on_failure.pop_all()
        return extracted

    def _without_duplicates(self, staged: StagedChunk, extraction: Extraction) -> ValidatedChunk:
        keep = np.ones(extraction.rows, np.bool_)
        if self._spec.dedupe:
            positions = partial(duplicate_positions, self._comparison, staged, extraction)
            keep[self._with_enough_memory(staged.longest_segment, positions)] = False
        counts = extraction.count(keep)
        return ValidatedChunk(
            staged=staged,
            batch=self._batch(staged, counts),
            properties=tuple(segment.properties for segment in extraction.segments),
            columns=tuple(segment.columns for segment in extraction.segments),
            keep=keep,
            longest=max((segment.longest for segment in extraction.segments), default=0),
        )

    def _with_enough_memory(self, longest: int, read: Callable[[], T]) -> T:
        """Return the result of *read*. If memory is insufficient, retry once with more, for lines of up to *longest* bytes."""
        try:
            return read()
        except duckdb.OutOfMemoryException:
            with maximum_memory(self._connection, longest):
                return read()

    def _first_and_last_moment(self, chunk: Chunk) -> tuple[datetime, datetime]:
        """Return the first and the last moment of the chunk's days, in naive UTC."""
        first = first_moment(f"DATE '{chunk.first}'", self._spec.zone)
        last = last_moment(f"DATE '{chunk.last}'", self._spec.zone)
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
            **asdict(staged.end.times),
        )

    def _status(self, staged: StagedChunk) -> Status:
        if self._spec.limited:
            return "limited"
        requested_at = in_zone(staged.end.requested_at, self._spec.zone)
        return "open" if is_open(staged.chunk.last, requested_at) else "complete"


def discard(segments: Iterable[ExtractedSegment | Unloadable]) -> None:
    """Release the memory of extracted columns and remove their files."""
    for segment in segments:
        if isinstance(segment, ExtractedSegment):
            segment.columns.discard()


@contextmanager
def validators_for(
    destination: Destination, staging: Staging, clock: ClockCheck, count: int
) -> Iterator[list[Validator]]:
    """Yield *count* validators, which share an in-memory database."""
    with validation_database() as database, ExitStack() as stack:
        cursors = [stack.enter_context(database.cursor()) for _ in range(count)]
        yield [Validator(cursor, destination, staging, clock) for cursor in cursors]
