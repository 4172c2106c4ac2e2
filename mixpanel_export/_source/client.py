"""How a connection comes about: proxies, certificates, keepalive, HTTP/2, and what to say where there is none."""

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import httpx
from h2.exceptions import H2Error

from mixpanel_export._model import Chunk
from mixpanel_export.errors import APIError, ConfigError, NetworkError, QueryError

_E = TypeVar("_E", bound=BaseException)

_UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None)
_HUNG_UP = (ssl.SSLWantReadError, ssl.SSLEOFError)  # what TLS says of a peer that went in the handshake
_PROXIES = "HTTPS_PROXY, ALL_PROXY and NO_PROXY"


@dataclass(slots=True)
class Route:
    """Whom a request is for, by which *proxy* (host and port) the last connection went, if by any; whether it is *answered*."""

    host: str
    port: int
    proxy: str | None = None
    answered: bool = False

    @classmethod
    def to(cls, url: str) -> "Route":
        """Return the route to the host of *url*."""
        address = httpx.URL(url)
        return cls(
            address.raw_host.decode("ascii"), address.port or (443 if address.scheme == "https" else 80)
        )

    def follow(self, event: str, info: Mapping[str, Any]) -> None:
        """Learn from an event of the library's trace whom it connects to, and let TCP keep that connection alive."""
        if event.endswith("connect_tcp.started"):
            direct = (info["host"], info["port"]) == (self.host, self.port)
            self.proxy = None if direct else f"{info['host']}:{info['port']}"
        elif event.endswith("connect_tcp.complete"):
            _keep_alive(info["return_value"].get_extra_info("socket"))

    @property
    def peer(self) -> str:
        """Whom the connection itself was for, in words."""
        return f"the proxy {self.proxy}" if self.proxy else self.host

    @property
    def settings(self) -> str:
        """What decides where the connection goes, in words."""
        return _PROXIES if self.proxy else "the proxy and the API URL"


def new_client(transport: httpx.AsyncBaseTransport | None, *, http2: bool = False) -> httpx.AsyncClient:
    """Return a client for the export endpoint, by way of *transport* or with the environment's proxies and CAs.

    HTTP/1.1, or with *http2* whichever of the two the server prefers. Either way a request has its connection to
    itself. Plain HTTP, which is for loopback only, passes no proxy, since a proxy would read the credentials.

    Raises:
        ConfigError: The proxies or the certificates that the environment names cannot be used.
    """
    if transport is not None:
        return httpx.AsyncClient(transport=transport)
    try:
        certificates = httpx.create_ssl_context()
    except OSError as error:
        raise ConfigError(
            f"the certificates that SSL_CERT_FILE names cannot be read ({error}); name a PEM file, or unset it"
        ) from error
    if http2:
        # At debug level it writes every header that it sends, the credentials' too.
        logging.getLogger("hpack").setLevel(logging.INFO)
    connect = partial(_networked, certificates, http2=http2)
    try:
        client = connect()
    except ImportError as error:
        raise ConfigError(
            f"the environment's proxy cannot be used ({str(error).rstrip('.')}); check {_PROXIES}"
        ) from error
    except (ValueError, httpx.InvalidURL):
        # What the library says may repeat a part of the proxy's password.
        raise ConfigError(
            f"the environment's proxy cannot be used; write it as http://[USER:PASSWORD@]HOST:PORT in {_PROXIES}"
        ) from None
    return httpx.AsyncClient(transport=_OwnConnections(connect)) if http2 else client


def _networked(certificates: ssl.SSLContext, *, http2: bool) -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=certificates, http2=http2, limits=_UNLIMITED, mounts={"http://": None})


class _OwnConnections(httpx.AsyncBaseTransport):
    """A connection for each request, closed together with its answer.

    Many streams on one HTTP/2 connection would share its flow control: an answer that waits for the writer would
    hold up all others, and what is still under way of an abandoned one is never credited back. The library also
    numbers a stream before the gate lets its request go, so two that wait there would be one stream.
    """

    def __init__(self, connect: Callable[[], httpx.AsyncClient]) -> None:
        self._connect = connect

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(self._connect())
            response = await client.send(request, stream=True)
            stack.push_async_callback(response.aclose)
            connection = stack.pop_all()
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_OwnedStream(response, connection),
            extensions=response.extensions,
        )


class _OwnedStream(httpx.AsyncByteStream):
    """The raw body of *response*, which ends its connection when it is closed."""

    def __init__(self, response: httpx.Response, connection: AsyncExitStack) -> None:
        self._response = response
        self._connection = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_raw()

    async def aclose(self) -> None:
        await self._connection.aclose()


@contextmanager
def as_api_errors(chunk: Chunk | str, route: Route) -> Iterator[None]:
    """Translate every error of the HTTP libraries into one of ours; *chunk*, or another word, says of what request."""
    try:
        yield
    except (
        TimeoutError,
        httpx.RequestError,
        httpx.StreamError,
        httpx.InvalidURL,
        H2Error,
        ssl.SSLError,
    ) as error:
        raise _meant(error, chunk, route) from error


def _meant(error: Exception, chunk: Chunk | str, route: Route) -> APIError:
    match error:
        case TimeoutError():
            return NetworkError(
                f"{route.host} went silent on {chunk}; check the network, and try again", mid_answer=True
            )
        case httpx.ProxyError():
            return NetworkError(
                f"{route.peer} does not let {chunk} through to {route.host} ({error}); "
                f"check {_PROXIES}, and what the proxy allows"
            )
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return _not_connected(error, chunk, route)
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError() | httpx.InvalidURL() if not _behind(
            error, H2Error
        ):
            return QueryError(
                f"the request for {chunk} cannot be sent ({error}); check the API URL and proxy"
            )
    reason = str(error) or type(error).__name__
    return NetworkError(
        f"the connection to {route.host} broke on {chunk} ({reason}); check the network, and try again",
        mid_answer=route.answered,
    )


def _not_connected(error: Exception, chunk: Chunk | str, route: Route) -> NetworkError:
    if isinstance(error, httpx.ConnectTimeout):
        return NetworkError(
            f"no connection to {route.peer} in time for {chunk}; check the network, firewalls, {route.settings}"
        )
    if unknown := _behind(error, socket.gaierror):
        return NetworkError(
            f"the name of {route.peer} has no address for {chunk} ({unknown.strerror}); "
            f"check the network, its name servers, {route.settings}"
        )
    refused = _behind(error, ssl.SSLError)
    if refused and not isinstance(refused, _HUNG_UP):
        return NetworkError(
            f"no secure connection to {route.host} for {chunk} ({_reason(refused)}), so no credentials were sent; "
            "where a proxy or firewall signs certificates itself, name its authority's file in SSL_CERT_FILE"
        )
    return NetworkError(
        f"cannot connect to {route.peer} for {chunk} ({str(error) or 'it hung up'}); "
        f"check the network, {route.settings}"
    )


def _behind(error: BaseException, kind: type[_E]) -> _E | None:
    """Return *error*, or the next error that led to it, if of *kind*."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, kind):
        found = found.__cause__ or found.__context__
    return found


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return error.reason or str(error)


def _keep_alive(connection: socket.socket) -> None:
    """Have TCP ask after a silent connection each half minute, from its first minute on.

    A minute's idleness is what address translators on the way may already forget. A system that refuses the
    options, or whose connection is gone by now, is left as it is.
    """
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 30)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
