"""Serves the simulator over HTTP/1.1 on a loopback socket, with h11. The server runs on asyncio and trio."""

import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import h11
from anyio.abc import SocketAttribute, SocketStream

from mixpanel_export.simulator.api import Api
from mixpanel_export.simulator.faults import ConnectionClosedFault, ConnectionResetFault
from mixpanel_export.simulator.parse import Request
from mixpanel_export.simulator.reply import Response

# struct linger: on, for zero seconds, so that closing the socket resets the connection.
_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_READ_BYTES = 65536


@asynccontextmanager
async def serving(api: Api, port: int) -> AsyncIterator[str]:
    """Serve *api* on 127.0.0.1 until the context exits, and yield the URL. Port 0 means a free port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    actual_port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's method, not Django's

    async def handle(stream: SocketStream) -> None:
        async with stream:
            await _Connection(api, stream).run()

    try:
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle, tasks)
            try:
                yield f"http://127.0.0.1:{actual_port}"
            finally:
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # An exception raised by the caller must not be wrapped in a group.
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from None


class _Connection:
    """A client connection, kept alive between requests."""

    def __init__(self, api: Api, stream: SocketStream) -> None:
        self._api = api
        self._stream = stream
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        """Respond to requests until the client or the server ends the connection."""
        try:
            while (request := await self._request()) is not None:
                await self._respond(request)
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except ConnectionResetFault:
            raw = self._stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's method, not Django's
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        except (ConnectionClosedFault, h11.RemoteProtocolError, anyio.BrokenResourceError):
            return

    async def _request(self) -> Request | None:
        """Read one request. Return None at the end of the connection."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            match event := self._http.next_event():
                case h11.NEED_DATA:
                    self._http.receive_data(await self._receive())
                case h11.Request():
                    head = event
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage() if head is not None:
                    return _to_request(head, bytes(body))
                case h11.ConnectionClosed() | h11.PAUSED:
                    return None

    async def _receive(self) -> bytes:
        try:
            return await self._stream.receive(_READ_BYTES)
        except anyio.EndOfStream:
            return b""

    async def _respond(self, request: Request) -> None:
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, tasks.cancel_scope)
            try:
                async with self._api.exchange(request) as response:
                    await self._send(response, head_only=request.method == "HEAD")
            except (ConnectionResetFault, ConnectionClosedFault, anyio.BrokenResourceError) as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure:
            raise failure

    async def _watch(self, scope: anyio.CancelScope) -> None:
        """Cancel *scope* as soon as the client disconnects."""
        try:
            while data := await self._receive():
                self._http.receive_data(data)
        except anyio.BrokenResourceError:
            pass
        scope.cancel()

    async def _send(self, response: Response, *, head_only: bool) -> None:
        headers = [*response.headers, ("Transfer-Encoding", "chunked")]
        head = h11.Response(status_code=response.status, headers=headers, reason=response.reason.encode())
        await self._stream.send(self._http.send(head) or b"")
        async for piece in response.pieces:
            if piece and not head_only:
                await self._stream.send(self._http.send(h11.Data(piece)) or b"")
        await self._stream.send(self._http.send(h11.EndOfMessage()) or b"")


def _to_request(head: h11.Request, body: bytes) -> Request:
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    return Request(head.method.decode("ascii"), head.target.decode("ascii"), headers, body)
