"""Creates HTTP clients, with proxy, certificates, keepalive and HTTP/2. Converts HTTP library errors to `APIError`."""

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
from mixpanel_export._source.proxies import ProxySetting, proxy_for
from mixpanel_export.errors import APIError, ConfigError, NetworkError, QueryError

_E = TypeVar("_E", bound=BaseException)

_UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None)
# These errors mean that the peer closed the connection during the TLS handshake.
_CLOSED_BY_PEER = (ssl.SSLWantReadError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


@dataclass(slots=True)
class Route:
    """The host of a request, and the proxy if there is one. Error messages use them."""

    host: str
    port: int
    setting: ProxySetting | None = None
    """The environment's proxy for the host; None if there is none."""
    proxy: str | None = None
    """Host and port of the last connection's proxy; None if the connection went directly to the host."""
    response_started: bool = False
    """Whether the response has started."""

    @classmethod
    def to(cls, url: str) -> "Route":
        """Return the route to the host of *url*."""
        address = httpx.URL(url)
        port = address.port or (443 if address.scheme == "https" else 80)
        return cls(address.raw_host.decode("ascii"), port, proxy_for(url))

    def observe(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle an httpx `trace` event: when a connection is opened, record its peer and enable TCP keepalive."""
        if event.endswith("connect_tcp.started"):
            direct = (info["host"], info["port"]) == (self.host, self.port)
            self.proxy = None if direct else f"{info['host']}:{info['port']}"
        elif event.endswith("connect_tcp.complete"):
            _enable_keepalive(info["return_value"].get_extra_info("socket"))

    @property
    def peer(self) -> str:
        """The proxy or host at the other end of the connection, for messages."""
        return f"the proxy {self.proxy}" if self.proxy else self.host

    @property
    def settings(self) -> str:
        """The setting that determines `peer`, for messages."""
        return self.setting.source if self.proxy and self.setting else "the API URL"


def new_client(
    url: str, transport: httpx.AsyncBaseTransport | None = None, *, http2: bool = False
) -> httpx.AsyncClient:
    """Return a client for requests to *url*. Each request has its own connection.

    If *transport* is None, the client uses the proxy and the certificates from the environment. It uses HTTP/1.1, or
    HTTP/2 if *http2* is true and the server supports it.

    Raises:
        ConfigError: The environment's proxy or certificates cannot be used.
    """
    if transport is not None:
        return httpx.AsyncClient(transport=transport)
    certificates = _certificates(url)
    if http2:
        # At debug level, hpack logs every header, including the credentials.
        logging.getLogger("hpack").setLevel(logging.INFO)
    proxy = proxy_for(url)
    connect = partial(_network_client, certificates, proxy, http2=http2)
    client = connect()
    return httpx.AsyncClient(transport=_ConnectionPerRequest(connect)) if http2 else client


def _certificates(url: str) -> ssl.SSLContext:
    """Return the certificates from the environment; none for an `http:` URL, because loading them takes 25 ms."""
    if httpx.URL(url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise ConfigError(
            f"the certificates in SSL_CERT_FILE cannot be read ({error})",
            advice="set it to a PEM file, or unset it",
        ) from error


def _network_client(
    certificates: ssl.SSLContext, proxy: ProxySetting | None, *, http2: bool
) -> httpx.AsyncClient:
    # httpx must not read the environment (trust_env), because an IPv6 network in NO_PROXY would make it fail.
    client = partial(httpx.AsyncClient, verify=certificates, http2=http2, limits=_UNLIMITED, trust_env=False)
    if proxy is None:
        return client()
    try:
        return client(proxy=proxy.url)
    except ImportError as error:
        raise ConfigError(
            f"{proxy.source} is a SOCKS proxy, which needs the socksio package",
            advice="run `pip install socksio`, or use an HTTP proxy",
        ) from error
    except (ValueError, httpx.InvalidURL):
        # httpx's message may contain part of the proxy's password.
        raise ConfigError(
            f"the proxy in {proxy.source} cannot be used",
            advice="write it as http://[USER:PASSWORD@]HOST:PORT",
        ) from None


class _ConnectionPerRequest(httpx.AsyncBaseTransport):
    """Opens an HTTP/2 connection for each request, and closes it with the response.

    Requests cannot share an HTTP/2 connection, for three reasons. Its streams share flow control, so a response that
    waits for the writer would hold up the others. The in-flight bytes of a cancelled response would never be credited
    back. And httpx numbers a stream before the gate admits its request, so two waiting requests would get the same
    number.
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
            stream=_ResponseStream(response, connection),
            extensions=response.extensions,
        )


class _ResponseStream(httpx.AsyncByteStream):
    """A response's raw body. Closing it closes the connection."""

    def __init__(self, response: httpx.Response, connection: AsyncExitStack) -> None:
        self._response = response
        self._connection = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_raw()

    async def aclose(self) -> None:
        await self._connection.aclose()


@contextmanager
def as_api_errors(route: Route, days: Chunk | None = None) -> Iterator[None]:
    """Convert HTTP library errors to `APIError`. *days* contains the requested days, if any."""
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
        raise _as_api_error(error, route, days) from error


def _as_api_error(error: Exception, route: Route, days: Chunk | None) -> APIError:
    match error:
        case TimeoutError():
            return NetworkError(
                f"{route.host} sent no data for too long",
                days=days,
                advice="check the network, and try again",
                mid_answer=True,
            )
        case httpx.ProxyError():
            return NetworkError(
                f"{route.peer} rejected the connection to {route.host} ({error})",
                days=days,
                advice=f"check {route.settings}, and the proxy's rules",
            )
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return _not_connected(error, route, days)
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError() | httpx.InvalidURL() if not _cause(
            error, H2Error
        ):
            return QueryError(
                f"the request cannot be sent ({error})",
                days=days,
                advice=f"check {route.settings}",
                status_code=None,
            )
    reason = str(error) or type(error).__name__
    return NetworkError(
        f"the connection to {route.host} broke ({reason})",
        days=days,
        advice="check the network, and try again",
        mid_answer=route.response_started,
    )


def _not_connected(error: Exception, route: Route, days: Chunk | None) -> NetworkError:
    if isinstance(error, httpx.ConnectTimeout):
        return NetworkError(
            f"timed out connecting to {route.peer}",
            days=days,
            advice=f"check the network, firewalls and {route.settings}",
        )
    if dns_error := _cause(error, socket.gaierror):
        return NetworkError(
            f"no address was found for {route.peer} ({dns_error.strerror})",
            days=days,
            advice=f"check the network, its name servers and {route.settings}",
        )
    tls_error = _cause(error, ssl.SSLError)
    if tls_error and not isinstance(tls_error, _CLOSED_BY_PEER):
        return NetworkError(
            f"no secure connection to {route.host} ({_ssl_reason(tls_error)}), so no credentials were sent",
            days=days,
            advice="if a proxy or firewall signs certificates itself, set SSL_CERT_FILE to the file of its authority",
        )
    return NetworkError(
        f"cannot connect to {route.peer} ({str(error) or 'it closed the connection'})",
        days=days,
        advice=f"check the network and {route.settings}",
    )


def _cause(error: BaseException, kind: type[_E]) -> _E | None:
    """Return the first error of class *kind* among *error* and its causes; None if there is none."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause


def _ssl_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return error.reason or str(error)


def _enable_keepalive(connection: socket.socket) -> None:
    """Let TCP probe a connection after a minute of idleness, and then every 30 seconds.

    Otherwise, some routers (NAT) drop an idle connection. If the system rejects the options, or the connection is
    already closed, nothing changes.
    """
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 30)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
