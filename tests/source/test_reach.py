"""Whether a server can be reached, and the time on its clock: over real sockets, and without credentials."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import anyio
import httpx
import pytest
import trustme
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream
from support import ACCOUNT, simulator

from mixpanel_export._source.reach import probe_server
from mixpanel_export.errors import ConfigError, MixpanelDataError, NetworkError

pytestmark = pytest.mark.anyio

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
HEADERS = {"Date": format_datetime(NOW, usegmt=True)}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, tmp_path: Path) -> None:
    """No proxy, and the authority trusted."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))


async def head_of(stream: ByteStream) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive()
    return head


@asynccontextmanager
async def server(context: ssl.SSLContext, heads: list[bytes]) -> AsyncIterator[int]:
    """Listen for TLS, also as a proxy that is asked to connect, and note the heads that arrive."""

    async def connected(stream: SocketStream) -> None:
        with suppress(ssl.SSLZeroReturnError):  # old releases of Python raise it if the client hangs up
            await answer(stream)

    async def answer(stream: SocketStream) -> None:
        async with stream:
            if heads == [b"proxy"]:
                heads.append(await head_of(stream))
                await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
            tls = await TLSStream.wrap(
                stream, server_side=True, ssl_context=context, standard_compatible=False
            )
            heads.append(await head_of(tls))
            said = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
            await tls.send(f"HTTP/1.1 404 Not Found\r\n{said}Content-Length: 9\r\n\r\n".encode())

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, connected)
        yield listener.extra(SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


def secured(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


async def test_what_answers_is_reached_whatever_it_says(authority: trustme.CA) -> None:
    """The front page is requested without credentials, project or path, and the TLS version is reported."""
    heads: list[bytes] = []
    async with server(secured(authority), heads) as port:
        reached = await probe_server(f"https://localhost:{port}/api/2.0/export", now=lambda: NOW)
    assert (reached.server, reached.status) == (f"https://localhost:{port}", 404)
    assert reached.tls in {"TLSv1.2", "TLSv1.3"}
    assert reached.proxy is None
    (head,) = heads
    assert head.startswith(b"HEAD / HTTP/1.1\r\n")
    assert b"authorization" not in head.lower()


async def test_a_proxy_is_named(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """The route of an export is used and reported."""
    heads = [b"proxy"]
    async with server(secured(authority), heads) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        reached = await probe_server("https://localhost/api/2.0/export", now=lambda: NOW)
    assert reached.proxy == f"127.0.0.1:{port}"
    assert heads[1].startswith(b"CONNECT localhost:443 ")


async def test_the_simulator_counts_nothing() -> None:
    """The request is not an export request, so it uses no quota; the simulator sends no time."""
    sim = simulator()
    async with sim.serve() as url:
        reached = await probe_server(url)
        assert await probe_server(url) != reached
    assert (reached.tls, reached.ahead, reached.status) == (None, None, 404)
    assert sim.requests == []


@pytest.mark.parametrize("seconds", [0.0, 3600.0, -90.0])
async def test_clocks_are_compared(seconds: float) -> None:
    """The difference of a clock is reported within the uncertainty of its seconds and of the network delay."""

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=HEADERS)

    reached = await probe_server(
        "https://localhost",
        transport=httpx.MockTransport(handle),
        now=lambda: NOW + timedelta(seconds=seconds + 0.5),
    )
    assert reached.ahead is not None
    assert abs(reached.ahead - seconds) <= reached.uncertainty


@pytest.mark.parametrize("date", [None, "", "yesterday"])
async def test_a_server_may_tell_no_time(date: str | None) -> None:
    """A header that is missing, or is not a date, is not compared."""

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={} if date is None else {"Date": date})

    assert (await probe_server("https://localhost", transport=httpx.MockTransport(handle))).ahead is None


async def test_a_foreign_certificate_is_told() -> None:
    """A server with an untrusted certificate is not reached, and the advice is that of an export."""
    async with server(secured(trustme.CA()), []) as port:
        with pytest.raises(NetworkError, match=r"no secure connection to localhost .*; if a proxy"):
            await probe_server(f"https://localhost:{port}")


async def test_nobody_there_and_silence_are_told() -> None:
    """A refused connection is an error immediately, and silence after the timeout; both are one sentence."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with listener:
        with pytest.raises(NetworkError, match=r"127\.0\.0\.1 sent no data for too long; check the network"):
            await probe_server(f"http://127.0.0.1:{port}", time_limit=0.2)
    with pytest.raises(NetworkError, match=r"cannot connect to 127\.0\.0\.1"):
        await probe_server(f"http://127.0.0.1:{port}")


async def test_a_proxy_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invalid proxy settings are errors of the configuration."""
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://user:pass@")
    with pytest.raises(ConfigError) as caught:
        await probe_server("https://localhost")
    assert "pass" not in str(caught.value).replace("PASSWORD", "")
    assert isinstance(caught.value, MixpanelDataError)
    assert f"{ACCOUNT.secret!s:s}" not in str(caught.value)
