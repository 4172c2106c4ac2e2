"""Which proxy a request uses, and which hosts `NO_PROXY` exempts, in every notation that people use."""

import anyio
import pytest
from examples import slow
from hypothesis import given
from hypothesis import strategies as st
from servers import PATH
from support import simulator

from mixpanel_export._source.client import new_client
from mixpanel_export._source.proxies import ProxySetting, is_exempt, proxy_for
from mixpanel_export._source.reach import probe_server
from mixpanel_export.errors import ConfigError, NetworkError

MIXPANEL = "https://data.mixpanel.com" + PATH
LISTS = [
    "::1",
    "[::1]",
    "fd00::/8",
    "fe80::/10",
    "10.0.0.0/8",
    "localhost,127.0.0.1,::1",
    "[",
    "a b",
    "::/200",
    "*:*",
]


@pytest.fixture(autouse=True)
def no_proxy_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    "entry, hosts, others",
    [
        ("*", ["data.mixpanel.com", "10.0.0.1", "::1"], []),
        (
            "mixpanel.com",
            ["mixpanel.com", "data.mixpanel.com", "DATA.MIXPANEL.COM."],
            ["notmixpanel.com", "10.0.0.1"],
        ),
        (".mixpanel.com", ["mixpanel.com", "data.mixpanel.com"], ["notmixpanel.com"]),
        ("*.mixpanel.com", ["data.mixpanel.com"], ["notmixpanel.com"]),
        ("data.mixpanel.com:443", ["data.mixpanel.com"], ["mixpanel.com"]),
        ("data.mixpanel.com:8443", [], ["data.mixpanel.com"]),
        ("https://data.mixpanel.com", ["data.mixpanel.com"], ["mixpanel.com"]),
        ("http://data.mixpanel.com", [], ["data.mixpanel.com"]),
        ("10.1.2.3", ["10.1.2.3"], ["10.1.2.4"]),
        ("10.0.0.0/8", ["10.1.2.3"], ["11.0.0.0", "data.mixpanel.com"]),
        ("10.1.2.3/8", ["10.9.9.9"], ["11.0.0.0"]),
        ("::1", ["::1", "0:0:0:0:0:0:0:1"], ["::2", "127.0.0.1"]),
        ("[::1]", ["::1"], ["::2"]),
        ("[::1]:443", ["::1"], ["::2"]),
        ("[::1]:8443", [], ["::1"]),
        ("fd00::/8", ["fd12::5"], ["fe80::1", "10.0.0.1"]),
        ("[fd00::]/8", ["fd12::5"], ["fe80::1"]),
        ("fe80::/10", ["fe80::1", "fe80::1%eth0"], ["fd00::1"]),
        (" a.example ,, b.example", ["a.example", "b.example"], ["c.example"]),
        ("", [], ["data.mixpanel.com", "::1"]),
    ],
)
def test_no_proxy_exempts_names_addresses_and_networks(
    entry: str, hosts: list[str], others: list[str]
) -> None:
    """Each form exempts the hosts it names, and no others."""
    assert [host for host in hosts if not is_exempt(host, 443, entry)] == []
    assert [host for host in others if is_exempt(host, 443, entry)] == []


@given(st.text("*.,:/[]a1 %"), st.sampled_from(["data.mixpanel.com", "::1", "10.0.0.1", "fe80::1%eth0"]))
def test_no_list_is_fatal(no_proxy: str, host: str) -> None:
    """Whatever the list contains, the function returns whether a host is exempt."""
    assert is_exempt(host, 443, no_proxy) in {True, False}


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_the_environment_names_the_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting has the variable's name; without a scheme, it is an HTTP proxy; an empty one is ignored."""
    monkeypatch.setenv(variable, "proxy.example:3128")
    assert proxy_for(MIXPANEL) == ProxySetting("http://proxy.example:3128", variable)
    monkeypatch.setenv("NO_PROXY", "mixpanel.com")
    assert proxy_for(MIXPANEL) is None
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv(variable, " ")
    assert proxy_for(MIXPANEL) is None


def test_https_proxy_goes_before_all_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The more specific variable wins; plain HTTP uses neither."""
    monkeypatch.setenv("ALL_PROXY", "http://all.example")
    monkeypatch.setenv("HTTPS_PROXY", "http://https.example")
    assert proxy_for(MIXPANEL) == ProxySetting("http://https.example", "HTTPS_PROXY")
    assert proxy_for("http://127.0.0.1:8080") is None


@pytest.mark.anyio
@pytest.mark.parametrize("no_proxy", LISTS)
@pytest.mark.parametrize("http2", [True, *slow([False])])
async def test_no_proxy_never_stops_a_request(
    no_proxy: str, http2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each of these lists, and an unreachable proxy, loopback is reached and a client is created."""
    monkeypatch.setenv("NO_PROXY", no_proxy)
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with simulator().serve() as url:
        assert (await probe_server(url)).proxy is None
        async with new_client(MIXPANEL, http2=http2):
            pass


@pytest.mark.anyio
async def test_a_socks_proxy_stops_only_what_would_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, loopback and exempt hosts are still reached; the error for others names the variable."""
    monkeypatch.setenv("ALL_PROXY", "socks5://user:proxy-password@127.0.0.1:9")
    async with simulator().serve() as url:
        assert (await probe_server(url)).status
    with pytest.raises(ConfigError, match=r"^ALL_PROXY .*SOCKS.*socksio") as caught:
        new_client(MIXPANEL)
    assert "proxy-password" not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", "data.mixpanel.com")
    async with new_client(MIXPANEL):
        pass


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_error_names_a_proxy_that_is_not_used(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no proxy is set, or the host is exempt, the advice does not mention one."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
    for no_proxy in (None, "127.0.0.1"):
        if no_proxy:
            monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
            monkeypatch.setenv("NO_PROXY", no_proxy)
        with pytest.raises(NetworkError) as caught:
            await probe_server(f"{scheme}://127.0.0.1:{port}")
        assert "proxy" not in str(caught.value).lower()
