"""The parameters that all requests of an export share. They are checked before the first request."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import httpx

from mixpanel_export._config.endpoint import export_url
from mixpanel_export._model import Chunk, Selection
from mixpanel_export._source.responses import LIST_ADVICE
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import ArgumentError

# Characters; httpx rejects longer queries. If Mixpanel accepts only shorter ones, it responds with 414.
_LONGEST_QUERY = 65_536


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits in seconds. An attempt that makes no progress for this time fails."""

    connect: float = 30.0
    """Seconds to open the connection, including TLS."""
    first_byte: float = 1800.0
    """Seconds from the request to the start of the response, which can take minutes for a large export."""
    idle: float = 300.0
    """Seconds between two pieces of the response."""


@dataclass(frozen=True, slots=True)
class RequestParameters:
    """The parameters that all requests of an export share."""

    url: str
    credentials: Credentials
    selection: Selection
    limit: int | None = None
    """The maximum number of events in a response; None for all."""
    timeouts: Timeouts = Timeouts()

    def for_days(self, chunk: Chunk) -> dict[str, str]:
        """Return the URL's query parameters for the days of *chunk*."""
        params = dict(self.credentials.params)
        params |= {"from_date": str(chunk.first), "to_date": str(chunk.last)}
        if self.selection.events_json is not None:
            params["event"] = self.selection.events_json
        if self.selection.where is not None:
            params["where"] = self.selection.where
        if self.limit is not None:
            params["limit"] = str(self.limit)
        return params


def parameters_for(
    credentials: Credentials,
    selection: Selection,
    *,
    limit: int | None = None,
    api_url: str | None = None,
    timeouts: Timeouts | None = None,
) -> RequestParameters:
    """Return the parameters. Requests go to *api_url* or, if it is None, to the server for the credentials' region.

    Raises:
        ArgumentError: The selection is too long for a request.
    """
    url = export_url(credentials.region, api_url)
    parameters = RequestParameters(url, credentials, selection, limit, timeouts or Timeouts())
    _check_length(parameters)
    return parameters


def _check_length(parameters: RequestParameters) -> None:
    """Check that the parameters fit into a URL. Mixpanel does not accept them in a request body."""
    params = parameters.for_days(Chunk(date.max, date.max))
    try:
        params.get("where", "").encode()
    except UnicodeEncodeError as error:
        raise ArgumentError("where", "cannot be sent as UTF-8", advice="write it in UTF-8") from error
    if len(str(httpx.QueryParams(params))) <= _LONGEST_QUERY:
        return
    if len(params.get("event", "")) > len(params.get("where", "")):
        raise ArgumentError(
            "events",
            f"has {len(parameters.selection.events or ()):,} names, which do not fit into a request",
            advice=LIST_ADVICE,
        )
    raise ArgumentError(
        "where", "is too long for a request", advice="use a shorter expression, or select in SQL afterwards"
    )


def checked_names(events: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the event names sorted and without duplicates; None for all events. An iterator is consumed.

    Raises:
        ArgumentError: *events* is a string, is empty, or contains something other than strings.
    """
    if events is None:
        return None
    if isinstance(events, str | bytes) or not isinstance(events, Iterable):
        raise ArgumentError("events", f"must be a list of at least one event name, got {events!r}")
    names = list(events)
    if not names or not all(isinstance(name, str) for name in names):
        raise ArgumentError("events", f"must be a list of at least one event name, got {names!r}")
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        raise ArgumentError("events", f"has a name that cannot be sent as UTF-8: {names!r}") from error
    return tuple(sorted({str(name) for name in names}))
