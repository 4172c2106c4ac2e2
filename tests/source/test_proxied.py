"""Connections through the proxies that the environment names."""

import pytest
import sockets
import trustme
from servers import PATH, Proxy, Server, proxying, serving
from sockets import LINE, fetched, refused, short
from support import simulator

from mixpanel_export._source.client import new_client
from mixpanel_export.errors import ConfigError

authority = sockets.authority
environment = sockets.environment
http2 = sockets.http2
pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_a_proxy_of_the_environment_is_used(
    authority: trustme.CA, http2: bool, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy resolves the name and sees no credentials; the gate is passed once, after the tunnel is open."""
    seen: list[tuple[int, int]] = []
    async with serving(authority, Server(short())) as server, proxying(Proxy()) as proxy:
        monkeypatch.setenv(variable, proxy.url)

        async def gate() -> None:
            seen.append((len(proxy.heads), len(server.requests)))

        url = server.url.replace("localhost", "data.example")
        async with new_client(url, http2=http2) as client:
            assert await fetched(url, client, admit=gate) == LINE
    assert seen == [(1, 0)]
    assert proxy.heads[0].startswith(b"CONNECT data.example:")
    assert b"\r\nAuthorization" not in proxy.heads[0]
    assert server.connections == ["h2" if http2 else "http/1.1"]


async def test_a_host_without_proxy_is_reached_directly(
    authority: trustme.CA, http2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host in `NO_PROXY` is reached without the proxy."""
    async with serving(authority, Server(short())) as server, proxying(Proxy()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "example.org,localhost")
        async with new_client(server.url, http2=http2) as client:
            assert await fetched(server.url, client) == LINE
    assert proxy.heads == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
async def test_credentials_in_clear_pass_no_proxy(
    http2: bool, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain HTTP, which is allowed only for loopback, uses no proxy, because a proxy could read the credentials."""
    sim = simulator()
    async with sim.serve() as url, proxying(Proxy()) as proxy:
        monkeypatch.setenv(variable.lower(), proxy.url)
        async with new_client(url + PATH, http2=http2) as client:
            await fetched(url + PATH, client)
    assert proxy.heads == []
    assert [request.status for request in sim.requests] == [200]


async def test_a_proxy_that_refuses_is_named(
    authority: trustme.CA, http2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the proxy, the server, the proxy's reason, and the variables that decide."""
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
    async with proxying(Proxy(refusal)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        said = await refused("https://data.example" + PATH, http2)
    assert f"the proxy 127.0.0.1:{proxy.port} rejected the connection" in said
    assert "to data.example (407 Proxy Authentication Required)" in said
    assert "HTTPS_PROXY" in said


async def test_a_proxy_that_is_not_there_is_named(http2: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that the proxy could not be reached."""
    async with proxying(Proxy()) as proxy:
        pass
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    said = await refused("https://data.example" + PATH, http2)
    assert f"cannot connect to the proxy 127.0.0.1:{proxy.port}" in said
    assert "check the network and HTTPS_PROXY" in said


@pytest.mark.parametrize(
    "proxy", ["ftp://someone:proxy-password@host", "http://someone:proxy-password/@host"]
)
async def test_a_proxy_that_is_no_address_is_a_setting(
    http2: bool, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported before the first request, without its password."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        new_client("https://data.example" + PATH, http2=http2)
    assert "proxy-password" not in str(caught.value)
    assert caught.value.__suppress_context__
