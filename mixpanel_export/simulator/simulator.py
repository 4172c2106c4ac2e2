"""`Simulator`: one project, its events, its truth, and the ways to reach it."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime, tzinfo
from typing import NamedTuple, Unpack

import anyio
import httpx

from mixpanel_export.simulator.api import Api, Replies, RequestLog, RetryAfter
from mixpanel_export.simulator.body import GZIP_OVER, Pace, Source, selected
from mixpanel_export.simulator.days import settled_at, wandering, wanders
from mixpanel_export.simulator.events import Content, Profile, Record, line
from mixpanel_export.simulator.faults import Fault, FaultLog
from mixpanel_export.simulator.limits import Limits
from mixpanel_export.simulator.query import USUAL, Project, Query, Rules
from mixpanel_export.simulator.segments import DayCache
from mixpanel_export.simulator.server import serving
from mixpanel_export.simulator.transport import Transport
from mixpanel_export.simulator.truth import Row, Truth, deduplicated, truth_of
from mixpanel_export.simulator.where import compiled
from mixpanel_export.simulator.zone import zone_of


def utc_now() -> datetime:
    """Return the time now, aware, in UTC."""
    return datetime.now(UTC)


class Wanted(NamedTuple):
    """Which events: of these names, and as a `where` expression says; None for all."""

    events: frozenset[str] | None
    where: str | None


class Simulator:
    """A Mixpanel project to export from without an account.

    Events depend on *seed* and the day alone. Rates are shares from 0 to 1, times are seconds.

    Args:
        username: Of the service account.
        secret: Of the service account.
        project_id: The only project there is.
        legacy_secret: A project secret that is accepted too, as a user name without a password.
        history_days: How far back the plan reaches; None for no bound.
        per_second: Requests in a second; 0 for no limit.
        per_hour: Requests in a rolling hour; 0 for no limit.
        concurrent: Requests at once; 0 for no limit.
        uncounted: Statuses that count against neither window.
        limit_retry_after: How an answer with status 429 words `Retry-After`.
        first_byte: From a request to the first byte of its answer.
        seconds_per_day: How long a day takes to transfer on one connection.
        bandwidth: Bytes (as sent, so compressed) per second and connection; None for no bound.
        piece: Size in bytes of a chunk of the transfer, from 1 byte to 16 MB.
        gzip_over: A larger body, in bytes, is compressed for whoever accepts it; -1 for an empty one too.
        gzip_member: How many bytes of lines a gzip member holds, wherever that cuts; None for one member.
        content_type: Of answers with events.
        rules: How wrong requests are answered, where Mixpanel's own way is not published.
        faults: What goes wrong; `Simulator.faults` may be changed between requests.
        cache_bytes: How many bytes of compressed days are kept.
        clock: Drives the limits and the pace, in seconds from anywhere.
        now: What today is; events that have not arrived by then are not served.
        sleep: Waits that many seconds on the same clock.
        shuffled: Whether every answer has its lines in another order; without, only large days and ranges do.
        content: What the events are like: the fields of `mixpanel_export.simulator.events.Profile`.
    """

    def __init__(
        self,
        *,
        username: str = "demo.mp-service-account",
        secret: str = "demo-secret",  # noqa: S107 - it opens nothing but this simulator
        project_id: str = "12345",
        legacy_secret: str | None = None,
        history_days: int | None = None,
        per_second: int = 3,
        per_hour: int = 60,
        concurrent: int = 100,
        uncounted: frozenset[int] = frozenset({401, 402, 429}),
        limit_retry_after: RetryAfter = "seconds",
        first_byte: float = 0.0,
        seconds_per_day: float = 0.0,
        bandwidth: float | None = None,
        piece: int = 65536,
        gzip_over: int = GZIP_OVER,
        gzip_member: int | None = None,
        content_type: str = "text/plain",
        rules: Rules = USUAL,
        faults: Sequence[Fault] = (),
        cache_bytes: int = 256 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        shuffled: bool = False,
        **content: Unpack[Content],
    ) -> None:
        if not 1 <= piece <= 16 * 1024 * 1024:
            raise ValueError(f"piece must be between 1 byte and 16 MB, not {piece}.")
        self.profile = Profile(**content)
        self._zone = zone_of(self.profile.timezone)
        self._now = now
        self._limits = Limits(clock, per_second, per_hour, concurrent)
        self._truths: dict[tuple[date, Wanted, tzinfo], Truth] = {}
        pace = Pace(clock, sleep, seconds_per_day, bandwidth, piece, gzip_over, gzip_member)
        self._source = Source(self.profile, DayCache(cache_bytes), pace, shuffled)
        project = Project(username, secret, project_id, legacy_secret, history_days)
        replies = Replies(first_byte, limit_retry_after, uncounted, content_type)
        self._api = Api(
            project,
            self._source,
            self._limits,
            list(faults),
            FaultLog(self.profile.seed),
            now,
            replies,
            rules,
        )

    @property
    def faults(self) -> list[Fault]:
        """What goes wrong; the first fault that hits a request decides it."""
        return self._api.faults

    @faults.setter
    def faults(self, faults: Sequence[Fault]) -> None:
        self._api.faults = list(faults)

    @property
    def requests(self) -> list[RequestLog]:
        """Every export request that arrived, in order, whatever became of it."""
        return self._api.requests

    @property
    def max_concurrent(self) -> int:
        """The highest number of requests that were in progress at once; those answered at once are not."""
        return self._limits.most_in_progress

    @property
    def in_progress(self) -> int:
        """How many requests are in progress now: their events are being prepared or sent."""
        return self._limits.in_progress

    def hits(self, fault: Fault) -> int:
        """How many requests *fault*, the very object, has hit."""
        return self._api.hits.hits(fault)

    def serve(self, port: int = 0) -> AbstractAsyncContextManager[str]:
        """Serve on 127.0.0.1 while the context lasts; yields the URL, port 0 takes a free one."""
        return serving(self._api, port)

    def transport(self) -> httpx.AsyncBaseTransport:
        """Return a transport that answers as the server does, without a socket."""
        return Transport(self._api)

    def prepare(self, first: date, last: date) -> None:
        """Compress the days from *first* to *last* now, so that serving them costs next to nothing."""
        self._source.prepare(Query(first, last), self._now())

    def truth(
        self,
        first: date,
        last: date,
        *,
        events: Sequence[str] | None = None,
        where: str | None = None,
        as_utc: bool = False,
    ) -> Truth:
        """Return what an export of these days, in chunks of any size, must end up with, as of now.

        With *as_utc* the times are what an exporter stores that does not know the project's zone.

        Raises:
            ValueError: *where* is malformed.
        """
        wanted = Wanted(None if events is None else frozenset(events), where)
        zone = UTC if as_utc else self._zone
        days = list(Query(first, last).days())
        at_home = sum((self._truth(day, wanted, zone) for day in days), Truth())
        return at_home + truth_of(self._wanderers(days, wanted), zone)

    def rows(
        self,
        first: date,
        last: date,
        *,
        events: Sequence[str] | None = None,
        where: str | None = None,
        as_utc: bool = False,
    ) -> Iterator[Row]:
        """Yield the rows that `truth` is about."""
        wanted = Wanted(None if events is None else frozenset(events), where)
        zone = UTC if as_utc else self._zone
        days = list(Query(first, last).days())
        for day in days:
            yield from deduplicated(self._at_home(day, wanted), zone)
        yield from deduplicated(self._wanderers(days, wanted), zone)

    def lines(
        self, first: date, last: date, *, events: Sequence[str] | None = None, where: str | None = None
    ) -> Iterator[bytes]:
        """Yield the lines of these days, duplicates and rejects included, without newlines, as of now."""
        wanted = Wanted(None if events is None else frozenset(events), where)
        for day in Query(first, last).days():
            for record in self._records(day, wanted):
                yield from line(record).split(b"\n")

    def _records(self, day: date, wanted: Wanted) -> Iterator[Record]:
        where = None if wanted.where is None else compiled(wanted.where)
        return selected(self.profile, day, self._now(), wanted.events, where)

    def _at_home(self, day: date, wanted: Wanted) -> Iterator[Record]:
        """Records that are sent with *day* alone: none of them has a duplicate on another day."""
        every = self._records(day, wanted)
        if not wandering(self.profile):
            return every
        return (record for record in every if not wanders(self.profile, record))

    def _wanderers(self, days: Sequence[date], wanted: Wanted) -> Iterator[Record]:
        """Records that may be sent with more than one of *days*, as often as they are."""
        for day in days if wandering(self.profile) else ():
            yield from (record for record in self._records(day, wanted) if wanders(self.profile, record))

    def _truth(self, day: date, wanted: Wanted, zone: tzinfo) -> Truth:
        """Truth of what is sent with one day alone, remembered once nothing more can arrive."""
        if (day, wanted, zone) in self._truths:
            return self._truths[day, wanted, zone]
        truth = truth_of(self._at_home(day, wanted), zone)
        if settled_at(self.profile, day) <= self._now():
            self._truths[day, wanted, zone] = truth
        return truth
