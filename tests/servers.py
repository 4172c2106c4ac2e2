"""TLS servers and proxies on loopback, over HTTP/1.1 and HTTP/2."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import anyio
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import httpx
import trustme
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSAttribute, TLSStream

PATH = "/api/2.0/export"
GONE = (
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
    h2.exceptions.H2Error,
    httpx.HTTPError,
    ssl.SSLError,
)  # what ends a connection

Misdeed = Callable[["Http2", int], Awaitable[None]]


@dataclass
class Server:
    """A TLS server on loopback that forwards requests to *behind*; *misdeed* damages a response over HTTP/2."""

    behind: httpx.AsyncBaseTransport
    offers: tuple[str, ...] = ("h2", "http/1.1")
    misdeed: Misdeed | None = None
    port: int = 0
    connections: list[str] = field(default_factory=list)  # the protocol of each that stood
    requests: list[httpx.Request] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    left: int = 0  # connections that have ended

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}{PATH}"

    async def connected(self, context: ssl.SSLContext, stream: SocketStream) -> None:
        async with stream:
            with suppress(*GONE):
                tls = await TLSStream.wrap(
                    stream, server_side=True, ssl_context=context, standard_compatible=False
                )
                protocol = tls.extra(TLSAttribute.alpn_protocol) or ""
                self.connections.append(protocol)
                await (Http2(self, tls).run() if protocol == "h2" else self.http1(tls))
        self.left += 1

    async def http1(self, stream: ByteStream) -> None:
        """Respond to the requests of one connection over HTTP/1.1."""
        while True:
            head = await head_of(stream)
            method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
            async with self.answer(method, target, headers) as (response, pieces):
                said = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
                await stream.send(f"HTTP/1.1 {response.status_code} X\r\n{said}\r\n".encode())
                async for piece in pieces:
                    await stream.send(b"%x\r\n%s\r\n" % (len(piece), piece))
                await stream.send(b"0\r\n\r\n")

    @asynccontextmanager
    async def answer(
        self, method: str, target: str, headers: dict[str, str]
    ) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[bytes]]]:
        """Ask *behind*, and yield its response with the pieces of its body."""
        request = httpx.Request(method, f"https://localhost{target}", headers=headers)
        self.requests.append(request)
        response = await self.behind.handle_async_request(request)
        response.headers["transfer-encoding"] = "chunked"
        assert isinstance(response.stream, httpx.AsyncByteStream)
        try:
            pieces = aiter(response.stream)
            yield response, pieces
        finally:
            with anyio.CancelScope(shield=True):
                await pieces.aclose()  # type: ignore[attr-defined]  # a generator, or as good as one


class Http2:
    """An HTTP/2 connection, with as many streams as the client opens."""

    def __init__(self, server: Server, stream: ByteStream) -> None:
        self.server = server
        self.stream = stream
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.credit = anyio.Event()
        self.lock = anyio.Lock()

    async def run(self) -> None:
        self.state.initiate_connection()
        await self.flush()
        async with anyio.create_task_group() as tasks:
            with suppress(*GONE):
                async for data in self.stream:
                    for event in self.state.receive_data(data):
                        if isinstance(event, h2.events.RequestReceived):
                            tasks.start_soon(self.answered, event)
                    self.credit.set()
                    self.credit = anyio.Event()
                    await self.flush()
            tasks.cancel_scope.cancel()

    async def answered(self, event: h2.events.RequestReceived) -> None:
        """Respond, and close the connection if that fails."""
        try:
            await self.answer(event)
        except GONE:
            await self.stream.aclose()

    async def answer(self, event: h2.events.RequestReceived) -> None:
        number = event.stream_id
        headers = {name.decode(): value.decode() for name, value in event.headers}
        self.server.streams.append(number)
        method, target = headers.pop(":method"), headers.pop(":path")
        usual = {name: value for name, value in headers.items() if not name.startswith(":")}
        if self.server.misdeed:
            await self.server.misdeed(self, number)
            await self.flush()
            return
        async with self.server.answer(method, target, usual) as (response, pieces):
            del response.headers["transfer-encoding"]
            head = [(":status", str(response.status_code)), *response.headers.items()]
            self.state.send_headers(number, head)
            async for piece in pieces:
                await self.send(number, piece)
            self.state.end_stream(number)
            await self.flush()

    async def send(self, number: int, data: bytes) -> None:
        """Send *data* as far and as soon as flow control allows it."""
        rest = memoryview(data)
        while rest:
            room = min(self.state.local_flow_control_window(number), self.state.max_outbound_frame_size)
            if room == 0:
                await self.credit.wait()
                continue
            self.state.send_data(number, bytes(rest[:room]))
            rest = rest[room:]
            await self.flush()

    async def flush(self) -> None:
        async with self.lock:
            await self.stream.send(self.state.data_to_send())


@dataclass
class Proxy:
    """A proxy on loopback that leads every CONNECT to the port asked for on loopback, or *refuses*.

    One that *spoils* sends the client zeros from the second mebibyte on.
    """

    refuses: bytes | None = None
    spoils: bool = False
    port: int = 0
    heads: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://someone:proxy-password@127.0.0.1:{self.port}"

    async def connected(self, stream: SocketStream) -> None:
        async with stream:
            head = await head_of(stream)
            self.heads.append(head)
            if self.refuses or not head.startswith(b"CONNECT "):
                await stream.send(self.refuses or b"HTTP/1.1 405 Method Not Allowed\r\n\r\n")
                return
            port = int(head.split(b" ")[1].rpartition(b":")[2])
            async with await anyio.connect_tcp("127.0.0.1", port) as other:
                await stream.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(copied, stream, other, tasks.cancel_scope)
                    tasks.start_soon(copied, other, stream, tasks.cancel_scope, self.spoils)


async def head_of(stream: ByteStream) -> bytes:
    """Return the head of a request without a body, and no more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive()
    return head.removesuffix(b"\r\n\r\n")


async def copied(
    source: ByteStream, target: ByteStream, scope: anyio.CancelScope, spoils: bool = False
) -> None:
    """Forward data until either end closes, then end *scope*."""
    passed = 0
    with suppress(*GONE):
        async for data in source:
            await target.send(bytes(len(data)) if spoils and passed > 1 << 20 else data)
            passed += len(data)
    scope.cancel()


@asynccontextmanager
async def listening(connected: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve connections on loopback while the context lasts, and yield the port."""
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, connected)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def serving(authority: trustme.CA, server: Server) -> AsyncIterator[Server]:
    """Serve on loopback with a certificate of *authority* for `localhost` and `data.example`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "data.example").configure_cert(context)
    context.set_alpn_protocols(server.offers)
    async with listening(partial(server.connected, context)) as server.port:
        yield server


@asynccontextmanager
async def proxying(proxy: Proxy) -> AsyncIterator[Proxy]:
    async with listening(proxy.connected) as proxy.port:
        yield proxy
