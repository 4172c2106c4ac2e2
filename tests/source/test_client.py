"""Connections over real sockets: TLS, HTTP/2, and the errors if there is no connection."""

import socket
from contextlib import aclosing
from datetime import date
from pathlib import Path
from typing import NoReturn

import anyio
import httpx
import pytest
import sockets
import trustme
from anyio.abc import SocketStream
from click.testing import CliRunner
from servers import PATH, Proxy, Server, listening, proxying, serving
from sockets import ALL, CHUNK, LINE, LINES, SECRET, admit, fetched, refused, seen, short, whole
from support import ACCOUNT, answering, export, held, simulator, truth

from mixpanel_export._model import Chunk
from mixpanel_export._source.client import new_client
from mixpanel_export._source.parameters import RequestParameters, Timeouts
from mixpanel_export._source.request import fetch
from mixpanel_export.cli import cli
from mixpanel_export.errors import APIError, ConfigError, NetworkError, QueryError
from mixpanel_export.simulator import Fault
from mixpanel_export.workspace import Workspace

authority = sockets.authority
environment = sockets.environment
http2 = sockets.http2


pytestmark = pytest.mark.anyio


async def test_a_server_without_http2_answers_by_http1(authority: trustme.CA) -> None:
    """HTTP/2 is only offered to the server."""
    server = Server(short(), offers=("http/1.1",))
    async with serving(authority, server), new_client(server.url, http2=True) as client:
        assert await fetched(server.url, client) == LINE
    assert server.connections == ["http/1.1"]


async def test_an_export_by_either_protocol_is_exact(
    authority: trustme.CA, http2: bool, tmp_path: Path
) -> None:
    """The table has exactly the events, even if some responses were cut off or refused before."""
    sim = simulator(faults=[Fault("close", times=1), Fault("truncated_gzip", times=1), Fault("503", times=1)])
    async with serving(authority, Server(sim.transport())) as server:
        url = server.url.removesuffix(PATH)
        result = await export(sim, tmp_path / "a.db", transport=None, api_url=url, http2=http2)
    assert not result.has_failures
    assert held(tmp_path / "a.db") == truth(sim)
    assert set(server.connections) == {"h2" if http2 else "http/1.1"}


async def test_every_door_can_choose_http2(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetching, streaming and `mpx export --http2` use HTTP/2."""
    sim = simulator()
    for name, value in (("USERNAME", ACCOUNT.username), ("SECRET", SECRET), ("PROJECT_ID", "12345")):
        monkeypatch.setenv(f"MP_{name}", str(value))
    async with serving(authority, Server(sim.transport())) as server:
        url = server.url.removesuffix(PATH)
        command = ["export", "--from", "2024-03-01", "--to", "2024-03-02", "--http2", "--api-url", url]

        def through_each() -> None:
            with Workspace(path=tmp_path / "a.db", credentials=ACCOUNT, api_url=url, http2=True) as workspace:
                workspace.fetch_events(from_date="2024-03-01", to_date="2024-03-02", progress=False)
                assert list(workspace.stream_events(from_date="2024-03-01", to_date="2024-03-02"))
            done = CliRunner().invoke(cli, [*command, "--db", str(tmp_path / "b.db"), "--quiet"])
            assert done.exit_code == 0, done.output

        await anyio.to_thread.run_sync(through_each)
    assert server.connections == ["h2"] * 3
    assert held(tmp_path / "a.db") == held(tmp_path / "b.db") == truth(sim, "2024-03-01", "2024-03-02")


async def test_the_gate_stands_behind_the_connection_and_before_the_request(
    authority: trustme.CA, http2: bool
) -> None:
    """Requests that wait at the gate have connections, but have sent nothing; each gets its own response."""

    def of_its_day(request: httpx.Request) -> bytes:
        return b'{"event":"%s","properties":{}}\n' % request.url.params["from_date"].encode()

    days = [Chunk(date(2024, 3, day), date(2024, 3, day)) for day in (1, 2, 3)]
    lines: dict[Chunk, bytes] = {}
    waiting, everybody = [], anyio.Event()

    async with serving(authority, Server(answering(of_its_day))) as server:

        async def gate() -> None:
            waiting.append(server.requests.copy())
            if len(waiting) == len(days):
                everybody.set()
            await everybody.wait()

        async def one(client: httpx.AsyncClient, chunk: Chunk) -> None:
            lines[chunk] = await fetched(server.url, client, admit=gate, chunk=chunk)

        async with new_client(server.url, http2=http2) as client, anyio.create_task_group() as tasks:
            for chunk in days:
                tasks.start_soon(one, client, chunk)
    assert waiting == [[]] * 3
    assert lines == {day: b'{"event":"%s","properties":{}}\n' % str(day.first).encode() for day in days}
    assert len(server.connections) == 3
    assert server.streams == ([1] * 3 if http2 else [])


async def test_an_answer_that_waits_or_is_given_up_holds_up_no_other(
    authority: trustme.CA, http2: bool
) -> None:
    """A response that is not read, and one that is cancelled, do not slow down or damage the others.

    The bodies are larger than HTTP/2's windows, and arrive by the chosen protocol.
    """
    async with serving(authority, Server(whole())) as server, new_client(server.url, http2=http2) as client:
        parameters = RequestParameters(server.url, ACCOUNT, ALL)
        async with aclosing(fetch(client, parameters, CHUNK, admit=admit, on_bytes=seen)) as idle:
            begun = await anext(idle)
            with anyio.CancelScope() as scope:
                async with aclosing(fetch(client, parameters, CHUNK, admit=admit, on_bytes=seen)) as blocks:
                    async for _ in blocks:
                        scope.cancel()
                        await anyio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            assert await fetched(server.url, client) == LINES
            rest = [piece async for lines in idle for piece in lines]
            assert b"".join([*begun, *rest]) == LINES
        if http2:  # an idle connection of HTTP/1.1 may serve again
            while server.left < 3:
                await anyio.lowlevel.checkpoint()
    assert len(server.requests) == 3
    assert set(server.connections) == {"h2" if http2 else "http/1.1"}


async def test_a_tls_stream_that_is_tampered_with_is_a_broken_connection(
    authority: trustme.CA, http2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that something inserts into the connection end only the attempt."""
    async with serving(authority, Server(whole())) as server, proxying(Proxy(spoils=True)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with new_client(server.url, http2=http2) as client:
            with pytest.raises(NetworkError, match="2024-03-01: the connection to localhost broke"):
                await fetched(server.url, client)


async def test_an_unknown_authority_gets_no_credentials(http2: bool, tmp_path: Path) -> None:
    """A certificate from an unknown authority ends the attempt before the request; the error has advice."""
    async with serving(trustme.CA(), Server(short())) as server:
        said = await refused(server.url, http2)
    assert "no secure connection to localhost" in said
    assert "issuer" in said
    assert "SSL_CERT_FILE" in said
    assert server.requests == []


async def test_a_certificate_for_another_host_gets_no_credentials(authority: trustme.CA, http2: bool) -> None:
    """A trusted certificate for another name is not valid for this one."""
    async with serving(authority, Server(short())) as server:
        said = await refused(server.url.replace("localhost", "127.0.0.1"), http2)
    assert "IP address mismatch" in said
    assert server.requests == []


@pytest.mark.parametrize("name", ["missing.pem", "empty.pem"])
async def test_certificates_that_cannot_be_read_are_a_setting(
    name: str, http2: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file, and one without certificates, are reported before the first request."""
    (tmp_path / "empty.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE cannot be read"):
        new_client("https://data.example" + PATH, http2=http2)


async def test_a_name_without_address_is_told_from_a_dead_host(
    http2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says whose name is unknown: the server's or the proxy's."""

    def unknown(*_args: object, **_options: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    said = await refused("https://data.example" + PATH, http2)
    assert "no address was found for data.example" in said
    assert "(Name or service not known)" in said
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    said = await refused("https://data.example" + PATH, http2)
    assert "no address was found for the proxy proxy.example:3128" in said


async def test_silence_at_connecting_is_told_from_silence_later(http2: bool) -> None:
    """A server that accepts the connection but does not answer the handshake is given up after the connect timeout."""

    async def silent(stream: SocketStream) -> None:
        async with stream:
            await anyio.sleep_forever()

    async with listening(silent) as port:
        said = await refused(f"https://localhost:{port}{PATH}", http2, Timeouts(connect=0.2))
    assert "timed out connecting to localhost" in said


async def test_a_server_that_hangs_up_is_not_mistaken_for_one_that_is_not_trusted(http2: bool) -> None:
    """If a connection ends during the handshake, the error says that it could not be made."""

    async def rude(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()

    async with listening(rude) as port:
        said = await refused(f"https://localhost:{port}{PATH}", http2)
    assert "2024-03-01: cannot connect to localhost (" in said


async def test_a_server_that_speaks_no_tls_is_no_secure_connection(http2: bool) -> None:
    """The error says so, and nothing is sent."""

    async def plain(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(plain) as port:
        said = await refused(f"https://localhost:{port}{PATH}", http2)
    assert "no secure connection to localhost" in said


@pytest.mark.parametrize("way", ["direct", "proxied", "without proxy"])
async def test_tcp_keeps_every_connection_alive(
    authority: trustme.CA, http2: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket of a request detects a dead peer within minutes, with or without a proxy."""
    options: list[int] = []

    async def look(response: httpx.Response) -> None:
        raw = response.extensions["network_stream"].get_extra_info("socket")
        options.append(raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        if hasattr(socket, "TCP_KEEPIDLE"):
            options.append(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))

    async with serving(authority, Server(short())) as server, proxying(Proxy()) as proxy:
        if way != "direct":
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        if way == "without proxy":
            monkeypatch.setenv("NO_PROXY", "localhost")
        async with new_client(server.url, http2=http2) as client:
            client.event_hooks = {"response": [look]}
            await fetched(server.url, client)
    assert len(proxy.heads) == (way == "proxied")
    assert options[0]
    assert options[1:] in ([], [60])


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_credentials_follow_no_redirect_over_a_socket(
    authority: trustme.CA, http2: bool, status: int
) -> None:
    """No request is sent to the redirect's target, with or without credentials."""
    other = simulator()
    async with other.serve() as away:
        sim = simulator(faults=[Fault("redirect", status=status, location=f"{away}{PATH}")])
        async with (
            serving(authority, Server(sim.transport())) as server,
            new_client(server.url, http2=http2) as client,
        ):
            with pytest.raises(QueryError, match="credentials are not sent to another address") as caught:
                await fetched(server.url, client)
    assert isinstance(caught.value, APIError)
    assert [request.credentials for request in sim.requests] == [True]
    assert other.requests == []
