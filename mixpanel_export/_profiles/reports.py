"""Calls the user's callbacks, one at a time, while an export of profiles runs."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mixpanel_export._concurrency import SerialCalls
from mixpanel_export._profiles.snapshot import PageFailedError, SnapshotState
from mixpanel_export._source.profile_page import ProfilePage
from mixpanel_export._source.query_api import QueryApi
from mixpanel_export.profiles import ProfileProgress
from mixpanel_export.results import Progress


@dataclass(frozen=True, slots=True)
class ProfileCallbacks:
    """The user's callbacks; each may return an awaitable."""

    on_page: Callable[[ProfileProgress], object] | None = None
    on_progress: Callable[[Progress], object] | None = None


class ProfileReporter:
    """Calls the callbacks. If one raises an exception, the export fails with `CallbackError`, and no more are called."""

    def __init__(self, callbacks: ProfileCallbacks, api: QueryApi) -> None:
        self._callbacks = callbacks
        self._api = api
        self._state: SnapshotState | None = None
        self._rows = 0
        self._failed = 0
        self._calls = SerialCalls()

    def restart(self, state: SnapshotState | None) -> None:
        """Start reporting the pages of a new attempt."""
        self._state = state
        self._rows = 0

    async def report_page(self, number: int, page: ProfilePage) -> None:
        """Report a page that was staged."""
        self._rows += len(page.ids)
        await self._report(number, len(page.ids), None)

    async def report_failure(self, failure: PageFailedError) -> None:
        """Report a page that could not be fetched."""
        self._failed = 1
        await self._report(failure.number, 0, str(failure.error))

    async def report_progress(self) -> None:
        """Report the progress whenever it changes, until cancelled."""
        if self._callbacks.on_progress is not None:
            await self._calls.call_on_change(self._callbacks.on_progress, self._progress)

    async def report_end(self) -> None:
        """Report the final progress."""
        if self._callbacks.on_progress is not None:
            await self._calls.call(self._callbacks.on_progress, self._progress())

    async def _report(self, number: int, rows: int, error: str | None) -> None:
        if self._callbacks.on_page is not None:
            pages = None if self._state is None else self._state.session.pages
            progress = ProfileProgress(number, pages, rows, error is None, error, self._rows)
            await self._calls.call(self._callbacks.on_page, progress)

    def _progress(self) -> Progress:
        gate, state = self._api.gate.statistics(), self._state
        quota_opens_in = gate.reported_wait
        return Progress(
            batches=state.session.pages if state else 1,
            batches_done=state.pages if state else 0,
            batches_failed=self._failed,
            rows=self._rows,
            bytes_read=self._api.bytes_read,
            requests=gate.requests,
            retries=self._api.failures,
            quota_left=gate.remaining,
            quota_wait=math.ceil(self._api.gate.time_for(1)) if state is None else 0.0,
            waiting_for=self._api.waiting_for if quota_opens_in is None else "the quota",
            waiting_seconds=quota_opens_in,
        )
