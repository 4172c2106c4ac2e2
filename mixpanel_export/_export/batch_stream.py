"""Runs a job in a thread, and passes its chunks to a consumer in another thread."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread, current_thread, main_thread

import anyio
import httpx
from anyio import to_thread

from mixpanel_export._concurrency import InterruptedCall, entered_in_thread, in_task
from mixpanel_export._database.connection import check_zone
from mixpanel_export._database.settings import validation_database
from mixpanel_export._export.callbacks import Callbacks
from mixpanel_export._export.emptiness import warn_of_emptiness
from mixpanel_export._export.job import Job
from mixpanel_export._export.tracker import Tracker
from mixpanel_export._export.transfer import transfer
from mixpanel_export._loop_thread import CancellableCall, LoopThread
from mixpanel_export._source.client import new_client
from mixpanel_export._writer.batch_writer import BatchDestination, BatchWriter
from mixpanel_export._writer.handoff import Handoff
from mixpanel_export._writer.load import ValidatedChunk
from mixpanel_export.results import ParallelFetchResult

_CHECK_INTERVAL = 0.5  # seconds between checks that a consumer still exists


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """Options for streaming the batches of a job."""

    folder: Path
    """The folder for temporary files."""
    max_chunks: int
    """The maximum number of chunks that are requested or staged at a time."""
    in_order: bool
    """Whether to offer batches in date order."""
    http2: bool = False
    transport: httpx.AsyncBaseTransport | None = None


class StreamThread:
    """A thread that runs a job in an event loop of its own. The thread starts when `take` is first called.

    The consumers are the main thread and the thread that last called `consume`. When both have ended, nobody can take
    another chunk, so the job ends.
    """

    def __init__(self, job: Job, callbacks: Callbacks, options: StreamOptions) -> None:
        self._handoff = Handoff()
        self._consumers = [main_thread()]
        run = partial(
            _run_stream, job, self._handoff, callbacks, options, partial(_have_ended, self._consumers)
        )
        self._call = CancellableCall(run)
        self._thread = LoopThread(self._call)
        self._is_started = self._is_cancelled = False

    def consume(self) -> None:
        """Make the current thread a consumer."""
        self._consumers[1:] = [current_thread()]

    def take(self) -> ValidatedChunk | None:
        """Release the previous chunk, and wait for the next one. Return None if there are no more."""
        if not self._is_started:
            self._is_started = True
            self._thread.start()
        return self._handoff.take()

    def result(self) -> ParallelFetchResult:
        """Wait until the job has ended, and return its result. The result lists the days that failed.

        Raises:
            InterruptedCall: The job was cancelled.
            MixpanelDataError: See `export_events`.
        """
        self._thread.join()
        if self._is_cancelled:
            raise InterruptedCall
        return self._thread.result()

    def cancel(self) -> None:
        """Make the job end soon. The current chunk stays readable until it is released."""
        self._is_cancelled = True
        self._call.cancel()

    def abandon(self) -> None:
        """Make the job end soon, and release the current chunk, if any."""
        self.cancel()
        self._handoff.release()

    def close(self) -> None:
        """End the job, release the current chunk, and wait until the thread has ended."""
        self.abandon()
        if self._is_started:
            self._thread.join()


def _have_ended(threads: Sequence[Thread]) -> bool:
    return not any(thread.is_alive() for thread in threads)


async def _run_stream(
    job: Job,
    handoff: Handoff,
    callbacks: Callbacks,
    options: StreamOptions,
    is_abandoned: Callable[[], bool],
) -> ParallelFetchResult:
    """Offer every chunk of the job to the consumer, until *is_abandoned* returns true. The path of the job is not used."""
    try:
        return await in_task(partial(_run, job, handoff, callbacks, options, is_abandoned))
    finally:
        handoff.end()


async def _run(
    job: Job,
    handoff: Handoff,
    callbacks: Callbacks,
    options: StreamOptions,
    is_abandoned: Callable[[], bool],
) -> ParallelFetchResult:
    started = time.monotonic()
    await to_thread.run_sync(_check_zone, job.spec.zone)
    planned = await job.plan((), ())
    tracker = Tracker(planned)
    # This runs in a thread, because loading the certificates takes about 0.1 s.
    client = await to_thread.run_sync(
        partial(new_client, job.parameters.url, options.transport, http2=options.http2)
    )
    folder = _temporary_folder(options.folder)
    async with entered_in_thread(folder) as path, anyio.create_task_group() as watching:
        watching.start_soon(_cancel_when_abandoned, is_abandoned, handoff)
        await transfer(
            replace(job, path=path / "batches"),
            client,
            callbacks,
            destination=BatchDestination(job.spec, handoff),
            writer=lambda staging: BatchWriter(
                handoff, staging, job.spec.days.first, in_order=options.in_order
            ),
            batches=(),
            planned=planned,
            tracker=tracker,
            max_chunks=options.max_chunks,
            in_order=options.in_order,
        )
        watching.cancel_scope.cancel()
    warn_of_emptiness(job, tracker)
    return tracker.result(
        job.spec.table,
        tracker.rows,
        tracker.removed_duplicates,
        seconds=time.monotonic() - started,
        finished_at=job.now(),
    )


@contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    with TemporaryDirectory(prefix="mpx-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


async def _cancel_when_abandoned(is_abandoned: Callable[[], bool], handoff: Handoff) -> None:
    """Raise an error when nobody can take another batch, for example at the end of the program."""
    while not is_abandoned():  # noqa: ASYNC110 - no event marks the end of a thread
        await anyio.sleep(_CHECK_INTERVAL)
    handoff.release()
    raise RuntimeError("the program ended before the stream")


def _check_zone(zone: str) -> None:
    with validation_database() as connection:
        check_zone(connection, zone)
