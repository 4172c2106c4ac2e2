"""Requests to Mixpanel's Query API, which returns JSON. They are retried like exports, and have their own quota."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx

from mixpanel_export._model import Chunk
from mixpanel_export._quota.gate import Admission, Gate, MaxWaitExceeded, SlotExpired
from mixpanel_export._quota.retry_policy import DEFAULT_PAUSES, History, Pauses, Wait, next_step
from mixpanel_export._source.client import Route, as_api_errors
from mixpanel_export._source.decoder import gunzip_for
from mixpanel_export._source.fetcher import max_wait_error
from mixpanel_export._source.parameters import RequestParameters
from mixpanel_export._source.request import closing_pieces, error_of, gather, send_request
from mixpanel_export._source.responses import add_request, error_in_success, redacted
from mixpanel_export.credentials import format_problem
from mixpanel_export.errors import APIError, RateLimitError, TruncatedError

_log = logging.getLogger("mixpanel_export")

_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip"}
_MAX_BODY = 64 << 20  # bytes
_HOURLY = "in the last hour"  # part of the error of a request that exceeds the hourly quota


@dataclass(slots=True)
class QueryApi:
    """The Query API of one project."""

    client: httpx.AsyncClient
    parameters: RequestParameters
    """The URL that precedes all paths, the credentials and the timeouts."""
    gate: Gate
    retries: int = 5
    pauses: Pauses = DEFAULT_PAUSES
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    requests: int = 0
    """The number of requests sent, including those that failed."""

    async def get(self, path: str, params: Mapping[str, str], days: Chunk) -> Any:
        """Request *path*, and return the JSON value of the response. Error messages name *days*.

        Raises:
            APIError: All attempts failed, another attempt cannot succeed, or the wait for the quota would exceed
                `max_wait`.
        """
        history = History()
        while True:
            try:
                async with self.gate.admission() as admission:
                    return await self._attempt(path, params, days, admission)
            except RateLimitError as error:  # the gate already pauses all callers
                _log.info("%s", error)
            except APIError as error:
                history = history.after(error)
                await self._pause(error, history)
            except SlotExpired:
                continue
            except MaxWaitExceeded as error:
                raise max_wait_error(days, error) from error

    async def _pause(self, error: APIError, history: History) -> None:
        """Wait before the next attempt, or raise *error* if there is none."""
        step = next_step(history, retries=self.retries, splittable=False, pauses=self.pauses)
        longest = max(self.pauses.longest, self.gate.statistics().max_wait_left)
        if not isinstance(step, Wait) or step.seconds > longest:
            raise error
        _log.info("%s; next attempt in %.1f s", error.text(advice=False), step.seconds)
        await anyio.sleep(step.seconds)

    async def _attempt(self, path: str, params: Mapping[str, str], days: Chunk, admission: Admission) -> Any:
        async def admit() -> None:
            await admission.admit()
            self.requests += 1

        url = self.parameters.url + path
        query = {**self.parameters.credentials.params, **params}
        route = Route.to(url)
        try:
            with as_api_errors(route, days):
                request = self.client.build_request("GET", url, params=query, headers=_HEADERS)
                response = await send_request(self.client, self.parameters, request, admit, route)
                route.answered = True
                try:
                    return await self._value(response, days)
                finally:
                    with anyio.CancelScope(shield=True):
                        await response.aclose()
        except APIError as error:
            add_request(error, "GET", url, query)
            raise

    async def _value(self, response: httpx.Response, days: Chunk) -> Any:
        """Return the JSON value of a response. Raises the response's error if it has none."""
        if response.status_code != httpx.codes.OK:
            error = await error_of(response, self.parameters, days, self.now())
            if isinstance(error, RateLimitError) and _HOURLY in str(error):
                error.retry_after = None  # it says a whole hour, but requests become available one by one
            raise error
        body = await self._body(response, days)
        text = redacted(body.decode("utf-8", "replace"), self.parameters.credentials)
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list) or (isinstance(value, dict) and not isinstance(value.get("error"), str)):
            return value
        raise error_in_success(text, days, hint=format_problem(self.parameters.credentials))

    async def _body(self, response: httpx.Response, days: Chunk) -> bytes:
        try:
            gunzip = gunzip_for(response.headers.get("content-encoding"))
            body = bytearray()
            async with closing_pieces(response.aiter_raw()) as pieces:
                while wire := await gather(pieces, self.parameters.timeouts.idle, lambda _: None):
                    for piece in wire:
                        for plain in gunzip.feed(piece) if gunzip else (piece,):
                            body += plain
                            _check_size(body)
            if gunzip:
                gunzip.close()
        except TruncatedError as error:
            raise TruncatedError(
                error.reason, days=days, advice="try again later", status_code=response.status_code
            ) from error.with_traceback(None)
        return bytes(body)


def _check_size(body: bytearray) -> None:
    if len(body) > _MAX_BODY:
        raise TruncatedError(f"the response is larger than the maximum of {_MAX_BODY} bytes")
