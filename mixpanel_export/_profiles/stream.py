"""Yields profiles without storing them. They are fetched page by page from one session."""

import warnings
from collections.abc import Callable, Generator, Iterator
from datetime import UTC
from hashlib import blake2b
from itertools import count
from typing import Any

import anyio
import httpx
import numpy as np
from numpy.typing import NDArray

from mixpanel_export._concurrency import in_task, raise_first_error
from mixpanel_export._ndjson import loads
from mixpanel_export._profiles.api import open_api
from mixpanel_export._profiles.job import ProfileQuery
from mixpanel_export._profiles.snapshot import (
    MAX_RESTARTS,
    PageFailedError,
    Pages,
    RestartError,
    SnapshotState,
    incomplete_error,
)
from mixpanel_export._source.engage import Session, session_of
from mixpanel_export._source.profile_page import ProfilePage
from mixpanel_export.errors import AdvisoryWarning, SnapshotError

FetchPages = Callable[[Session | None, range], list[ProfilePage]]
"""Fetches and returns pages of a session, in order. The call blocks."""


async def fetch_pages(
    query: ProfileQuery,
    session: Session | None,
    numbers: range,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
) -> list[ProfilePage]:
    """Request the pages with these *numbers* at the same time, and return them in order.

    Raises:
        RestartError: Mixpanel no longer has the session's pages.
        APIError: A page could not be fetched.
    """
    pages: dict[int, ProfilePage] = {}

    async def fetch() -> None:
        async with open_api(query, transport) as api:
            source = Pages(api, query.selection, query.workers)

            async def fetch_one(number: int) -> None:
                pages[number] = await source.page(number, session)

            with raise_first_error():
                async with anyio.create_task_group() as tasks:
                    for number in numbers:
                        tasks.start_soon(fetch_one, number)

    try:
        await in_task(fetch)
    except PageFailedError as failure:
        raise failure.error from failure.error.__cause__
    return [pages[number] for number in numbers]


def iter_profiles(fetch: FetchPages, *, raw: bool, at_once: int) -> Iterator[dict[str, Any]]:
    """Yield the profiles of all pages. Up to *at_once* pages are fetched concurrently.

    If Mixpanel drops the session, the pages are fetched again in a new session. The stream continues only if all pages that
    were already yielded are unchanged.

    Raises:
        SnapshotError: The pages of two sessions differ, or the profiles are not complete.
    """
    __tracebackhide__ = True
    stream = _Stream(fetch, at_once)
    for page in stream.pages():
        for index, distinct_id in enumerate(page.ids):
            properties = loads(page.properties[index])
            last_seen = page.last_seen[index]
            if raw:
                identity = loads(distinct_id) if index in page.numeric else distinct_id
                yield {"$distinct_id": identity, "$properties": properties}
            else:
                yield {
                    "distinct_id": distinct_id,
                    "last_seen": last_seen and last_seen.replace(tzinfo=UTC),
                    "properties": properties,
                }
    if stream.rejects:
        warnings.warn(
            AdvisoryWarning(f"entries that are not profiles were skipped: {stream.rejects}"),
            stacklevel=2,
        )


class _Stream:
    """Fetches the pages of a stream. It keeps a digest of each page, so that it can continue in another session."""

    def __init__(self, fetch: FetchPages, at_once: int) -> None:
        self._fetch = fetch
        self._at_once = at_once
        self._digests: list[bytes] = []  # of each page that was yielded
        self._hashes: list[NDArray[np.int64]] = []  # of the ids on these pages
        self.rejects = 0

    def pages(self) -> Iterator[ProfilePage]:
        """Yield each page once, in order."""
        reasons: list[str] = []
        while True:
            try:
                state = yield from self._session()
            except RestartError as error:
                reasons.append(str(error))
                if len(reasons) > MAX_RESTARTS:
                    raise incomplete_error(reasons) from error
            else:
                break
        distinct = len(np.unique(np.concatenate(self._hashes))) + self.rejects
        if distinct != state.session.total:
            raise _mismatch_error(
                f"it has {distinct:,} different profiles, but Mixpanel reported {state.session.total:,}"
            )

    def _session(self) -> Generator[ProfilePage, None, SnapshotState]:
        """Yield the pages of a new session that have not been yielded yet, and return the session's state."""
        (first,) = self._fetch(None, range(1))
        state = SnapshotState(session_of(first))
        session = state.session
        yield from self._yield_if_new(0, first, state)
        page = first
        for start in range(1, session.pages, self._at_once):
            numbers = range(start, min(start + self._at_once, session.pages))
            for number, page in zip(numbers, self._fetch(session, numbers), strict=True):
                yield from self._yield_if_new(number, page, state)
        # If a page was short, more pages may follow the expected ones. If the last page is full, the total may be too low:
        # only an empty page proves that there are no more profiles.
        for number in count(session.pages):
            if session.id is None or (state.entries >= session.total and not session.is_full(page)):
                break
            (page,) = self._fetch(session, range(number, number + 1))
            if not page.entries:
                break
            yield from self._yield_if_new(number, page, state)
            if state.entries > session.total:
                break
        return state

    def _yield_if_new(self, number: int, page: ProfilePage, state: SnapshotState) -> Iterator[ProfilePage]:
        """Yield the page, unless it was yielded in an earlier session."""
        state.count(number, page)
        digest = _digest(page)
        if number < len(self._digests):
            if digest != self._digests[number]:
                raise _mismatch_error(f"page {number} changed when Mixpanel dropped the session")
            return
        self._digests.append(digest)
        self._hashes.append(np.array([hash(distinct_id) for distinct_id in page.ids], np.int64))
        self.rejects += len(page.rejects)
        yield page


def _digest(page: ProfilePage) -> bytes:
    digest = blake2b(digest_size=16)
    for texts in (page.ids, page.properties, page.rejects):
        for text in texts:
            digest.update(text.encode("utf-8", "surrogateescape"))
            digest.update(b"\0")
    return digest.digest()


def _mismatch_error(reason: str) -> SnapshotError:
    return SnapshotError(
        f"the stream is not a complete set of profiles: {reason}",
        advice="start the stream again, or export the profiles into a table",
        status_code=200,
    )
