"""Shared by the tests of the writer: a table, and chunks that are staged, validated and committed into it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from mixpanel_export._database.connection import connected_for_export
from mixpanel_export._database.preflight import ExportSpec, Mode
from mixpanel_export._model import (
    Block,
    Chunk,
    ChunkEnd,
    ChunkStart,
    Committed,
    Malformed,
    Selection,
    Unloadable,
)
from mixpanel_export._writer.group import Group
from mixpanel_export._writer.load import ValidatedChunk
from mixpanel_export._writer.staging import StagedChunk, Staging
from mixpanel_export._writer.table import EventsTable
from mixpanel_export._writer.validate import ClockCheck, Validator, validators_for
from mixpanel_export._writer.writer import Writer

DAYS = [Chunk(date(2024, 3, day), date(2024, 3, day)) for day in range(1, 6)]
ALL = Chunk(DAYS[0].first, DAYS[-1].last)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
Validated = ValidatedChunk | Malformed | Unloadable
LINE = b'{"event":"e","properties":{"time":1709294400,"$insert_id":"%d"}}\n'


@pytest.fixture
def connection(db: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection as an export has it."""
    with connected_for_export(db) as connection:
        yield connection


class NumberedTable(EventsTable):
    """A table that numbers the batches of `DAYS` in order."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path, spec: ExportSpec) -> None:
        super().__init__(connection, path, spec)
        self.numbers: dict[Chunk, int] = {}

    def number(self, chunks: Sequence[Chunk]) -> Staging:
        """Number the batches of *chunks*, and return a staging for them."""
        self.numbers.update(zip(chunks, self.allocate_batch_numbers(len(chunks)), strict=True))
        return Staging(self.path)


def new_table(
    connection: duckdb.DuckDBPyConnection, db: Path, mode: Mode = "create", dedupe: bool = True
) -> NumberedTable:
    spec = ExportSpec(table="events", selection=Selection("1"), days=ALL, mode=mode, dedupe=dedupe)
    return NumberedTable(connection, db, spec)


def staged(
    table: NumberedTable, staging: Staging, chunk: Chunk, lines: bytes, *, keep_rejects: bool = False
) -> StagedChunk:
    """Stage *lines* as the response for *chunk*, whose days contain their events."""
    lines = lines.replace(b'"$insert_id":"', b'"$insert_id":"%d-' % chunk.first.day)
    staging.start(ChunkStart(chunk, table.numbers[chunk], keep_rejects))
    staging.add(Block(chunk, (lines,)))
    return staging.end(ChunkEnd(chunk, NOW, attempts=1, bytes_read=1, size=len(lines)))


def validate(validator: Validator, chunk: StagedChunk) -> Validated:
    """Extract each segment of the chunk, then validate it."""
    segments = [validator.extract(segment, chunk.chunk) for segment in chunk.segments]
    return validator.validate(chunk, segments)


def validated(table: NumberedTable, group: Sequence[StagedChunk], staging: Staging) -> list[Validated]:
    """Validate the chunks one after the other."""
    with validators_for(table, staging, ClockCheck(enabled=False), 1) as (validator,):
        return [validate(validator, chunk) for chunk in group]


def committed(
    table: NumberedTable, group: Sequence[StagedChunk], staging: Staging
) -> list[Committed | Unloadable | Malformed]:
    """Validate the chunks, then commit the valid ones together."""
    results = validated(table, group, staging)
    valid = [result for result in results if isinstance(result, ValidatedChunk)]
    verdicts = {verdict.chunk: verdict for verdict in together(table, valid, staging)} if valid else {}
    return [
        verdicts[result.batch.days] if isinstance(result, ValidatedChunk) else result for result in results
    ]


def together(
    table: NumberedTable, group: Sequence[ValidatedChunk], staging: Staging
) -> list[Committed | Unloadable]:
    """Commit the chunks together."""
    return Writer(table, staging, now).commit(group_of(group))


def group_of(chunks: Sequence[ValidatedChunk]) -> Group:
    """Return a closed group."""
    first, *others = chunks
    group = Group(first, open_for=60)
    for chunk in others:
        group.add(chunk)
    group.close()
    return group


def lines(number: int) -> bytes:
    return b"".join(LINE % line for line in range(number))


def now() -> datetime:
    return NOW
