"""Chunks are examined before they are committed: one by one, on a connection beside, in no transaction that writes.

One with lines that are not of Mixpanel's shape, or that DuckDB refuses, is mended line by line, or sent back to be
fetched again.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import duckdb

from mixpanel_export._database.preflight import Order
from mixpanel_export._database.settings import room_at_last, room_for_lines, set_session
from mixpanel_export._model import Refused, Rejected
from mixpanel_export._timezones import offset_of
from mixpanel_export._writer.extract import Findings, LoadError, Text
from mixpanel_export._writer.load import DoubtfulLinesError, Ready, examine
from mixpanel_export._writer.repair import mend
from mixpanel_export._writer.staging import Buffers, Staged, Staging

UNLOADABLE = (
    LoadError,
    duckdb.InvalidInputException,
    duckdb.ConversionException,
    duckdb.OutOfRangeException,
    duckdb.OutOfMemoryException,
)
"""What speaks against one chunk rather than against the database."""

_LOOKS = 20  # chunks whose times are looked at; a local clock shows in each of them


class Examiner:
    """Examines the chunks of one export; *translated* turns DuckDB's errors into ours, which name the days given."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        order: Order,
        translated: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._connection = connection
        self._order = order
        self._translated = translated
        self._buffers = Buffers()
        self._reader: duckdb.DuckDBPyConnection | None = None
        self._looks = _LOOKS
        self.offset: float | None = None

    def examine(self, staged: Staged, staging: Staging) -> Ready | Rejected | Refused:
        """Make a chunk ready for a commit, which may run meanwhile.

        One with lines that are no events is answered by `Rejected`, unless it says that such lines are final, and
        one that DuckDB cannot read by `Refused`; what was staged of them is removed.

        Raises:
            DatabaseError: DuckDB cannot go on.
            InterruptedCall: `interrupt` was called.
        """
        with (
            self._translated(str(staged.chunk)),
            staging.writing(),
            self._reading() as reader,
            room_for_lines(reader, staged.longest),
        ):
            self._look_at_clock(staged)
            return self._examined(reader, staged, staging)

    def interrupt(self) -> None:
        """Stop the statement that runs in another thread, if any."""
        if self._reader is not None:
            with suppress(duckdb.ConnectionException):  # it was closed just now
                self._reader.interrupt()

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._connection.cursor() as reader:
            self._reader = reader
            set_session(reader)
            yield reader

    def _examined(
        self,
        reader: duckdb.DuckDBPyConnection,
        staged: Staged,
        staging: Staging,
        *,
        at_last: bool = False,
    ) -> Ready | Rejected | Refused:
        """Examine the chunk, mended if need be; *at_last* with more memory, where less did not suffice."""
        findings = Findings(staging.columns, staging.columns_file(staged))
        try:
            text = Text(staged, self._buffers)
            return examine(reader, text, self._order.zone, findings, dedupe=self._order.dedupe)
        except DoubtfulLinesError as doubtful:
            return self._mended(reader, staged, doubtful.lines, staging)
        except duckdb.OutOfMemoryException as error:
            if at_last:
                return refused(staged, error, staging)
        except UNLOADABLE as error:
            return refused(staged, error, staging)
        with room_at_last(reader, staged.longest):
            return self._examined(reader, staged, staging, at_last=True)

    def _mended(
        self, reader: duckdb.DuckDBPyConnection, staged: Staged, doubtful: set[int], staging: Staging
    ) -> Ready | Rejected | Refused:
        try:
            mended = mend(reader, staged, doubtful, staging)
        except UNLOADABLE as error:
            return refused(staged, error, staging)
        if mended.rejects and not mended.keep_rejects:
            staging.discard(mended)
            return Rejected(mended.chunk, mended.rejects)
        return self._examined(reader, mended, staging)

    def _look_at_clock(self, staged: Staged) -> None:
        """Notice times that are local, as long as the caller has not said whose they are."""
        if self.offset is None and self._looks and not self._order.zone_given:
            self._looks -= 1
            self.offset = offset_of(staged.all_lines())


def refused(staged: Staged, error: Exception, staging: Staging) -> Refused:
    """Remove what was staged of a chunk that DuckDB does not take, and return the verdict."""
    staging.discard(staged)
    return Refused(staged.chunk, f"Write failed: {str(error).splitlines()[0]}")
