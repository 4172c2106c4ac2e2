"""Faults: the failures to simulate, the requests that fail, and the number of failures.

To add a kind of fault, add its name to `Kind` or `PageKind`, and an entry to one of four tables: `STATUS` in this module replaces
the whole response; `LINES` and `WIRE` in `fault_stages` change the body; `PAGES` in `engage` changes a page of profiles.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from random import Random
from typing import Literal

Kind = Literal[
    "400", "401", "402", "403", "404", "413", "414", "416", "429", "500", "502", "503", "504",
    "auth_text_200", "auth_text_400", "empty_200", "timeout_error", "redirect",
    "reset_before_head", "close_before_head", "stall_before_head",
    "terminated_early", "error_fragment", "error_line", "garbage_line", "cut_line",
    "blank_lines", "no_final_newline", "crlf",
    "reset", "close", "stall",
    "truncated_gzip", "corrupt_crc", "trailing_garbage", "two_members", "empty_body",
]  # fmt: skip
PageKind = Literal[
    "session_evicted", "short_page", "total_too_low", "total_too_high", "wrong_page", "page_again",
    "profile_repeated", "profile_skipped",
]  # fmt: skip
"""Failures of pages of profiles. Pages can also fail like exports."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure for requests that include any day from *first* to *last*.

    `Fault("empty_200", days=(d1, d2), times=1)` causes one empty response for each of the two days: the first request
    for a day gets status 200 without a body, and the next one gets the events. It does not matter how the client
    combines days into requests.

    Args:
        kind: The kind of failure.
        first: First day that the fault applies to; None for no lower bound.
        last: Last day that the fault applies to; None for no upper bound.
        probability: Share of the matching requests that fail; the choice depends on the simulator's seed.
        times: Maximum number of requests that fail; None for no maximum.
        after: Number of matching requests that succeed before the first failure.
        position: Position of the failure in the body, from 0 (before the first byte) to 1 (after the last byte).
        retry_after: Seconds for `Retry-After` with status 429 and 503; None omits the header.
        seconds: Duration of a stall.
        status: Replaces the status of a kind that has one.
        text: Replaces the text of a kind that has one.
        newline: Whether a marker line ends with a newline.
        location: URL of a redirect; None adds a slash to the path, or removes it.
        days: The only days that the fault applies to. *after* and *times* then count for each day separately. Empty for
            no restriction.
        pages: The only pages of profiles that the fault applies to, counted from 0. *after* and *times* then count for
            each page separately. Empty for no restriction.

    Raises:
        ValueError: A share is outside 0 to 1, a number is negative, the status is outside 200 to 599, or
            *location* has characters that are not allowed in a header.
    """

    kind: Literal[Kind, PageKind]
    first: date | None = None
    last: date | None = None
    probability: float = 1.0
    times: int | None = None
    after: int = 0
    position: float = 0.5
    retry_after: float | None = 1.0
    seconds: float = 3600.0
    status: int | None = None
    text: str | None = None
    newline: bool = True
    location: str | None = None
    days: tuple[date, ...] = ()
    pages: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        for name in ("probability", "position"):
            if not 0 <= (share := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {share}")
        for name in ("after", "times", "seconds", "retry_after"):
            if (number := getattr(self, name)) is not None and not number >= 0:
                raise ValueError(f"{name} must not be negative, not {number}")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status must be between 200 and 599, not {self.status}")
        if self.location is not None and not (self.location.isascii() and self.location.isprintable()):
            raise ValueError("location must be a URL, percent-encoded")

    def applies_to(self, first: date, last: date) -> bool:
        """Return whether a request for these days matches."""
        return (
            (self.last is None or first <= self.last)
            and (self.first is None or self.first <= last)
            and (not self.days or any(first <= day <= last for day in self.days))
        )


@dataclass(slots=True)
class _Counts:
    """The counters of one fault, keyed by day or page, or by None if the fault has no *days* or *pages*."""

    fault: Fault  # keeps the object alive, because its id is used as a key
    requests: int = 0
    matches: Counter[date | int | None] = field(default_factory=Counter)
    failures: Counter[date | int | None] = field(default_factory=Counter)


class FaultSelector:
    """Selects the fault for each request, and counts matches and failures separately for each fault."""

    def __init__(self, seed: int) -> None:
        self._random = Random(f"{seed}:faults")
        self._counts: dict[int, _Counts] = {}

    def for_days(self, faults: list[Fault], first: date, last: date, *, gzip: bool) -> Fault | None:
        """Return the first of *faults* that makes a request for these days fail, or None."""
        for fault in _possible(faults, gzip=gzip):
            keys = [day for day in fault.days if first <= day <= last] if fault.days else [None]
            if fault.applies_to(first, last) and self._fails(fault, keys):
                return fault
        return None

    def for_page(self, faults: list[Fault], page: int, *, gzip: bool) -> Fault | None:
        """Return the first of *faults* that makes a request for this page of profiles fail, or None."""
        for fault in _possible(faults, gzip=gzip):
            applies = page in fault.pages or not fault.pages
            if applies and self._fails(fault, [page] if fault.pages else [None]):
                return fault
        return None

    def hits(self, fault: Fault) -> int:
        """Return how many requests failed because of *fault*."""
        return self._counts[id(fault)].requests if id(fault) in self._counts else 0

    def _fails(self, fault: Fault, keys: Sequence[date | int | None]) -> bool:
        counts = self._counts.setdefault(id(fault), _Counts(fault))
        counts.matches.update(keys)
        due = [
            key
            for key in keys
            if counts.matches[key] > fault.after
            and (fault.times is None or counts.failures[key] < fault.times)
        ]
        if not due or self._random.random() >= fault.probability:
            return False
        counts.failures.update(due)
        counts.requests += 1
        return True


def _possible(faults: list[Fault], *, gzip: bool) -> Iterator[Fault]:
    return (fault for fault in faults if gzip or fault.kind not in GZIP_ONLY)


@dataclass(frozen=True, slots=True)
class FixedResponse:
    """A response without events."""

    status: int
    body: str
    content_type: str = "text/plain"
    retry_after: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class ConnectionResetFault(Exception):  # noqa: N818 - a simulated failure, not an error in the simulator
    """Tells the server to reset the connection."""


class ConnectionClosedFault(Exception):  # noqa: N818 - a simulated failure, not an error in the simulator
    """Tells the server to close the connection in the middle of the response."""


_JSON = "application/json"
_HTML = "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"
_ENVOY = "upstream connect error or disconnect/reset before headers. reset reason: connection failure"

STATUS: dict[str, FixedResponse] = {
    "400": FixedResponse(400, '{"request": "/api/2.0/export", "error": "Bad request"}', _JSON),
    "401": FixedResponse(401, '{"error": "Invalid credentials", "status": "error"}', _JSON),
    "402": FixedResponse(
        402, '{"error": "Your plan does not allow API calls. Upgrade at mixpanel.com/pricing"}', _JSON
    ),
    "403": FixedResponse(
        403, '{"request": "/api/2.0/export", "error": "Date range exceeds 365 days into the past"}', _JSON
    ),
    "404": FixedResponse(404, "Not found"),
    "413": FixedResponse(413, _HTML.format("413 Request Entity Too Large"), "text/html"),
    "414": FixedResponse(414, _HTML.format("414 Request-URI Too Large"), "text/html"),
    "416": FixedResponse(416, "Requested Range Not Satisfiable"),
    "429": FixedResponse(429, '{"error": "too many export requests in progress for this project"}', _JSON),
    "500": FixedResponse(500, "error completing export request"),
    "502": FixedResponse(502, _HTML.format("502 Server Error"), "text/html"),
    "503": FixedResponse(503, _ENVOY),
    "504": FixedResponse(504, _HTML.format("504 Gateway Time-out"), "text/html"),
    "auth_text_200": FixedResponse(200, "Unable to authenticate request"),
    "auth_text_400": FixedResponse(400, "Unable to authenticate request"),
    "empty_200": FixedResponse(200, ""),
    "timeout_error": FixedResponse(400, '{"request": "/api/2.0/export", "error": "Timeout Error."}', _JSON),
    "redirect": FixedResponse(302, ""),
    "session_evicted": FixedResponse(
        400,
        '{"request": "/api/query/engage", "error": "request for page in uncached query for params"}',
        _JSON,
    ),
}
"""Responses without events. Their bodies were observed, except for 413, 414, 416 and redirects."""

BEFORE_HEAD: dict[str, type[Exception]] = {
    "reset_before_head": ConnectionResetFault,
    "close_before_head": ConnectionClosedFault,
}
GZIP_ONLY = frozenset({"truncated_gzip", "corrupt_crc", "trailing_garbage", "two_members", "empty_body"})
"""Kinds that apply only to requests that accept gzip. The body is then always compressed."""
