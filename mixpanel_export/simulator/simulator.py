"""The class `Simulator`: a project with its events, the correct results of exports, and a server."""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime, tzinfo
from typing import NamedTuple, Unpack

import anyio
import httpx

from mixpanel_export.simulator.api import Api, Replies
from mixpanel_export.simulator.body import GZIP_OVER, Pace, Source, selected
from mixpanel_export.simulator.counts import DEFAULT_COUNTING, Counting, Counts
from mixpanel_export.simulator.days import moves_between_days, moving_enabled, settled_at
from mixpanel_export.simulator.engage import DEFAULT_PROFILE_RULES, Engage, People, ProfileRules
from mixpanel_export.simulator.engage_query import EVERYONE, ProfileSelection
from mixpanel_export.simulator.event_counts import EventCounts
from mixpanel_export.simulator.events import Content, Profile, Record, line
from mixpanel_export.simulator.faults import Fault, FaultSelector
from mixpanel_export.simulator.parse import DEFAULT_RULES, Project, Query, Rules
from mixpanel_export.simulator.profiles import ProfileRow
from mixpanel_export.simulator.query_api import QueryApi
from mixpanel_export.simulator.rate_limits import Limits
from mixpanel_export.simulator.reply import RequestLog, RetryAfter
from mixpanel_export.simulator.segments import DayCache
from mixpanel_export.simulator.server import serving
from mixpanel_export.simulator.transport import Transport
from mixpanel_export.simulator.truth import Row, Truth, deduplicated, expected_result
from mixpanel_export.simulator.where import compiled
from mixpanel_export.simulator.zone import zone_of


def utc_now() -> datetime:
    """Return the current time, timezone-aware, in UTC."""
    return datetime.now(UTC)


class Selection(NamedTuple):
    """Event names and a `where` expression; None selects everything."""

    events: frozenset[str] | None = None
    where: str | None = None


EVERYTHING = Selection()


class Simulator:
    """A simulated Mixpanel project, from which you can export without an account.

    Events depend only on *seed*, the other content options and the day. Rates are shares from 0 to 1. Times are in
    seconds. By default, a project sends what Mixpanel's documentation describes, including duplicates and events
    without `$insert_id`. `odd`, `awkward`, `rejects` and the other content options add undocumented content that was
    observed or is possible.

    Args:
        username: The service account's user name.
        secret: The service account's secret.
        project_id: The id of the project.
        legacy_secret: A project secret that is also accepted, as a user name without a password.
        history_days: Number of past days that the plan allows to export; None for no limit.
        per_second: Maximum requests per second; 0 for no limit.
        per_hour: Maximum requests in a rolling hour; 0 for no limit.
        concurrent: Maximum concurrent requests; 0 for no limit.
        queries_per_hour: Maximum requests to the Query API in a rolling hour; 0 for no limit.
        queries_concurrent: Maximum concurrent requests to the Query API; 0 for no limit.
        counting: The rules by which the Query API counts events.
        profiles: Number of user profiles. The first ones belong to the users of the events.
        profile_rules: Options for pages of profiles, where Mixpanel's behaviour is undocumented or varies.
        uncounted: Statuses of responses that do not count against the limits.
        limit_retry_after: Format of `Retry-After` in a 429 response.
        first_byte: Time from a request to the first byte of its response.
        seconds_per_day: Time to transfer a day on one connection.
        bandwidth: Compressed bytes per second on each connection; None for no limit.
        piece: Size of each chunk in the transfer, from 1 byte to 16 MB.
        gzip_over: Bodies with more bytes than this are compressed if the client accepts gzip. If it is -1, even empty
            bodies are compressed.
        gzip_member: Number of bytes of lines in each gzip member, which may end within a line; None for a single
            member.
        content_type: Content type of responses with events.
        rules: The responses to invalid requests, where Mixpanel's behaviour is undocumented or varies.
        faults: The failures to simulate in exports. `Simulator.faults` can be changed between requests.
        query_faults: The failures to simulate in event counts.
        profile_faults: The failures to simulate in profiles.
        cache_bytes: Memory for compressed days, in bytes.
        clock: Clock for the limits and the pace, in seconds from an arbitrary origin.
        now: Returns the current time. Events that arrive later are not sent.
        sleep: Waits for a number of seconds on the same clock.
        shuffled: Whether the order of the lines differs between any two responses. If False, it differs only for large
            days and for ranges of days.
        content: Options for the events: the fields of `mixpanel_export.simulator.events.Profile`.

    Raises:
        ValueError: *piece* is out of range.
    """

    def __init__(
        self,
        *,
        username: str = "demo.mp-service-account",
        secret: str = "demo-secret",  # noqa: S107 - gives access to this simulator only
        project_id: str = "12345",
        legacy_secret: str | None = None,
        history_days: int | None = None,
        per_second: int = 3,
        per_hour: int = 60,
        concurrent: int = 100,
        queries_per_hour: int = 60,
        queries_concurrent: int = 5,
        counting: Counting = DEFAULT_COUNTING,
        profiles: int = 0,
        profile_rules: ProfileRules = DEFAULT_PROFILE_RULES,
        uncounted: frozenset[int] = frozenset({401, 402, 429}),
        limit_retry_after: RetryAfter = "seconds",
        first_byte: float = 0.0,
        seconds_per_day: float = 0.0,
        bandwidth: float | None = None,
        piece: int = 65536,
        gzip_over: int = GZIP_OVER,
        gzip_member: int | None = None,
        content_type: str = "text/plain",
        rules: Rules = DEFAULT_RULES,
        faults: Sequence[Fault] = (),
        query_faults: Sequence[Fault] = (),
        profile_faults: Sequence[Fault] = (),
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
        self._truths: dict[tuple[date, Selection, tzinfo], Truth] = {}
        pace = Pace(clock, sleep, seconds_per_day, bandwidth, piece, gzip_over, gzip_member)
        self._source = Source(self.profile, DayCache(cache_bytes), pace, shuffled)
        project = Project(username, secret, project_id, legacy_secret, history_days)
        replies = Replies(first_byte, limit_retry_after, uncounted, content_type)
        selector = FaultSelector(self.profile.seed)
        counts = Counts(self.profile, counting)
        self._counts = EventCounts(project, counts, selector, now, rules, list(query_faults))
        people = People(self.profile, profiles, profile_rules)
        self._engage = Engage(people, selector, clock, list(profile_faults))
        self._query_limits = Limits(clock, 0, queries_per_hour, queries_concurrent)
        queries = QueryApi(project, (self._counts, self._engage), self._query_limits, sleep, uncounted, rules)
        self._api = Api(
            project, self._source, self._limits, list(faults), selector, now, replies, queries, rules
        )

    @property
    def faults(self) -> list[Fault]:
        """The failures to simulate. The first fault that applies to a request determines the outcome."""
        return self._api.faults

    @faults.setter
    def faults(self, faults: Sequence[Fault]) -> None:
        self._api.faults = list(faults)

    @property
    def query_faults(self) -> list[Fault]:
        """The failures to simulate in event counts. Kinds that change lines change the JSON text."""
        return self._counts.faults

    @query_faults.setter
    def query_faults(self, faults: Sequence[Fault]) -> None:
        self._counts.faults = list(faults)

    @property
    def query_requests(self) -> list[RequestLog]:
        """All requests for event counts, successful or not, in order of arrival."""
        return self._counts.requests

    @property
    def profile_faults(self) -> list[Fault]:
        """The failures to simulate in profiles. Kinds that change lines change the JSON text."""
        return self._engage.faults

    @profile_faults.setter
    def profile_faults(self, faults: Sequence[Fault]) -> None:
        self._engage.faults = list(faults)

    @property
    def profile_requests(self) -> list[RequestLog]:
        """All requests for profiles, successful or not, in order of arrival."""
        return self._engage.requests

    @property
    def profile_revision(self) -> int:
        """The revision of the profiles. In each revision, some are new, changed or deleted. Sessions keep their revision."""
        return self._engage.revision

    @profile_revision.setter
    def profile_revision(self, number: int) -> None:
        self._engage.revision = number

    @property
    def max_concurrent_queries(self) -> int:
        """The maximum number of concurrent requests to the Query API so far, like `max_concurrent`."""
        return self._query_limits.max_in_progress

    @property
    def requests(self) -> list[RequestLog]:
        """All export requests, successful or not, in order of arrival."""
        return self._api.requests

    def requests_for(self, first: date, last: date | None = None) -> list[RequestLog]:
        """Return the requests for any day from *first* to *last* (default: only *first*), in order of arrival.

        Requests that were rejected before their dates were read, such as requests over a limit, are not included.
        """
        return [log for log in self.requests if log.overlaps(first, first if last is None else last)]

    @property
    def max_concurrent(self) -> int:
        """The maximum number of concurrent requests so far. Requests without events, such as rejected ones, do not count."""
        return self._limits.max_in_progress

    @property
    def in_progress(self) -> int:
        """The number of requests whose events are currently being prepared or sent."""
        return self._limits.in_progress

    def hits(self, fault: Fault) -> int:
        """Return how many requests failed because of this *fault* object."""
        return self._api.selector.hits(fault)

    def serve(self, port: int = 0) -> AbstractAsyncContextManager[str]:
        """Serve on 127.0.0.1 until the context exits, and yield the URL. Port 0 means a free port."""
        return serving(self._api, port)

    def transport(self) -> httpx.AsyncBaseTransport:
        """Return an httpx transport that responds like the server, but without a socket."""
        return Transport(self._api)

    def prepare(self, first: date, last: date) -> None:
        """Compress the days from *first* to *last* now, so that serving them takes little CPU time."""
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
        """Return the correct result of exporting these days now. It does not depend on the export's chunks.

        If *as_utc* is true, times are not converted, as in an export that does not know the project's time zone.

        Raises:
            ValueError: *where* is malformed.
        """
        selection = Selection(None if events is None else frozenset(events), where)
        zone = UTC if as_utc else self._zone
        days = list(Query(first, last).days())
        own = sum((self._truth(day, selection, zone) for day in days), Truth())
        return own + expected_result(self._moving(days, selection), zone)

    def profile_truth(
        self,
        *,
        where: str | None = None,
        properties: Sequence[str] | None = None,
        distinct_ids: Sequence[str] | None = None,
        cohort: int | None = None,
        include_all_users: bool = True,
        group: str | None = None,
    ) -> dict[str, str]:
        """Return the exact text of each profile's properties, by its id, in the order of the pages.

        The arguments are those of a request; *group* is `data_group_id`.

        Raises:
            ValueError: *where* is malformed.
        """
        names = None if properties is None else frozenset(properties)
        ids = None if distinct_ids is None else frozenset(distinct_ids)
        selection = ProfileSelection(where, names, ids, cohort, include_all_users, group)
        return {row.distinct_id: row.properties for row in self.profile_rows(selection)}

    def profile_rows(self, selection: ProfileSelection = EVERYONE) -> Iterator[ProfileRow]:
        """Yield the rows that requesting these profiles now should produce."""
        return (each.row for each in self._engage.selected(selection))

    def counts(self, day: date) -> dict[str, int]:
        """Return the number of events that the Query API counts for *day* now, for each name that has any."""
        users = self._counts.counts.users(day, self._now())
        return {name: by_user.total() for name, by_user in users.items()}

    def rows(
        self,
        first: date,
        last: date,
        *,
        events: Sequence[str] | None = None,
        where: str | None = None,
        as_utc: bool = False,
    ) -> Iterator[Row]:
        """Yield the rows that exporting these days now should produce. `truth` summarizes them."""
        selection = Selection(None if events is None else frozenset(events), where)
        zone = UTC if as_utc else self._zone
        days = list(Query(first, last).days())
        for day in days:
            yield from deduplicated(self._own(day, selection), zone)
        yield from deduplicated(self._moving(days, selection), zone)

    def lines(
        self, first: date, last: date, *, events: Sequence[str] | None = None, where: str | None = None
    ) -> Iterator[bytes]:
        """Yield the lines that are sent for these days now, without newlines. Duplicates and rejects are included."""
        selection = Selection(None if events is None else frozenset(events), where)
        for day in Query(first, last).days():
            for record in self.records(day, selection):
                yield from line(record).split(b"\n")

    def records(self, day: date, selection: Selection = EVERYTHING) -> Iterator[Record]:
        """Yield the records that are sent for *day* now, including duplicates."""
        where = None if selection.where is None else compiled(selection.where)
        return selected(self.profile, day, self._now(), selection.events, where)

    def _own(self, day: date, selection: Selection) -> Iterator[Record]:
        """Yield the records that are sent only with *day*. They have no duplicates on other days."""
        records = self.records(day, selection)
        if not moving_enabled(self.profile):
            return records
        return (record for record in records if not moves_between_days(self.profile, record))

    def _moving(self, days: Sequence[date], selection: Selection) -> Iterator[Record]:
        """Yield the records that may be sent with more than one of *days*, once for each time that they are sent."""
        for day in days if moving_enabled(self.profile) else ():
            yield from (
                record for record in self.records(day, selection) if moves_between_days(self.profile, record)
            )

    def _truth(self, day: date, selection: Selection, zone: tzinfo) -> Truth:
        """Return the expected result for the records that are sent only with *day*. It is cached once the day is final."""
        if (day, selection, zone) in self._truths:
            return self._truths[day, selection, zone]
        truth = expected_result(self._own(day, selection), zone)
        if settled_at(self.profile, day) <= self._now():
            self._truths[day, selection, zone] = truth
        return truth
