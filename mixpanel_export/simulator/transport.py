"""An httpx transport that connects a client to the simulator without a socket."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import httpx

from mixpanel_export.simulator.api import Api
from mixpanel_export.simulator.faults import ConnectionClosedFault, ConnectionResetFault
from mixpanel_export.simulator.parse import Request
from mixpanel_export.simulator.reply import Response


class Transport(httpx.AsyncBaseTransport):
    """Responds like the server, and raises the same errors as httpx does with a socket."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Respond to one request.

        Raises:
            httpx.ReadError: The connection was reset before the response headers arrived.
            httpx.ReadTimeout: The response headers did not arrive within the request's read timeout.
            httpx.RemoteProtocolError: The connection was closed before the response headers arrived.
        """
        await _trace(request, "http11.send_request_headers.started")
        await _trace(request, "http11.send_request_headers.complete")
        simulated_request = Request(
            request.method,
            request.url.raw_path.decode("ascii"),
            {name.lower(): value for name, value in request.headers.items()},
            await request.aread(),
        )
        timeout: float | None = request.extensions.get("timeout", {}).get("read")
        async with AsyncExitStack() as stack:
            try:
                with anyio.fail_after(timeout):
                    response = await stack.enter_async_context(self._api.exchange(simulated_request))
            except TimeoutError as error:
                raise httpx.ReadTimeout("", request=request) from error
            except ConnectionResetFault as error:
                raise httpx.ReadError("", request=request) from error
            except ConnectionClosedFault as error:
                raise httpx.RemoteProtocolError(
                    "Server disconnected without sending a response.", request=request
                ) from error
            return httpx.Response(
                response.status,
                headers=[*response.headers, ("Transfer-Encoding", "chunked")],
                stream=_Stream(response, request, timeout, stack.pop_all()),
                extensions={"reason_phrase": response.reason.encode()},
            )


class _Stream(httpx.AsyncByteStream):
    """A response body. Closing it ends the exchange."""

    def __init__(
        self, response: Response, request: httpx.Request, timeout: float | None, stack: AsyncExitStack
    ) -> None:
        self._response = response
        self._request = request
        self._timeout = timeout
        self._stack = stack

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def aclose(self) -> None:
        await self._stack.aclose()

    async def __anext__(self) -> bytes:
        try:
            with anyio.fail_after(self._timeout):
                return await anext(self._response.pieces)
        except TimeoutError as error:
            raise httpx.ReadTimeout("", request=self._request) from error
        except ConnectionResetFault as error:
            raise httpx.ReadError("", request=self._request) from error
        except ConnectionClosedFault as error:
            raise httpx.RemoteProtocolError(
                "peer closed connection without sending complete message body (incomplete chunked read)",
                request=self._request,
            ) from error


async def _trace(request: httpx.Request, event: str) -> None:
    """Report *event* as httpcore does, so that a client can wait for admission before it sends its headers."""
    if trace := request.extensions.get("trace"):
        await trace(event, {"request": request})
