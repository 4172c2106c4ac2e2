"""Streams batches of events to the caller, for destinations other than a DuckDB file."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from tempfile import gettempdir
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self
from weakref import finalize

import anyio
import httpx
from anyio import to_thread

from mixpanel_export._compat import set_stream_advice, stream_advice
from mixpanel_export._concurrency import in_task, in_thread
from mixpanel_export._database.settings import validation_database
from mixpanel_export._export.batch_stream import StreamOptions, StreamThread
from mixpanel_export._export.callbacks import Callbacks
from mixpanel_export._export.job import ExportArguments, Job, checked_job
from mixpanel_export._export.tuning import STREAM_TUNING, Tuning
from mixpanel_export._loop_thread import call_outside_loop
from mixpanel_export._source.parameters import Timeouts
from mixpanel_export._tracebacks import short_tracebacks
from mixpanel_export._writer.batch_content import ColumnReader, read_lines
from mixpanel_export._writer.load import ValidatedChunk
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import ArgumentError
from mixpanel_export.results import BatchProgress, ParallelFetchResult, Progress

if TYPE_CHECKING:
    import pyarrow as pa


@short_tracebacks
def stream_batches(
    from_date: str | date,
    to_date: str | date,
    *,
    credentials: Credentials | None = None,
    events: Iterable[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    max_workers: int = 10,
    chunk_days: int | None = None,
    one_request: bool = False,
    ordered: bool = False,
    dedupe: bool = True,
    retries: int = 5,
    max_wait: float = 86_400.0,
    on_batch_complete: Callable[[BatchProgress], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    api_url: str | None = None,
    per_second: int | None = None,
    per_hour: int | None = None,
    timeouts: Timeouts | None = None,
    project_timezone: str | None = None,
    http2: bool = False,
    folder: str | Path | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> "BatchStream":
    """Stream the raw events of the days from *from_date* to *to_date* in batches, without a database file.

    Each batch has the events of one response that is proven complete. Lines that are not events are left out, and
    duplicates within the batch are removed. `export_events` would load the same rows, except that it also removes
    duplicates across batches. Requests, quota, retries and errors are the same as for `export_events`.

    Batches arrive in any order or, if *ordered* is true, in date order. At any time, at most *max_workers* batches are
    being requested or are waiting to be consumed. They wait in temporary files in *folder* (None: the system's
    temporary folder, which is in memory on some systems). A batch can be read until the next one is requested. If
    the process is killed, a folder named `mpx-*` is left in *folder*. It contains events, so delete it.

    Callbacks are called in another thread. See `export_events` for the other arguments.

    Raises:
        ArgumentError, ConfigError: The arguments or credentials are invalid. No request was sent.

    While batches are consumed, the stream raises:
        AuthenticationError, QueryError: Mixpanel rejects all requests.
        MixpanelDataError: Some days failed. All other batches have been yielded. The `result` of the stream lists the
            days and their errors; the first of these errors is raised.

    Example:
        async for batch in stream_batches("2024-01-01", "2024-03-30"):
            print(batch.from_date, batch.to_date, batch.rows)
            for line in batch.lines():
                ...

    In code that cannot await, use `for batch in stream_batches(...)`. If the loop may end early, use the stream as a
    context manager: `async with stream_batches(...) as batches:`, or `with`.
    """
    temp_folder = Path(gettempdir() if folder is None else folder)
    if not temp_folder.is_dir():
        raise ArgumentError("folder", f"{temp_folder} is not a folder")
    arguments = ExportArguments(
        from_date=from_date,
        to_date=to_date,
        db=temp_folder / "batches",
        credentials=credentials,
        events=events,
        where=where,
        limit=limit,
        max_workers=max_workers,
        chunk_days=chunk_days,
        one_request=one_request,
        dedupe=dedupe,
        retries=retries,
        max_wait=max_wait,
        api_url=api_url,
        per_second=per_second,
        per_hour=per_hour,
        timeouts=timeouts,
        project_timezone=project_timezone,
        now=now,
    )
    return open_stream(
        arguments,
        Callbacks(on_batch_complete, on_progress),
        folder=temp_folder,
        ordered=ordered,
        http2=http2,
        transport=transport,
    )


def open_stream(
    arguments: ExportArguments,
    callbacks: Callbacks,
    *,
    folder: Path,
    ordered: bool = False,
    http2: bool = False,
    transport: httpx.AsyncBaseTransport | None = None,
    tuning: Tuning = STREAM_TUNING,
) -> "BatchStream":
    """Return the stream that the arguments describe. Raises the same errors as `stream_batches`."""
    job = call_outside_loop(partial(checked_job, arguments, tuning, purpose="stream of batches"))
    options = StreamOptions(
        folder=folder, max_chunks=job.workers, in_order=ordered, http2=http2, transport=transport
    )
    return BatchStream(job, callbacks, options)


@dataclass(frozen=True, slots=True, eq=False)
class EventBatch:
    """The events of one complete response. They can be read any number of times until the next batch is requested."""

    from_date: date
    """The first day."""
    to_date: date
    """The last day, inclusive."""
    rows: int
    """The number of events, without duplicates."""
    removed_duplicates: int
    """The number of duplicates within the batch that were removed."""
    rejects: int
    """The number of lines that are not events. They are left out."""
    repaired: int
    """The number of events whose text was changed because DuckDB could not read it."""
    is_final: bool
    """Whether the request was sent at least 48 hours after the last day. Otherwise, more events may arrive."""
    _stream: "BatchStream" = field(repr=False)
    _chunk: ValidatedChunk = field(repr=False)
    _number: int = field(repr=False)

    def lines(self) -> Iterator[bytes]:
        """Yield the line of each event as Mixpanel sent it, with its newline, in the order of the response.

        A line in an unusual form is rewritten as `{"event":…,"properties":…}`. The text of its properties is not
        changed, unless DuckDB could not read it (see `repaired`).
        """
        for piece in self._pieces():
            # Unlike `splitlines`, this does not split at carriage returns, which may separate JSON values.
            yield from BytesIO(piece)

    def write_to(self, file: BinaryIO) -> None:
        """Write all lines to a binary file."""
        file.writelines(self._pieces())

    def to_arrow(self) -> "pa.RecordBatchReader":
        """Return a reader for the events as Arrow record batches of up to about 8 MB. This requires pyarrow.

        The columns are the first five columns of an events table: event_name, event_time (in UTC, without a zone),
        distinct_id, insert_id and properties (the exact text of the JSON object).
        """
        try:
            import pyarrow as pa  # noqa: PLC0415 - optional
        except ImportError as error:
            raise ImportError("to_arrow requires pyarrow; run `pip install pyarrow`, or use lines") from error
        text = pa.string()
        schema = pa.schema({
            "event_name": text,
            "event_time": pa.timestamp("us"),
            "distinct_id": text,
            "insert_id": text,
            "properties": text,
        })  # fmt: skip
        return pa.RecordBatchReader.from_batches(schema, map(pa.record_batch, self._arrays()))

    def _pieces(self) -> Iterator[memoryview]:
        self._check()
        for piece in read_lines(self._chunk):
            yield piece
            self._check()

    def _arrays(self) -> Iterator[object]:
        self._check()
        for array in self._stream._reader().arrays(self._chunk):  # noqa: SLF001 - same module
            yield array
            self._check()

    def _check(self) -> None:
        if self._stream._number != self._number:  # noqa: SLF001 - same module
            days = self._chunk.batch.days
            raise ValueError(f"{days}: this batch can no longer be read, because the next one was requested")


class BatchStream(Iterator[EventBatch], AsyncIterator[EventBatch]):
    """The batches of a `stream_batches` call. Iterate over them with `async for` or `for`.

    No request is sent before the iteration starts. Only one thread or task at a time may use a stream. At the end of the context, or when `close()` is called, all
    requests are cancelled, and the temporary files are removed.
    """

    def __init__(self, job: Job, callbacks: Callbacks, options: StreamOptions) -> None:
        self._thread = StreamThread(job, callbacks, options)  # must not refer to the stream
        self._is_over = False
        self._numbers = count(1)
        self._number = 0  # the number of the batch that can be read; 0 if there is none
        self._result: ParallelFetchResult | None = None
        self._database = ExitStack()
        self._column_reader: ColumnReader | None = None
        finalize(self, self._thread.abandon)

    @property
    def result(self) -> ParallelFetchResult | None:
        """The result, as in `export_events`; None until the stream has ended.

        It lists the days that failed and their errors.
        """
        return self._result

    def close(self) -> None:
        """Cancel all requests and remove the temporary files. The stream yields no more batches."""
        self._is_over = True
        self._number = 0
        self._thread.close()
        self._column_reader = None
        self._database.close()

    async def aclose(self) -> None:
        """Like `close`, but without blocking the event loop."""
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    @short_tracebacks
    def __next__(self) -> EventBatch:
        self._thread.consume()
        try:
            batch = self._next()
        except BaseException:
            self.close()
            raise
        if batch is None:
            raise StopIteration
        return batch

    async def __anext__(self) -> EventBatch:
        self._thread.consume()
        try:
            batch = await in_task(partial(in_thread, self._next, self._thread.cancel))
        except BaseException:
            await self.aclose()
            raise
        if batch is None:
            raise StopAsyncIteration
        return batch

    def _next(self) -> EventBatch | None:
        if self._is_over:
            return None
        self._number = 0
        chunk = self._thread.take()
        if chunk is None:
            self._end()
            return None
        self._number = next(self._numbers)
        batch = chunk.batch
        return EventBatch(
            from_date=batch.days.first,
            to_date=batch.days.last,
            rows=batch.rows,
            removed_duplicates=batch.removed_duplicates,
            rejects=batch.rejects,
            repaired=batch.repaired,
            is_final=batch.status == "complete",
            _stream=self,
            _chunk=chunk,
            _number=self._number,
        )

    def _end(self) -> None:
        """Set the result, and raise the first error."""
        self._is_over = True
        with stream_advice():
            self._result = self._thread.result()
        for error in self._result.errors:
            set_stream_advice(error)
        if self._result.errors:
            raise self._result.errors[0]

    def _reader(self) -> ColumnReader:
        if self._column_reader is None:
            connection = self._database.enter_context(validation_database())
            self._column_reader = ColumnReader(connection)
        return self._column_reader
