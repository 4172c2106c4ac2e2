"""Fetches the pages of one session, page 0 first, and passes them to a destination.

The pages of two sessions are never combined. If Mixpanel drops the session, or its pages contradict each other, the
snapshot starts again from page 0.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from mixpanel_export._concurrency import raise_first_error
from mixpanel_export._source.engage import ProfileSelection, Session, fetch_page, session_of
from mixpanel_export._source.profile_page import ProfilePage
from mixpanel_export._source.query_api import QueryApi
from mixpanel_export._source.responses import SessionEvictedError
from mixpanel_export.errors import APIError, SnapshotError

Consume = Callable[[int, ProfilePage], Awaitable[None]]
"""Receives each page and its number. Pages may arrive in any order."""

MAX_RESTARTS = 3
"""How often an export starts again from page 0 before it fails."""


class RestartError(Exception):
    """The pages do not belong to the same snapshot. The message gives the reason."""


@dataclass(slots=True)
class SnapshotState:
    """The counters of one attempt."""

    session: Session
    pages: int = 0
    entries: int = 0
    """Profiles and rejects on all pages so far."""
    rejects: int = 0
    repaired: int = 0
    last: int = 0
    """The number of the last page that has entries."""
    short: set[int] = field(default_factory=set)
    """The numbers of pages with fewer entries than a full page."""

    @property
    def short_pages(self) -> int:
        """The number of short pages before the last one."""
        return len(self.short - {self.last})

    def count(self, number: int, page: ProfilePage) -> None:
        """Check that a page belongs to the session, and count it.

        Raises:
            RestartError: The page belongs to another session, or the total has changed.
        """
        if page.session not in {None, self.session.id}:
            raise RestartError(f"page {number} belongs to another session")
        if page.total not in {None, self.session.total}:
            raise RestartError(
                f"the total changed from {self.session.total:,} to {page.total:,} on page {number}"
            )
        self.pages += 1
        self.entries += page.entries
        self.rejects += len(page.rejects)
        self.repaired += len(page.originals)
        if page.entries:
            self.last = max(self.last, number)
        if page.entries < self.session.page_size:
            self.short.add(number)


class PageFailedError(Exception):
    """A page could not be fetched."""

    def __init__(self, number: int, error: APIError) -> None:
        super().__init__(str(error))
        self.number = number
        self.error = error


class Pages:
    """Requests the pages of a selection."""

    def __init__(self, api: QueryApi, selection: ProfileSelection, workers: int) -> None:
        self._api = api
        self._selection = selection
        # There are more tasks than workers, so that requests continue while pages are parsed and stored.
        self._tasks = 2 * workers

    async def page(self, number: int, session: Session | None) -> ProfilePage:
        """Return one page.

        Raises:
            RestartError: Mixpanel no longer has the session's pages.
            PageFailedError: The page could not be fetched.
        """
        try:
            return await fetch_page(self._api, self._selection, number, session)
        except SessionEvictedError as error:
            raise RestartError("Mixpanel dropped the session") from error
        except APIError as error:
            raise PageFailedError(number, error) from error

    async def fetch(self, first: ProfilePage, state: SnapshotState, consume: Consume) -> None:
        """Fetch the other pages of the session that page 0 opened. Pass all pages, also page 0, to *consume*, one at a time.

        Raises:
            RestartError, PageFailedError: See `page`.
        """
        send, receive = anyio.create_memory_object_stream[tuple[int, ProfilePage]](1)
        with raise_first_error():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_consume, receive, state, consume)
                async with send:
                    await send.send((0, first))
                    await self._fetch_rest(first, state.session, send)

    async def _fetch_rest(
        self, first: ProfilePage, session: Session, send: ObjectSendStream[tuple[int, ProfilePage]]
    ) -> None:
        received = first.entries
        last_is_full = session.is_full(first)

        async def fetch(number: int) -> int:
            nonlocal received, last_is_full
            page = await self.page(number, session)
            received += page.entries
            if number >= session.pages - 1:
                last_is_full = session.is_full(page)
            if page.entries or number < session.pages:
                await send.send((number, page))
            return page.entries

        async def fetch_each(numbers: Iterator[int]) -> None:
            for number in numbers:
                await fetch(number)

        numbers = iter(range(1, session.pages))
        async with anyio.create_task_group() as tasks:
            for _ in range(min(self._tasks, session.pages - 1)):
                tasks.start_soon(fetch_each, numbers)
        # If a page was short, more pages may follow the expected ones.
        number = session.pages
        while session.id is not None and received < session.total and await fetch(number):
            number += 1
        # After a full page, only an empty one proves that the total is not too low.
        if session.id is not None and last_is_full:
            await fetch(number)


async def open_session(pages: Pages) -> tuple[ProfilePage, SnapshotState]:
    """Request page 0, which opens a session."""
    first = await pages.page(0, None)
    return first, SnapshotState(session_of(first))


async def _consume(
    receive: ObjectReceiveStream[tuple[int, ProfilePage]], state: SnapshotState, consume: Consume
) -> None:
    async with receive:
        async for number, page in receive:
            state.count(number, page)
            await consume(number, page)


def incomplete_error(reasons: Sequence[str]) -> SnapshotError:
    """Return the error for an export whose attempts all failed. There is one reason for each attempt."""
    return SnapshotError(
        f"{len(reasons)} attempts to fetch the profiles failed: {'; '.join(dict.fromkeys(reasons))}",
        advice="try again later, when fewer profiles change",
        status_code=200,
    )
