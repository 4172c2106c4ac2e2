"""Threads that share a database connection. Each thread has its own cursor."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

from mixpanel_export._concurrency import InterruptedCall
from mixpanel_export._database.connection import Connection
from mixpanel_export._database.settings import set_session

T = TypeVar("T")
V = TypeVar("V")


class Workers:
    """A pool of threads. Each one uses a DuckDB cursor of its own."""

    def __init__(self, connection: Connection, threads: int) -> None:
        self._connection = connection
        self._threads = threads
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        self._cursors: list[Connection] = []
        self._stopped = Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Open the cursors, and close them at the end."""
        with ExitStack() as stack:
            for _ in range(self._threads):
                cursor = stack.enter_context(self._connection.cursor())
                set_session(cursor)
                self._cursors.append(cursor)
                self._idle.put(cursor)
            yield

    def interrupt(self) -> None:
        """Stop the work, and the statements that are running."""
        self._stopped.set()
        self._connection.interrupt()
        for cursor in self._cursors:
            cursor.interrupt()

    def check(self) -> None:
        """Raise `InterruptedCall` if the work was stopped."""
        if self._stopped.is_set():
            raise InterruptedCall

    def results(self, work: Callable[[Connection, V], T], items: Iterable[V]) -> Iterator[T]:
        """Call *work* for each item, and yield each result as soon as it is ready.

        After an error, no more items are started. The results of the running items are yielded, and then the error is raised.
        """
        with ThreadPoolExecutor(self._threads, thread_name_prefix="mpx-publish") as pool:
            waiting = {pool.submit(self._call, work, item) for item in items}
            error: BaseException | None = None
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        failure = None if future.cancelled() else future.exception()
                        if failure is not None and error is None:
                            error = failure
                            _cancel(waiting)
                        elif failure is None and not future.cancelled():
                            yield future.result()
            finally:
                _cancel(waiting)
            if error is not None:
                raise error

    def _call(self, work: Callable[[Connection, V], T], item: V) -> T:
        self.check()
        cursor = self._idle.get()
        try:
            return work(cursor, item)
        finally:
            self._idle.put(cursor)


def _cancel(futures: Iterable[Future[T]]) -> None:
    for future in futures:
        future.cancel()
