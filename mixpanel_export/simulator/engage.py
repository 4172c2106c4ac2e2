"""The Query API's endpoint for user profiles: its sessions, pages and faults.

A request without a session starts a session, which has the matching profiles. Requests with a session do not count against
the hourly limit. A session is a cache: its pages can be evicted, and can change while a client reads them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from zlib import crc32

from mixpanel_export.simulator.engage_query import ProfileQuery, ProfileSelection, parse_profile_query
from mixpanel_export.simulator.events import Profile
from mixpanel_export.simulator.faults import STATUS, Fault, FaultSelector, FixedResponse
from mixpanel_export.simulator.parse import Request
from mixpanel_export.simulator.profiles import (
    Cohort,
    Revision,
    UserProfile,
    existing,
    generated,
    selected_members,
    without_profile,
)
from mixpanel_export.simulator.query_api import ROOTS, JSONResponse, failure, invalid
from mixpanel_export.simulator.reply import RequestLog
from mixpanel_export.simulator.where import compiled_for_profiles

_PATHS = frozenset(f"{root}/engage{slash}" for root in ROOTS for slash in ("", "/"))
_WHOLE = 0x10000
_BEHAVIOR_EVENTS = 4  # a user has fewer events than this for each behavior


@dataclass(frozen=True, slots=True)
class ProfileRules:
    """Options for pages of profiles, where Mixpanel's behaviour is undocumented or varies.

    Args:
        page_size: Number of profiles in a page, unless a request has `page_size`.
        totals: The pages that have `total` and `page_size`.
        session_seconds: Time after which a session is evicted; None for no end.
        seconds_per_page: Time from a request to the first byte of its page.
        random_bytes: Number of random bytes in an additional property of each profile, written in hexadecimal. They give
            compressed pages a realistic size.
        cohorts: The cohorts that requests can select.
        groups: Number of profiles of each group type, by `data_group_id`.
    """

    page_size: int = 1000
    totals: Literal["all", "first"] = "all"
    session_seconds: float | None = None
    seconds_per_page: float = 0.0
    random_bytes: int = 0
    cohorts: Sequence[Cohort] = ()
    groups: Mapping[str, int] = field(default_factory=dict)


DEFAULT_PROFILE_RULES = ProfileRules()


@dataclass(frozen=True, slots=True)
class People:
    """The profiles of a project. Revisions differ in some profiles."""

    profile: Profile
    count: int
    rules: ProfileRules

    def matches(self, selection: ProfileSelection, revision: int) -> Sequence[int]:
        """Return the numbers of the selected profiles."""
        state = self._state(selection, revision)
        size = self.count if selection.group is None else self.rules.groups.get(selection.group, 0)
        numbers = existing(self.profile, state, size)
        if selection.where is None and selection.ids is None and selection.cohort is None:
            return numbers
        where = None if selection.where is None else compiled_for_profiles(selection.where)
        cohort = self.cohort(selection.cohort)
        return [
            number
            for number, each in zip(numbers, generated(self.profile, state, numbers), strict=True)
            if (selection.ids is None or each.key in selection.ids)
            and (cohort is None or _is_member(each, cohort))
            and (where is None or where(each.key, each.properties.stored, _events(each, selection.behaviors)))
        ]

    def others(self, selection: ProfileSelection) -> list[UserProfile]:
        """Return the members of the selected cohort that have no profile but are included."""
        cohort = self.cohort(selection.cohort)
        if cohort is None or not selection.include_all_users or selection.where is not None:
            return []
        others = without_profile(self.profile, cohort)
        return [each for each in others if selection.ids is None or each.key in selection.ids]

    def profiles(
        self, selection: ProfileSelection, revision: int, numbers: Sequence[int]
    ) -> Iterator[UserProfile]:
        """Yield the profiles with these numbers, with the selected properties."""
        for each in generated(self.profile, self._state(selection, revision), numbers):
            if selection.properties is None:
                yield each
            else:
                yield each._replace(properties=selected_members(each.properties, selection.properties))

    def cohort(self, number: int | None) -> Cohort | None:
        """Return the cohort with this id; None if there is none."""
        return next((cohort for cohort in self.rules.cohorts if cohort.id == number), None)

    def _state(self, selection: ProfileSelection, revision: int) -> Revision:
        group = 0 if selection.group is None else 1 + crc32(selection.group.encode()) % 10**6
        return Revision(revision, group, self.rules.random_bytes)


def _is_member(profile: UserProfile, cohort: Cohort) -> bool:
    return crc32(profile.key.encode(), cohort.id & 0xFFFFFFFF) % _WHOLE < cohort.share * _WHOLE


def _events(profile: UserProfile, behaviors: Sequence[str]) -> dict[str, int]:
    """Return a number of events for each behavior. It does not depend on the selectors or on the project's events."""
    return {name: crc32(f"{name}:{profile.key}".encode()) % _BEHAVIOR_EVENTS for name in behaviors}


@dataclass(slots=True)
class _Session:
    """The profiles of a session. The pages after the first begin *shift* profiles later than without a fault."""

    id: str
    started: float
    selection: ProfileSelection
    revision: int
    numbers: Sequence[int]
    others: Sequence[UserProfile]
    page_size: int
    shift: int = 0

    @property
    def total(self) -> int:
        return len(self.numbers) + len(self.others)

    def page(self, number: int) -> "Page":
        start, stop = number * self.page_size, (number + 1) * self.page_size
        if number:
            start, stop = start + self.shift, stop + self.shift
        return Page(number, start, stop, self.page_size, self.total)


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its number, the positions of its profiles, its size and the total, as they are sent."""

    number: int
    start: int
    stop: int
    size: int
    total: int


def _neighbour(session: _Session, page: Page) -> Page:
    return session.page(page.number - 1 if page.number else 1)


def _shift(session: _Session, page: Page, offset: int) -> Page:
    """Shift this page and the session's later pages. The first page is never shifted."""
    session.shift += offset
    return session.page(page.number)


def _short(session: _Session, page: Page, fault: Fault) -> Page:
    stop = min(page.stop, session.total)
    return replace(page, stop=page.start + int(max(0, stop - page.start) * fault.position))


PAGES: dict[str, Callable[[_Session, Page, Fault], Page]] = {
    "short_page": _short,
    "total_too_low": lambda _, page, __: replace(page, total=max(0, page.total - 1)),
    "total_too_high": lambda _, page, __: replace(page, total=page.total + 1),
    "wrong_page": lambda session, page, _: _neighbour(session, page),
    "page_again": lambda session, page, _: replace(_neighbour(session, page), number=page.number),
    "profile_repeated": lambda session, page, _: _shift(session, page, -1),
    "profile_skipped": lambda session, page, _: _shift(session, page, 1),
}
"""Changes to a page. The last two simulate that a profile before the page was added or deleted, which shifts the page."""


@dataclass(slots=True)
class Engage:
    """The endpoint for user profiles."""

    people: People
    selector: FaultSelector
    clock: Callable[[], float]
    faults: list[Fault] = field(default_factory=list)
    revision: int = 0
    requests: list[RequestLog] = field(default_factory=list)
    _sessions: dict[str, _Session] = field(default_factory=dict)

    def serves(self, request: Request) -> bool:
        """Return whether *request* is for this endpoint."""
        return request.path in _PATHS and request.method in {"GET", "POST"}

    def is_counted(self, request: Request) -> bool:
        """Return whether *request* counts against the hourly limit. Requests with a session do not."""
        return not request.params.get("session_id")

    def prepare(self, request: Request, log: RequestLog) -> FixedResponse | JSONResponse:
        """Return a page, or an error response."""
        query = parse_profile_query(request.params)
        if isinstance(query, FixedResponse):
            return query
        if query.selection.cohort is not None and self.people.cohort(query.selection.cohort) is None:
            return invalid(f"there is no cohort {query.selection.cohort}")
        faults = [fault for fault in self.faults if fault.kind != "session_evicted" or query.session_id]
        fault = self.selector.for_page(faults, query.page, gzip=request.accepts_gzip)
        log.fault = fault.kind if fault else None
        if fault and fault.kind == "session_evicted":
            self._sessions.pop(query.session_id or "", None)
        if failed := failure(fault):
            return failed
        session = self._session(query)
        if session is None:
            return STATUS["session_evicted"]
        page = session.page(query.page)
        if fault and fault.kind in PAGES:
            page = PAGES[fault.kind](session, page, fault)
        return JSONResponse(lambda: self._body(session, page), fault, self.people.rules.seconds_per_page)

    def selected(self, selection: ProfileSelection) -> Iterator[UserProfile]:
        """Yield the profiles that a session would have if it started now."""
        numbers = self.people.matches(selection, self.revision)
        yield from self.people.profiles(selection, self.revision, numbers)
        yield from self.people.others(selection)

    def _session(self, query: ProfileQuery) -> _Session | None:
        """Return the session of *query*; None if it no longer exists or has another selection."""
        if query.session_id is None:
            return self._start(query.selection) if query.page == 0 else None
        session = self._sessions.get(query.session_id)
        if session is None or session.selection != query.selection:
            return None
        lifetime = self.people.rules.session_seconds
        expired = lifetime is not None and self.clock() - session.started >= lifetime
        return None if expired or (query.page and not query.cacheable) else session

    def _start(self, selection: ProfileSelection) -> _Session:
        session = _Session(
            f"{1_700_000_000 + len(self.requests)}-SIMLTD",
            self.clock(),
            selection,
            self.revision,
            self.people.matches(selection, self.revision),
            self.people.others(selection),
            selection.page_size or self.people.rules.page_size,
        )
        self._sessions[session.id] = session
        return session

    def _body(self, session: _Session, page: Page) -> bytes:
        """Return the JSON text of a page."""
        count = len(session.numbers)
        numbers = session.numbers[max(0, page.start) : max(0, page.stop)]
        others = session.others[max(0, page.start - count) : max(0, page.stop - count)]
        profiles = [*self.people.profiles(session.selection, session.revision, numbers), *others]
        totals = page.number == 0 or self.people.rules.totals == "all"
        return b"".join(
            (
                b'{"page":%d,' % page.number,
                b'"page_size":%d,' % page.size if totals else b"",
                b'"results":[' + b",".join(each.sent() for each in profiles),
                b'],"session_id":"%s","status":"ok"' % session.id.encode(),
                b',"total":%d' % page.total if totals else b"",
                b"}",
            )
        )
